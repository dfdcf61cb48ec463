#include "kernels.hpp"
#include "rows.hpp"

namespace minigen::MINIGEN_ISA {

namespace {

// Loops take their scalars by value: read through a lambda's capture, the compiler would have to reload them after
// every store, and would not vectorise.

float bernoulli_row(const float* logit, const float* x, float* dlogit, int64_t D, float scale) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t d = 0; d < D; ++d) {
    const LossTerm of = bernoulli(logit[d], x[d]);
    dlogit[d] = of.gradient * scale;
    sum += of.loss;
  }
  return sum;
}

// The sum of squares; `scale` is that of the gradient.
float gaussian_row(const float* mean, const float* x, float* dmean, int64_t D, float scale) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t d = 0; d < D; ++d) {
    const float difference = mean[d] - x[d];
    dmean[d] = difference * scale;
    sum += difference * difference;
  }
  return sum;
}

}  // namespace

void vae_loss_bernoulli(const float* logits, const float* x, float* dlogits, float* rows, float* loss, int64_t B,
                        int64_t D) {
  const float scale = 1.0f / static_cast<float>(B);
  for_rows(B, B * D * 0.6,
           [=](int64_t r) { rows[r] = bernoulli_row(logits + r * D, x + r * D, dlogits + r * D, D, scale); });
  loss[0] = mean(rows, B);
}

void vae_loss_gaussian(const float* means, const float* x, float* dmean, float* rows, float* loss, int64_t B, int64_t D,
                       double variance) {
  const float scale = static_cast<float>(1.0 / (variance * static_cast<double>(B)));
  const double constant = static_cast<double>(D) * (log(2.0 * 3.14159265358979323846 * variance) / 2.0);
  for_rows(B, B * D * 0.15, [=](int64_t r) {
    const double squares = gaussian_row(means + r * D, x + r * D, dmean + r * D, D, scale);
    rows[r] = static_cast<float>(squares / (2.0 * variance) + constant);
  });
  loss[0] = mean(rows, B);
}

}  // namespace minigen::MINIGEN_ISA
