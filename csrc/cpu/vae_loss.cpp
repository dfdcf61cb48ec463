#include "kernels.hpp"
#include "rows.hpp"

namespace minigen::MINIGEN_ISA {

void vae_loss_bernoulli(const float* logits, const float* x, float* dlogits, float* rows, float* loss, int64_t B,
                        int64_t D) {
  const float scale = 1.0f / static_cast<float>(B);
  for_rows(B, B * D * 0.7, [&](int64_t r) {
    const float *logit = logits + r * D, *target = x + r * D;
    float* gradient = dlogits + r * D;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < D; ++d) {
      const LossTerm of = bernoulli(logit[d], target[d]);
      gradient[d] = of.gradient * scale;
      sum += of.loss;
    }
    rows[r] = sum;
  });
  loss[0] = mean(rows, B);
}

void vae_loss_gaussian(const float* means, const float* x, float* dmean, float* rows, float* loss, int64_t B,
                       int64_t D, double variance) {
  const float scale = static_cast<float>(1.0 / (variance * static_cast<double>(B)));
  const double constant = static_cast<double>(D) * (log(2.0 * 3.14159265358979323846 * variance) / 2.0);
  for_rows(B, B * D * 0.2, [&](int64_t r) {
    const float *mean_row = means + r * D, *target = x + r * D;
    float* gradient = dmean + r * D;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < D; ++d) {
      const float difference = mean_row[d] - target[d];
      gradient[d] = difference * scale;
      sum += difference * difference;
    }
    rows[r] = static_cast<float>(static_cast<double>(sum) / (2.0 * variance) + constant);
  });
  loss[0] = mean(rows, B);
}

}  // namespace minigen::MINIGEN_ISA
