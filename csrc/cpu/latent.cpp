#include "kernels.hpp"
#include "rows.hpp"

namespace minigen::MINIGEN_ISA {

void latent_forward(const float* heads, const float* eps, float* z, float* rows, float* loss, int64_t B, int64_t L) {
  for_rows(B, B * L * 1.0, [&](int64_t r) {
    const float *mu = heads + r * 2 * L, *logvar = mu + L, *noise = eps + r * L;
    float* sample = z + r * L;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < L; ++j) {
      sample[j] = mu[j] + math::exp(0.5f * logvar[j]) * noise[j];
      sum += twice_kl(mu[j], logvar[j]);
    }
    rows[r] = 0.5f * sum;
  });
  loss[0] = mean(rows, B);
}

void latent_backward(const float* dz, const float* heads, const float* eps, float* dheads, int64_t B, int64_t L,
                     double beta) {
  const float weight = static_cast<float>(beta / static_cast<double>(B));
  for_rows(B, B * L * 1.0, [&](int64_t r) {
    const float *mu = heads + r * 2 * L, *logvar = mu + L, *noise = eps + r * L, *gradient = dz + r * L;
    float *dmu = dheads + r * 2 * L, *dlogvar = dmu + L;
#pragma omp simd
    for (int64_t j = 0; j < L; ++j) {
      dmu[j] = gradient[j] + weight * mu[j];
      dlogvar[j] = 0.5f * (gradient[j] * noise[j] * math::exp(0.5f * logvar[j]) + weight * math::expm1(logvar[j]));
    }
  });
}

}  // namespace minigen::MINIGEN_ISA
