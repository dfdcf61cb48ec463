#include "gan_terms.hpp"
#include "kernels.hpp"

namespace minigen::MINIGEN_ISA {

namespace {

// Writes the gradient of the mean of term(logit) over n logits and returns that mean.
template <class Term>
double mean_loss(const float* logits, int64_t n, float* dlogits, const Term& term) {
  const float scale = 1.0f / static_cast<float>(n);
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const LossTerm of = term(logits[i]);
    dlogits[i] = of.gradient * scale;
    sum += of.loss;
  }
  return sum / static_cast<double>(n);
}

}  // namespace

void gan_loss(const float* logits, int64_t B, int64_t n_real, Player player, GanLoss kind, float smoothing,
              float* dlogits, float* loss) {
  with_game(kind, smoothing, [&](const auto& real, const auto& fake, const auto& generator) {
    if (player == Player::generator) {
      loss[0] = static_cast<float>(mean_loss(logits, B, dlogits, generator));
      return;
    }
    const double of_real = mean_loss(logits, n_real, dlogits, real);
    loss[0] = static_cast<float>(of_real + mean_loss(logits + n_real, B - n_real, dlogits + n_real, fake));
  });
}

}  // namespace minigen::MINIGEN_ISA
