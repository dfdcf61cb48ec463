// The tile of 64 x 64 on the tensor cores: the eight warps of a block have 16 x 32 of it each, as two fragments.
//
// A warp multiplies 16 x 8 by 8 x 16 in one instruction, in TF32: float32 cut to 11 bits. As in minigen's default for
// GPUs each factor is written as a sum of two such numbers, a = high + low, and
//     a w = high_a high_w + high_a low_w + low_a high_w   (+ low_a low_w, which is below float32's rounding)
// gives float32's accuracy for three products. Which thread holds which number of a fragment is for the hardware to
// know: loads, products and stores are done by a warp as a whole.
#include <mma.h>

using namespace nvcuda;
constexpr int tile = 64, depth = 32, threads = 256;
using Left = wmma::fragment<wmma::matrix_a, 16, 16, 8, wmma::precision::tf32, wmma::row_major>;
using Right = wmma::fragment<wmma::matrix_b, 16, 16, 8, wmma::precision::tf32, wmma::row_major>;
using Sum = wmma::fragment<wmma::accumulator, 16, 16, 8, float>;

template <class Fragment>
__device__ void split(const Fragment& whole, Fragment& high, Fragment& low) {
  for (int e = 0; e < whole.num_elements; ++e) {
    high.x[e] = wmma::__float_to_tf32(whole.x[e]);
    low.x[e] = wmma::__float_to_tf32(whole.x[e] - high.x[e]);
  }
}

extern "C" __global__ void dense(const float* x, const float* W, const float* b, float* y, int B, int I, int O) {
  __shared__ float xs[tile * depth], Ws[depth * tile], ys[tile * tile];
  const int t = threadIdx.x, warp = t / 32, r0 = blockIdx.y * tile, o0 = blockIdx.x * tile;
  const int row = warp / 2 * 16, column = warp % 2 * 32;  // of this warp's part, in the tile
  Sum sum[2];
  for (int n = 0; n < 2; ++n) wmma::fill_fragment(sum[n], 0.0f);
  for (int i0 = 0; i0 < I; i0 += depth) {
    for (int e = t; e < tile * depth; e += threads) {
      const int r = r0 + e / depth, i = i0 + e % depth;
      xs[e] = r < B && i < I ? x[r * I + i] : 0.0f;
      const int k = i0 + e / tile, o = o0 + e % tile;
      Ws[e] = k < I && o < O ? W[k * O + o] : 0.0f;
    }
    __syncthreads();
    for (int i = 0; i < depth; i += 8) {
      Left a, a_high, a_low;
      wmma::load_matrix_sync(a, xs + row * depth + i, depth);
      split(a, a_high, a_low);
      for (int n = 0; n < 2; ++n) {
        Right w, w_high, w_low;
        wmma::load_matrix_sync(w, Ws + i * tile + column + 16 * n, tile);
        split(w, w_high, w_low);
        wmma::mma_sync(sum[n], a_high, w_low, sum[n]);
        wmma::mma_sync(sum[n], a_low, w_high, sum[n]);
        wmma::mma_sync(sum[n], a_high, w_high, sum[n]);
      }
    }
    __syncthreads();
  }
  // The sums go through shared memory: only a whole fragment can be stored, and y ends where it likes.
  for (int n = 0; n < 2; ++n)
    wmma::store_matrix_sync(ys + row * tile + column + 16 * n, sum[n], tile, wmma::mem_row_major);
  __syncthreads();
  for (int e = t; e < tile * tile; e += threads) {
    const int r = r0 + e / tile, o = o0 + e % tile;
    if (r < B && o < O) y[r * O + o] = ys[e] + b[o];
  }
}
