// What the kernels here share: a thread's place in the grid, and 16-byte accesses where the addresses allow them.
#pragma once

#include "../math/portable.hpp"

namespace minigen {

constexpr int block_threads = 256;

// A loop over [0, n) shared by the whole x axis of the grid: for (i = grid_first(); i < n; i += grid_stride()).
__device__ __forceinline__ int64_t grid_first() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }

__device__ __forceinline__ int64_t grid_stride() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

template <class T>
__device__ __forceinline__ bool aligned(const T* address, int bytes) {
  return reinterpret_cast<uint64_t>(address) % static_cast<uint64_t>(bytes) == 0;
}

}  // namespace minigen
