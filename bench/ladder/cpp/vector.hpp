// A vector of floats as wide as the registers, in GCC's and Clang's own extension: `a * b + c` is one instruction.
#pragma once

#include <cstdint>

#if defined(__AVX512F__)
constexpr int64_t lanes = 16;
#elif defined(__AVX__)
constexpr int64_t lanes = 8;
#else
constexpr int64_t lanes = 4;
#endif

typedef float Vector __attribute__((vector_size(lanes * sizeof(float)), aligned(4), may_alias));

static inline Vector& at(float* p) { return *reinterpret_cast<Vector*>(p); }
static inline const Vector& at(const float* p) { return *reinterpret_cast<const Vector*>(p); }
