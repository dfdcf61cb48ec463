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

void backward_row(const float* dz, const float* mu, const float* h, const float* eps, const float* weights, float* dmu,
                  float* dh, int64_t L, float rows) {
#pragma omp simd
  for (int64_t j = 0; j < L; ++j) {
    const float weight = weights[j] / rows;
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

void latent_backward(const float* dz, const float* heads, const float* eps, const float* weights, float* dheads,
                     int64_t B, int64_t L) {
  const float count = static_cast<float>(B);
  for_rows(B, B * L * 1.0, [=](int64_t r) {
    const float* mu = heads + r * 2 * L;
    float* dmu = dheads + r * 2 * L;
    backward_row(dz + r * L, mu, mu + L, eps + r * L, weights, dmu, dmu + L, L, count);
  });
}

// Few numbers: one thread's work.
void kl_weights(const float* heads, const float* beta, float* weights, float* penalty, int64_t B, int64_t L,
                double free_bits) {
  for (int64_t j = 0; j < L; ++j) weights[j] = 0;
  for (int64_t r = 0; r < B; ++r) {
    const float* mu = heads + r * 2 * L;
    const float* h = mu + L;
#pragma omp simd
    for (int64_t j = 0; j < L; ++j) weights[j] += twice_kl(mu[j], bounded_logvar(h[j]));
  }
  const float scale = 0.5f / static_cast<float>(B), least = static_cast<float>(free_bits);
  double sum = 0;
  for (int64_t j = 0; j < L; ++j) {
    const float kl = weights[j] * scale;
    sum += kl <= least ? least : kl;  // NaN stays NaN
    weights[j] = kl <= least ? 0.0f : beta[0];
  }
  penalty[0] = static_cast<float>(static_cast<double>(beta[0]) * sum);
}

void ramp(const uint64_t* step, float* out, double high, int64_t steps) {
  const double part = static_cast<double>(step[0]) / static_cast<double>(steps);
  out[0] = static_cast<float>(part < 1.0 ? high * part : high);
}

}  // namespace minigen::MINIGEN_ISA
