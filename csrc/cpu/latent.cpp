#include "kernels.hpp"
#include "row_losses.hpp"

namespace minigen::MINIGEN_ISA {

namespace {

// Writes z and returns the row's KL. `h`: logvar before its bound.
float forward_row(const float* mu, const float* h, const float* eps, float* z, int64_t L) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < L; ++j) {
    const float logvar = bounded_logvar(h[j]);
    z[j] = mu[j] + math::exp(0.5f * logvar) * eps[j];
    sum += twice_kl(mu[j], logvar);
  }
  return 0.5f * sum;
}

// `weight`: beta / B.
void backward_row(const float* dz, const float* mu, const float* h, const float* eps, float* dmu, float* dh, int64_t L,
                  float weight) {
#pragma omp simd
  for (int64_t j = 0; j < L; ++j) {
    const float logvar = bounded_logvar(h[j]);
    dmu[j] = dz[j] + weight * mu[j];
    dh[j] = 0.5f * (dz[j] * eps[j] * math::exp(0.5f * logvar) + weight * math::expm1(logvar));
  }
  // Apart: within the loop above, the compiler would round the sum's terms in another order.
#pragma omp simd
  for (int64_t j = 0; j < L; ++j) dh[j] = h[j] > logvar_limit ? 0.0f : dh[j];
}

}  // namespace

void latent_forward(const float* heads, const float* eps, float* z, float* rows, float* loss, int64_t B, int64_t L) {
  for_rows(B, B * L * 1.0, [=](int64_t r) {
    const float* mu = heads + r * 2 * L;
    rows[r] = forward_row(mu, mu + L, eps + r * L, z + r * L, L);
  });
  loss[0] = mean(rows, B);
}

void latent_backward(const float* dz, const float* heads, const float* eps, float* dheads, int64_t B, int64_t L,
                     double beta) {
  const float weight = static_cast<float>(beta / static_cast<double>(B));
  for_rows(B, B * L * 1.0, [=](int64_t r) {
    const float* mu = heads + r * 2 * L;
    float* dmu = dheads + r * 2 * L;
    backward_row(dz + r * L, mu, mu + L, eps + r * L, dmu, dmu + L, L, weight);
  });
}

}  // namespace minigen::MINIGEN_ISA
