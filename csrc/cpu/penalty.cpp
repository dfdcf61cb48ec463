#include "kernels.hpp"
#include "row_losses.hpp"

namespace minigen::MINIGEN_ISA {

namespace {

float sum_of_squares(const float* x, int64_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
  return sum;
}

void scale_row(const float* from, float* to, int64_t n, float factor) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) to[i] = from[i] * factor;
}

void mix_rows(const float* a, const float* b, float* to, int64_t n, float share) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) to[i] = share * a[i] + (1.0f - share) * b[i];
}

}  // namespace

void gradient_penalty(const float* g, float* v, float* rows, float* loss, int64_t B, int64_t D, Penalty kind,
                      double weight) {
  const float factor = static_cast<float>(weight), share = 1.0f / static_cast<float>(B);
  for_rows(B, static_cast<double>(B * D) * 0.3, [=](int64_t r) {
    const LossTerm of = minigen::gradient_penalty(sum_of_squares(g + r * D, D), factor, kind);
    scale_row(g + r * D, v + r * D, D, of.gradient * share);
    rows[r] = of.loss;
  });
  loss[0] = mean(rows, B);
}

void interpolate(const float* real, const float* fake, const float* u, float* out, int64_t B, int64_t D) {
  for_rows(B, static_cast<double>(B * D) * 0.2,
           [=](int64_t r) { mix_rows(real + r * D, fake + r * D, out + r * D, D, u[r]); });
}

}  // namespace minigen::MINIGEN_ISA
