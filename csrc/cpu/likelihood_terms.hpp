// The terms of a VAE's likelihood: Gaussian columns with learned variances, and labels in blocks of columns.
#pragma once

#include "kernels.hpp"

namespace minigen::MINIGEN_ISA {

constexpr float log_2pi = 1.83787707f;
constexpr int64_t column_block = 64;  // columns whose sums are kept at a time

// Twice a row's loss, and the gradient by the means. `shared`: one logvar of all columns.
template <bool shared>
static inline float gaussian_terms(const float* mean, const float* x, const float* logvar, float* dmean, int64_t D,
                                   float scale) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t d = 0; d < D; ++d) {
    const float of_column = bounded_variance(logvar[shared ? 0 : d]);
    const float precision = math::exp(-of_column);
    const float error = mean[d] - x[d];
    dmean[d] = error * precision * scale;
    sum += error * error * precision + (of_column + log_2pi);
  }
  return sum;
}

// Where logvar has left its bounds, a gradient that would carry it further out is 0.
static inline float kept_inside(float gradient, float logvar) {
  const bool outwards = (logvar < variance_low && gradient > 0.0f) || (logvar > variance_high && gradient < 0.0f);
  return outwards ? 0.0f : gradient;
}

// gradients[width]: of the logvar of each of the columns from `first` on, were it inside of its bounds.
static inline void column_gradients(const float* doutput, const float* output, const float* x, float* gradients,
                                    int64_t first, int64_t width, int64_t B, int64_t D) {
  for (int64_t d = 0; d < width; ++d) gradients[d] = 0;
  for (int64_t r = 0; r < B; ++r) {
    const int64_t at = r * D + first;
#pragma omp simd
    for (int64_t d = 0; d < width; ++d) gradients[d] += doutput[at + d] * (output[at + d] - x[at + d]);
  }
  for (int64_t d = 0; d < width; ++d) gradients[d] = 0.5f * (1.0f - gradients[d]);
}

// The cross entropy of one block of `width` columns, and its gradient. The largest logit is subtracted, so no e^
// exceeds 1 and their sum lies between 1 and the width.
static inline float cross_entropy(const float* logits, const float* x, float* dlogits, int64_t width, float scale) {
  float largest = logits[0];
  for (int64_t d = 1; d < width; ++d) largest = logits[d] > largest ? logits[d] : largest;
  float sum = 0, total = 0, chosen = 0;
#pragma omp simd reduction(+ : sum, total, chosen)
  for (int64_t d = 0; d < width; ++d) {
    const float below = logits[d] - largest;
    const float e = math::exp_negative(below);
    dlogits[d] = e;
    sum += e;
    total += x[d];
    chosen += x[d] * below;
  }
  const float share = total / sum;
#pragma omp simd
  for (int64_t d = 0; d < width; ++d) dlogits[d] = (dlogits[d] * share - x[d]) * scale;
  return total * math::log(sum) - chosen;
}

}  // namespace minigen::MINIGEN_ISA
