// Adam on a run of parameters, for one instruction set: what the optimizer and the weight gradient's epilogue share.
#pragma once

#include <cstdint>

#include "../math/adam.hpp"
#include "kernels.hpp"
#include "product.hpp"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace minigen::MINIGEN_ISA {

#if defined(__AVX512F__)

// Sixteen square roots take 19 cycles and sixteen divisions 16. So both start from the CPU's 14-bit estimates and gain
// the missing bits by one step of Newton's iteration; 1 ulp. The estimates of 0, of infinity and of what overflows are
// no numbers and make the result none: only then, rarely, is it computed again by the exact instructions.
static inline __m512 divide_by_root(__m512 a, __m512 x, __m512 eps) {  // a / (sqrt(x) + eps)
  const __m512 half = _mm512_set1_ps(0.5f);
  const __m512 inverse = _mm512_maskz_rsqrt14_ps(0xffff, x);
  const __m512 estimate = _mm512_mul_ps(x, inverse);
  const __m512 error = _mm512_fnmadd_ps(estimate, _mm512_mul_ps(half, inverse), half);
  const __m512 b = _mm512_add_ps(_mm512_fmadd_ps(estimate, error, estimate), eps);

  const __m512 reciprocal = _mm512_maskz_rcp14_ps(0xffff, b);
  const __m512 quotient = _mm512_mul_ps(a, reciprocal);
  const __m512 result = _mm512_fmadd_ps(_mm512_fnmadd_ps(quotient, b, a), reciprocal, quotient);
  const __mmask16 no_number = _mm512_fpclass_ps_mask(result, 0x99);  // NaN or infinite
  if (__builtin_expect(no_number != 0, 0))
    return _mm512_mask_div_ps(result, no_number, a, _mm512_add_ps(_mm512_sqrt_ps(x), eps));
  return result;
}

// adam_update on the 16 parameters, or those that `lanes` names.
static inline void adam_16(float* p, const float* g, float* m, float* v, __mmask16 lanes, const AdamStep& s) {
  const __m512 gradient = _mm512_maskz_loadu_ps(lanes, g);
  const __m512 kept_m = _mm512_mul_ps(_mm512_set1_ps(s.beta1), _mm512_maskz_loadu_ps(lanes, m));
  const __m512 kept_v = _mm512_mul_ps(_mm512_set1_ps(s.beta2), _mm512_maskz_loadu_ps(lanes, v));
  const __m512 new_m = _mm512_fmadd_ps(_mm512_set1_ps(s.one_minus_beta1), gradient, kept_m);
  const __m512 new_v = _mm512_fmadd_ps(_mm512_set1_ps(s.one_minus_beta2), _mm512_mul_ps(gradient, gradient), kept_v);
  const __m512 change = divide_by_root(_mm512_mul_ps(_mm512_set1_ps(s.rate), new_m),
                                       _mm512_mul_ps(new_v, _mm512_set1_ps(s.correction)), _mm512_set1_ps(s.eps));
  const __m512 old_p = _mm512_maskz_loadu_ps(lanes, p);
  const __m512 decayed = _mm512_fnmadd_ps(_mm512_set1_ps(s.decay), old_p, old_p);
  _mm512_mask_storeu_ps(m, lanes, new_m);
  _mm512_mask_storeu_ps(v, lanes, new_v);
  _mm512_mask_storeu_ps(p, lanes, _mm512_sub_ps(decayed, change));
}

static inline __attribute__((always_inline)) void adam_range(float* p, const float* g, float* m, float* v,
                                                             int64_t begin, int64_t end, const AdamStep& s) {
  int64_t i = begin;
  for (; i + 16 <= end; i += 16) adam_16(p + i, g + i, m + i, v + i, 0xffff, s);
  if (i < end) adam_16(p + i, g + i, m + i, v + i, static_cast<__mmask16>((1u << (end - i)) - 1u), s);
}

#else

static inline __attribute__((always_inline)) void adam_range(float* p, const float* g, float* m, float* v,
                                                             int64_t begin, int64_t end, const AdamStep& s) {
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    const AdamState next = adam_update(p[i], g[i], m[i], v[i], s);
    p[i] = next.p;
    m[i] = next.m;
    v[i] = next.v;
  }
}

#endif

// The update as the epilogue of a weight gradient: context and Consume of its product.
struct Update {
  AdamSlots slots;
  AdamStep step;
};

static inline void update_block(const void* context, const float* gradient, int64_t stride, int64_t offset, int64_t N,
                                int64_t rows, int64_t cols) {
  const Update& u = *static_cast<const Update*>(context);
  const auto update_row = [&](int64_t i, int64_t count) __attribute__((always_inline)) {
    const int64_t at = offset + i * N;
    adam_range(u.slots.p + at, gradient + i * stride, u.slots.m + at, u.slots.v + at, 0, count, u.step);
  };
  constexpr int64_t panel = 2 * lanes;  // a constant where a row is as wide as a panel: straight code
  if (cols == panel)
    for (int64_t i = 0; i < rows; ++i) update_row(i, panel);
  else
    for (int64_t i = 0; i < rows; ++i) update_row(i, cols);
}

static inline Product with_update(Product p, const Update& update) {
  p.consume = update_block;
  p.context = &update;
  p.streams[0] = update.slots.p;
  p.streams[1] = update.slots.m;
  p.streams[2] = update.slots.v;
  return p;
}

}  // namespace minigen::MINIGEN_ISA
