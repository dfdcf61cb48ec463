// Vectors of floats as wide as the registers of this instruction set, in the compilers' vector extensions.
#pragma once

#include <cstdint>
#include <utility>

#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace minigen::MINIGEN_ISA {

#if defined(__AVX512F__)
constexpr int lanes = 16;
#elif defined(__AVX__)
constexpr int lanes = 8;
#else
constexpr int lanes = 4;
#endif

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr bool has_32_registers = true;
#else
constexpr bool has_32_registers = false;
#endif

using Vector = float __attribute__((vector_size(lanes * sizeof(float))));
// A typedef: Clang 14 ignores the alignment in an alias declaration.
typedef float UnalignedVector __attribute__((vector_size(lanes * sizeof(float)), aligned(4), may_alias));
using Quad = float __attribute__((vector_size(16)));
typedef float UnalignedQuad __attribute__((vector_size(16), aligned(4), may_alias));

static inline Vector load(const float* p) { return *reinterpret_cast<const UnalignedVector*>(p); }
static inline void store(float* p, Vector v) { *reinterpret_cast<UnalignedVector*>(p) = v; }

// The first `count` floats only, 1 <= count <= lanes: nothing else in memory is touched.
#if defined(__AVX512F__)
static inline Vector load_first(const float* p, int64_t count) {
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p);
}
static inline void store_first(float* p, Vector v, int64_t count) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1), v);
}
#elif defined(__AVX__)
static inline __m256i first_lanes(int64_t count) {
  alignas(64) static constexpr int32_t ones_then_zeros[2 * lanes] = {-1, -1, -1, -1, -1, -1, -1, -1};
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(ones_then_zeros + lanes - count));
}
static inline Vector load_first(const float* p, int64_t count) { return _mm256_maskload_ps(p, first_lanes(count)); }
// In pieces: AMD's cores before Zen 4 take a masked store apart into 40 operations.
static inline void store_first(float* p, Vector v, int64_t count) {
  if (count == lanes) return store(p, v);
  __m128 rest = _mm256_castps256_ps128(v);
  if (count & 4) {
    _mm_storeu_ps(p, rest);
    rest = _mm256_extractf128_ps(v, 1);
    p += 4;
  }
  if (count & 2) {
    _mm_storel_pi(reinterpret_cast<__m64*>(p), rest);
    rest = _mm_movehl_ps(rest, rest);
    p += 2;
  }
  if (count & 1) _mm_store_ss(p, rest);
}
#else
static inline Vector load_first(const float* p, int64_t count) {
  Vector v = {};
  for (int64_t l = 0; l < count; ++l) v[l] = p[l];
  return v;
}
static inline void store_first(float* p, Vector v, int64_t count) {
  for (int64_t l = 0; l < count; ++l) p[l] = v[l];
}
#endif

// a / b for b in [1, 2] and |a| not above it; 1 ulp. AVX-512's division would take 16 cycles, this takes three.
static inline Vector divide_by_1_to_2(Vector a, Vector b) {
#if defined(__AVX512F__)
  const Vector reciprocal = _mm512_maskz_rcp14_ps(0xffff, b);  // 14 bits, and one step of Newton's iteration
  const Vector quotient = a * reciprocal;
  return quotient + (a - quotient * b) * reciprocal;
#else
  return a / b;
#endif
}

// Copies `rows` rows of `cols` floats between matrices with rows of different strides.
static inline void copy_rows(const float* from, int64_t from_stride, float* to, int64_t to_stride, int64_t rows,
                             int64_t cols) {
  for (int64_t i = 0; i < rows; ++i) {
    int64_t j = 0;
    for (; j + lanes <= cols; j += lanes) store(to + i * to_stride + j, load(from + i * from_stride + j));
    if (j < cols) store_first(to + i * to_stride + j, load_first(from + i * from_stride + j, cols - j), cols - j);
  }
}

// --- transposition: of 4 x 4 blocks within the 128-bit quads of vectors ------------------------------------------

// Four floats from each of lanes / 4 rows, side by side.
static inline Vector load_quads(const float* p, int64_t stride) {
#if defined(__AVX512F__)
  const __m256 low = _mm256_loadu2_m128(p + stride, p);
  const __m256 high = _mm256_loadu2_m128(p + 3 * stride, p + 2 * stride);
  return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
#elif defined(__AVX__)
  return _mm256_loadu2_m128(p + stride, p);
#else
  (void)stride;
  return load(p);
#endif
}

// The sum of the quads.
static inline Quad add_quads(Vector v) {
#if defined(__AVX512F__)
  const __m256 half = _mm512_maskz_extractf32x8_ps(0xff, v, 0) + _mm512_maskz_extractf32x8_ps(0xff, v, 1);
  return _mm256_castps256_ps128(half) + _mm256_extractf128_ps(half, 1);
#elif defined(__AVX__)
  return _mm256_castps256_ps128(v) + _mm256_extractf128_ps(v, 1);
#else
  return v;
#endif
}

using Indices = int32_t __attribute__((vector_size(lanes * sizeof(float))));

// Lane l of `interleave`: groups of `size` floats, taken in turn from the low (or high) half of a's quad and of b's.
static constexpr int source(int l, int size, bool high) {
  const int group = l % 4 / size;
  return l / 4 * 4 + 2 * high + group / 2 * size + l % size + group % 2 * lanes;
}

template <int size, bool high, int... L>
static inline Vector interleave(Vector a, Vector b, std::integer_sequence<int, L...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, source(L, size, high)...);
#else
  return __builtin_shuffle(a, b, Indices{source(L, size, high)...});
#endif
}

template <int size, bool high>
static inline Vector interleave(Vector a, Vector b) {
  return interleave<size, high>(a, b, std::make_integer_sequence<int, lanes>());
}

// The 4 x 4 block whose rows are one quad of each v[0..3] becomes its transpose, for every quad.
static inline void transpose_quads(Vector v[4]) {
  const Vector low01 = interleave<1, false>(v[0], v[1]), low23 = interleave<1, false>(v[2], v[3]);
  const Vector high01 = interleave<1, true>(v[0], v[1]), high23 = interleave<1, true>(v[2], v[3]);
  v[0] = interleave<2, false>(low01, low23);
  v[1] = interleave<2, true>(low01, low23);
  v[2] = interleave<2, false>(high01, high23);
  v[3] = interleave<2, true>(high01, high23);
}

}  // namespace minigen::MINIGEN_ISA
