// The batch of a step: which rows, and their values: minigen/reference/batch.py.
//
// A kernel cannot raise. Where the host backends do (a step past the end of the epoch, an index outside of the data),
// the index is -1 and the row is NaN, which the training loop finds.
#include "grid.cuh"

#include "../math/permutation.hpp"

namespace minigen {

using Byte = unsigned char;  // NVRTC has no uint8_t

struct Order {
  int64_t first;
  Permutation permutation;
};

__device__ __forceinline__ Order order_of(uint32_t n, uint32_t seed, uint32_t stream, uint64_t step, int64_t batch_size,
                                          int64_t steps_per_epoch) {
  const uint64_t steps = static_cast<uint64_t>(steps_per_epoch);
  return {static_cast<int64_t>(step % steps) * batch_size, make_permutation(n, seed, stream, step / steps)};
}

__device__ __forceinline__ int32_t entry(const Order& order, int64_t row) {
  const int64_t position = order.first + row;
  if (position >= order.permutation.n) return -1;
  return static_cast<int32_t>(permute(static_cast<uint32_t>(position), order.permutation));
}

__device__ __forceinline__ float4 four(const Byte* from) {
  const uchar4 c = *reinterpret_cast<const uchar4*>(from);
  return make_float4(c.x, c.y, c.z, c.w);
}

__device__ __forceinline__ float4 four(const float* from) { return *reinterpret_cast<const float4*>(from); }

// Columns of one row, shared by the x axis of the grid.
template <class T>
__device__ __forceinline__ void gather_row(const T* data, int64_t N, int64_t D, int64_t index, float* to, float scale,
                                           float shift) {
  if (index < 0 || index >= N) {
    for (int64_t d = grid_first(); d < D; d += grid_stride()) to[d] = math::from_bits(0x7fc00000u);
    return;
  }
  const T* from = data + index * D;
  const bool wide = aligned(from, 4 * sizeof(T)) && aligned(to, 16);
  const int64_t quads = wide ? D / 4 : 0;
  for (int64_t q = grid_first(); q < quads; q += grid_stride()) {
    const float4 x = four(from + 4 * q);
    reinterpret_cast<float4*>(to)[q] =
        make_float4(x.x * scale + shift, x.y * scale + shift, x.z * scale + shift, x.w * scale + shift);
  }
  for (int64_t d = 4 * quads + grid_first(); d < D; d += grid_stride())
    to[d] = static_cast<float>(from[d]) * scale + shift;
}

// Indices and gather in one launch: every block computes the index of its row anew, which is cheaper than a launch.
template <class T>
__device__ __forceinline__ void take_row(const T* data, float* out, int32_t* indices, int64_t D, uint32_t n,
                                         uint32_t seed, uint32_t stream, uint64_t step, int64_t batch_size,
                                         int64_t steps_per_epoch, float scale, float shift) {
  __shared__ int32_t index;
  const int64_t row = blockIdx.y;
  if (threadIdx.x == 0) {
    index = entry(order_of(n, seed, stream, step, batch_size, steps_per_epoch), row);
    if (blockIdx.x == 0) indices[row] = index;
  }
  __syncthreads();
  gather_row(data, n, D, index, out + row * D, scale, shift);
}

}  // namespace minigen

using namespace minigen;

extern "C" __global__ void __launch_bounds__(block_threads)
    batch_indices(int32_t* indices, int64_t rows, uint32_t n, uint32_t seed, uint32_t stream, const uint64_t* step,
                  int64_t batch_size, int64_t steps_per_epoch) {
  const Order order = order_of(n, seed, stream, step[0], batch_size, steps_per_epoch);
  for (int64_t r = grid_first(); r < rows; r += grid_stride()) indices[r] = entry(order, r);
}

// Grid of the gathers: x shares the columns, y counts the rows of the batch.

extern "C" __global__ void __launch_bounds__(block_threads)
    batch_gather_bytes(const Byte* data, int64_t N, int64_t D, const int32_t* indices, float* out, float scale,
                       float shift) {
  gather_row(data, N, D, indices[blockIdx.y], out + blockIdx.y * D, scale, shift);
}

extern "C" __global__ void __launch_bounds__(block_threads)
    batch_gather_floats(const float* data, int64_t N, int64_t D, const int32_t* indices, float* out, float scale,
                        float shift) {
  gather_row(data, N, D, indices[blockIdx.y], out + blockIdx.y * D, scale, shift);
}

extern "C" __global__ void __launch_bounds__(block_threads)
    batch_take_bytes(const Byte* data, float* out, int32_t* indices, int64_t D, uint32_t n, uint32_t seed,
                     uint32_t stream, const uint64_t* step, int64_t batch_size, int64_t steps_per_epoch, float scale,
                     float shift) {
  take_row(data, out, indices, D, n, seed, stream, step[0], batch_size, steps_per_epoch, scale, shift);
}

extern "C" __global__ void __launch_bounds__(block_threads)
    batch_take_floats(const float* data, float* out, int32_t* indices, int64_t D, uint32_t n, uint32_t seed,
                      uint32_t stream, const uint64_t* step, int64_t batch_size, int64_t steps_per_epoch, float scale,
                      float shift) {
  take_row(data, out, indices, D, n, seed, stream, step[0], batch_size, steps_per_epoch, scale, shift);
}
