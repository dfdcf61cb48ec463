#include "kernels.hpp"
#include "threads.hpp"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace minigen::MINIGEN_ISA {

namespace {

void sgd_range(float* p, const float* g, float* velocity, int64_t begin, int64_t end, float rate, float momentum,
               float decay) {
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    velocity[i] = momentum * velocity[i] + (g[i] + decay * p[i]);
    p[i] -= rate * velocity[i];
  }
}

#if defined(__AVX512F__)

// On 512 bits the square root and the division would take most of Adam's time (one 16 lanes wide each 16 to 24 cycles). So both
// start from the CPU's 14-bit estimate and gain the missing bits by one step of Newton's iteration; 1 ulp.

__m512 square_root(__m512 x) {
  const __m512 estimate = _mm512_maskz_rsqrt14_ps(0xffff, x), half = _mm512_set1_ps(0.5f);
  const __m512 root = _mm512_mul_ps(x, estimate);
  const __m512 error = _mm512_fnmadd_ps(root, _mm512_mul_ps(half, estimate), half);
  const __mmask16 itself = _mm512_fpclass_ps_mask(x, 0x2e);  // +-0, infinity, denormal: the estimate is no number
  return _mm512_mask_mov_ps(_mm512_fmadd_ps(root, error, root), itself, x);
}

__m512 divide(__m512 a, __m512 b) {
  const __m512 estimate = _mm512_maskz_rcp14_ps(0xffff, b);
  const __m512 quotient = _mm512_mul_ps(a, estimate);
  const __m512 rest = _mm512_fnmadd_ps(quotient, b, a);
  // Rare, so a branch: b is NaN, 0, infinite or denormal, or the quotient is infinite.
  const int special = _mm512_fpclass_ps_mask(b, 0xbf) | _mm512_fpclass_ps_mask(quotient, 0x18);
  if (__builtin_expect(special != 0, 0)) return _mm512_div_ps(a, b);
  return _mm512_fmadd_ps(rest, estimate, quotient);
}

// adam_update on the 16 parameters, or those that `lanes` names.
void adam_16(float* p, const float* g, float* m, float* v, __mmask16 lanes, const AdamStep& s) {
  const __m512 gradient = _mm512_maskz_loadu_ps(lanes, g);
  const __m512 kept_m = _mm512_mul_ps(_mm512_set1_ps(s.beta1), _mm512_maskz_loadu_ps(lanes, m));
  const __m512 kept_v = _mm512_mul_ps(_mm512_set1_ps(s.beta2), _mm512_maskz_loadu_ps(lanes, v));
  const __m512 new_m = _mm512_fmadd_ps(_mm512_set1_ps(s.one_minus_beta1), gradient, kept_m);
  const __m512 new_v =
      _mm512_fmadd_ps(_mm512_set1_ps(s.one_minus_beta2), _mm512_mul_ps(gradient, gradient), kept_v);
  const __m512 root = square_root(_mm512_mul_ps(new_v, _mm512_set1_ps(s.correction)));
  const __m512 change =
      divide(_mm512_mul_ps(_mm512_set1_ps(s.rate), new_m), _mm512_add_ps(root, _mm512_set1_ps(s.eps)));
  const __m512 old_p = _mm512_maskz_loadu_ps(lanes, p);
  const __m512 decayed = _mm512_fnmadd_ps(_mm512_set1_ps(s.decay), old_p, old_p);
  _mm512_mask_storeu_ps(m, lanes, new_m);
  _mm512_mask_storeu_ps(v, lanes, new_v);
  _mm512_mask_storeu_ps(p, lanes, _mm512_sub_ps(decayed, change));
}

void adam_range(float* p, const float* g, float* m, float* v, int64_t begin, int64_t end, AdamStep s) {
  int64_t i = begin;
  for (; i + 16 <= end; i += 16) adam_16(p + i, g + i, m + i, v + i, 0xffff, s);
  if (i < end) adam_16(p + i, g + i, m + i, v + i, static_cast<__mmask16>((1u << (end - i)) - 1u), s);
}

#else

void adam_range(float* p, const float* g, float* m, float* v, int64_t begin, int64_t end, AdamStep s) {
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    const AdamState next = adam_update(p[i], g[i], m[i], v[i], s);
    p[i] = next.p;
    m[i] = next.m;
    v[i] = next.v;
  }
}

#endif

}  // namespace

void sgd(float* p, const float* g, float* velocity, int64_t n, const float* lr, double momentum,
         double weight_decay) {
  const float rate = lr[0], kept = static_cast<float>(momentum), decay = static_cast<float>(weight_decay);
  parallel_ranges(n, 1024, n * 0.2,
                  [=](int64_t begin, int64_t end) { sgd_range(p, g, velocity, begin, end, rate, kept, decay); });
}

void adam(float* p, const float* g, float* m, float* v, int64_t n, const float* lr, const uint64_t* step,
          AdamSettings settings) {
  const AdamStep s = adam_step(settings, lr[0], step[0]);
  parallel_ranges(n, 1024, n * 0.3, [=](int64_t begin, int64_t end) { adam_range(p, g, m, v, begin, end, s); });
}

}  // namespace minigen::MINIGEN_ISA
