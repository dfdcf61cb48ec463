#include "kernels.hpp"
#include "row_losses.hpp"

namespace minigen::MINIGEN_ISA {

namespace {

// Writes z and returns log q(z | x) - log p(z). `h`: logvar before its bound.
float sample_row(const float* mu, const float* h, const float* eps, float* z, int64_t L) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < L; ++j) {
    const float logvar = bounded_logvar(h[j]);
    const float drawn = mu[j] + math::exp(0.5f * logvar) * eps[j];
    z[j] = drawn;
    sum += (drawn * drawn - eps[j] * eps[j]) - logvar;
  }
  return 0.5f * sum;
}

// Adds the gradient by the heads of one draw. `weight`: the draw's, over the number of all draws.
void add_draw(const float* dz, const float* z, const float* h, const float* eps, float* dmu, float* dh, int64_t L,
              float weight) {
#pragma omp simd
  for (int64_t j = 0; j < L; ++j) {
    const float logvar = bounded_logvar(h[j]);
    const float g = dz[j] + weight * z[j];
    dmu[j] += g;
    dh[j] += 0.5f * (g * eps[j] * math::exp(0.5f * logvar) - weight);
  }
}

}  // namespace

void repeat_rows(const float* x, float* y, int64_t B, int64_t R, int64_t D) {
  for_rows(R, static_cast<double>(R * D) * 0.1, [=](int64_t r) {
    const float* from = x + r % B * D;
    float* to = y + r * D;
#pragma omp simd
    for (int64_t d = 0; d < D; ++d) to[d] = from[d];
  });
}

void importance_sample(const float* heads, const float* eps, float* z, float* rows, float* loss, int64_t B, int64_t R,
                       int64_t L) {
  for_rows(R, static_cast<double>(R * L), [=](int64_t r) {
    const float* mu = heads + r % B * 2 * L;
    rows[r] = sample_row(mu, mu + L, eps + r * L, z + r * L, L);
  });
  loss[0] = mean(rows, R);
}

void importance_weights(const float* nats, const float* ratios, float* weights, float* loss, int64_t R, int64_t draws) {
  const int64_t B = R / draws;
  double total = 0;
  for (int64_t b = 0; b < B; ++b) {
    float least = nats[b] + ratios[b];  // the likeliest draw's -log w
    for (int64_t r = b; r < R; r += B) least = nats[r] + ratios[r] < least ? nats[r] + ratios[r] : least;
    float sum = 0;
    for (int64_t r = b; r < R; r += B) {
      weights[r] = math::exp_negative(least - (nats[r] + ratios[r]));
      sum += weights[r];
    }
    const float scale = static_cast<float>(draws) / sum;
    for (int64_t r = b; r < R; r += B) weights[r] *= scale;
    total += static_cast<double>(least) + static_cast<double>(math::log(scale));
  }
  loss[0] = static_cast<float>(total / static_cast<double>(B));
}

void scale_rows(float* g, const float* weights, int64_t R, int64_t D) {
  for_rows(R, static_cast<double>(R * D) * 0.1, [=](int64_t r) {
    float* row = g + r * D;
    const float weight = weights[r];
#pragma omp simd
    for (int64_t d = 0; d < D; ++d) row[d] *= weight;
  });
}

void importance_backward(const float* dz, const float* z, const float* heads, const float* eps, const float* weights,
                         float* dheads, int64_t B, int64_t R, int64_t L) {
  const float scale = 1.0f / static_cast<float>(R);
  for_rows(B, static_cast<double>(R * L), [=](int64_t b) {
    const float* h = heads + b * 2 * L + L;
    float* dmu = dheads + b * 2 * L;
    float* dh = dmu + L;
    for (int64_t j = 0; j < 2 * L; ++j) dmu[j] = 0;
    for (int64_t r = b; r < R; r += B) add_draw(dz + r * L, z + r * L, h, eps + r * L, dmu, dh, L, weights[r] * scale);
    for (int64_t j = 0; j < L; ++j) dh[j] = h[j] > logvar_limit ? 0.0f : dh[j];
  });
}

}  // namespace minigen::MINIGEN_ISA
