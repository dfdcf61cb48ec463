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

void gan_loss_discriminator(const float* logits, int64_t B, int64_t n_real, float* dlogits, float* loss) {
  const double real = mean_loss(logits, n_real, dlogits, [](float s) { return call_real(s); });
  const double fake = mean_loss(logits + n_real, B - n_real, dlogits + n_real, [](float s) { return call_fake(s); });
  loss[0] = static_cast<float>(real + fake);
}

void gan_loss_generator(const float* logits, int64_t B, GanLoss kind, float* dlogits, float* loss) {
  if (kind == GanLoss::non_saturating) {
    loss[0] = static_cast<float>(mean_loss(logits, B, dlogits, [](float s) { return call_real(s); }));
    return;
  }
  // Minimax: the generator minimises what the discriminator wants to maximise.
  loss[0] = static_cast<float>(mean_loss(logits, B, dlogits, [](float s) {
    const LossTerm of = call_fake(s);
    return LossTerm{-of.loss, -of.gradient};
  }));
}

}  // namespace minigen::MINIGEN_ISA
