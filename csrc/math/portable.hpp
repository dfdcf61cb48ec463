// What the formulas in this folder need from a compiler, for C++ (GCC, Clang) and CUDA C++ (nvcc, NVRTC) alike.
//
// The formulas are scalar and free of branches, so that a loop over them is vectorised by the C++ compiler and stays
// uniform within a warp. Functions have internal linkage: the C++ side compiles them once for each instruction set.
#pragma once

#if defined(__CUDACC__)
#define MINIGEN_FN static __host__ __device__ __forceinline__
#else
#define MINIGEN_FN static inline __attribute__((always_inline, unused))
#endif

#if defined(__CUDACC_RTC__)
using int32_t = int;
using uint32_t = unsigned int;
using int64_t = long long;
using uint64_t = unsigned long long;
#else
#include <math.h>
#include <stdint.h>
#endif

namespace minigen::math {

MINIGEN_FN uint32_t to_bits(float x) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(x);
#else
  return __builtin_bit_cast(uint32_t, x);
#endif
}

MINIGEN_FN float from_bits(uint32_t x) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(x);
#else
  return __builtin_bit_cast(float, x);
#endif
}

MINIGEN_FN float absolute(float x) { return from_bits(to_bits(x) & 0x7fffffffu); }

// |magnitude| with the sign of `sign`.
MINIGEN_FN float with_sign(float magnitude, float sign) {
  return from_bits((to_bits(magnitude) & 0x7fffffffu) | (to_bits(sign) & 0x80000000u));
}

MINIGEN_FN float square_root(float x) {
#if defined(__CUDA_ARCH__)
  return sqrtf(x);
#else
  return __builtin_sqrtf(x);
#endif
}

}  // namespace minigen::math
