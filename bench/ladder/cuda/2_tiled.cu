// The threads of a block, 16 x 16, compute a tile of y together, 64 x 64: each of them 4 x 4 sums in registers.
//
// In each turn the block loads 64 x 16 numbers of x and 16 x 64 of W into shared memory, once for all its threads; each
// number then serves 64 sums. From there a thread takes 4 + 4 numbers for 16 multiply-adds. A barrier before the tile
// is used, since other threads have loaded parts of it, and one before it is loaded anew, since others may still read.
constexpr int tile = 64, depth = 16, threads = 16, own = tile / threads;

extern "C" __global__ void dense(const float* x, const float* W, const float* b, float* y, int B, int I, int O) {
  __shared__ float xs[depth][tile + 1];  // transposed; the extra column keeps a warp's writes in different banks
  __shared__ float Ws[depth][tile];
  const int r0 = blockIdx.y * tile, o0 = blockIdx.x * tile, t = threadIdx.y * threads + threadIdx.x;
  float sum[own][own] = {};
  for (int i0 = 0; i0 < I; i0 += depth) {
    for (int e = t; e < tile * depth; e += threads * threads) {
      const int r = r0 + e / depth, i = i0 + e % depth;
      xs[e % depth][e / depth] = r < B && i < I ? x[r * I + i] : 0.0f;
      const int k = i0 + e / tile, o = o0 + e % tile;
      Ws[e / tile][e % tile] = k < I && o < O ? W[k * O + o] : 0.0f;
    }
    __syncthreads();
    for (int i = 0; i < depth; ++i)
      for (int m = 0; m < own; ++m)
        for (int n = 0; n < own; ++n) sum[m][n] += xs[i][threadIdx.y + m * threads] * Ws[i][threadIdx.x + n * threads];
    __syncthreads();
  }
  for (int m = 0; m < own; ++m)
    for (int n = 0; n < own; ++n) {
      const int r = r0 + threadIdx.y + m * threads, o = o0 + threadIdx.x + n * threads;
      if (r < B && o < O) y[r * O + o] = sum[m][n] + b[o];
    }
}
