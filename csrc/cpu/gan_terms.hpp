// The terms of a GAN's loss as functions that a loop can take in.
#pragma once

#include "kernels.hpp"

namespace minigen::MINIGEN_ISA {

// Calls body(real, fake, generator) with the terms of the loss; the real one with so much of the fake one in it.
template <class Body>
static inline void with_game(GanLoss kind, float smoothing, const Body& body) {
  const auto with_terms = [&](const auto& real, const auto& fake, const auto& generator) {
    if (smoothing == 0.0f) return body(real, fake, generator);
    const auto smoothed = [&real, &fake, smoothing](float logit) {
      const LossTerm a = real(logit), b = fake(logit);
      return LossTerm{(1.0f - smoothing) * a.loss + smoothing * b.loss,
                      (1.0f - smoothing) * a.gradient + smoothing * b.gradient};
    };
    body(smoothed, fake, generator);
  };
  switch (kind) {
#define GAME(name, real, fake, generator)                                                                 \
  case GanLoss::name:                                                                                     \
    return with_terms([](float s) { return minigen::real(s); }, [](float s) { return minigen::fake(s); }, \
                      [](float s) { return minigen::generator(s); });
    MINIGEN_GAN_LOSSES(GAME)
#undef GAME
  }
}

}  // namespace minigen::MINIGEN_ISA
