// CUDA C++ kernels as host functions, for a caller that sets the indices below and calls once for each thread.
//
// Threads run one after the other, thread 0 first: enough for kernels in which only thread 0 writes shared memory,
// before the first barrier.
#pragma once

#include <stdint.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define __shared__ static

struct Three {
  uint32_t x, y, z;
};
extern "C" {
Three threadIdx, blockIdx, blockDim, gridDim;
}

inline void __syncthreads() {}

struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(4) uchar4 {
  unsigned char x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
