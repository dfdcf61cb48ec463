#include "kernels.hpp"
#include "row_losses.hpp"

namespace minigen::MINIGEN_ISA {

namespace {

// The sum of a row's terms. Loops take their scalars by value: read through a lambda's capture, the compiler would have
// to reload them after every store, and would not vectorise.
template <class Term>
float row_loss(const float* output, const float* x, float* doutput, int64_t D, float scale, const Term& term) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t d = 0; d < D; ++d) {
    const LossTerm of = term(output[d], x[d]);
    doutput[d] = of.gradient * scale;
    sum += of.loss;
  }
  return sum;
}

}  // namespace

void vae_loss(const float* output, const float* x, float* doutput, float* rows, float* loss, int64_t B, int64_t D,
              Likelihood likelihood, double variance) {
  const auto of_terms = [&](bool has_variance, double work, const auto& term) {
    const double divisor = has_variance ? 2.0 * variance : 1.0;
    const double constant =
        has_variance ? static_cast<double>(D) * (log(2.0 * 3.14159265358979323846 * variance) / 2.0) : 0.0;
    const float scale = static_cast<float>(1.0 / ((has_variance ? variance : 1.0) * static_cast<double>(B)));
    for_rows(B, static_cast<double>(B * D) * work, [=](int64_t r) {
      const double sum = row_loss(output + r * D, x + r * D, doutput + r * D, D, scale, term);
      rows[r] = static_cast<float>(sum / divisor + constant);
    });
    loss[0] = mean(rows, B);
  };
  switch (likelihood) {
#define LIKELIHOOD(name, has_variance)                       \
  case Likelihood::name:                                     \
    return of_terms(has_variance, has_variance ? 0.15 : 0.6, \
                    [](float output, float x) { return minigen::name(output, x); });
    MINIGEN_LIKELIHOODS(LIKELIHOOD)
#undef LIKELIHOOD
  }
}

}  // namespace minigen::MINIGEN_ISA
