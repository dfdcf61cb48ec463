// Loss terms of one element with their gradients: minigen/reference/{gan_loss,vae_loss,latent}.py derive them.
#pragma once

#include "activations.hpp"

namespace minigen {

// A term of a loss and its derivative by the network's output; the caller divides by the number of rows.
struct LossTerm {
  float loss, gradient;
};

// -log D for a real sample, and what the generator minimises in the non-saturating game.
MINIGEN_FN LossTerm call_real(float logit) {
  const SoftplusSigmoid of = softplus_sigmoid(-logit);
  return {of.softplus, -of.sigmoid};
}

// -log (1 - D) for a generated sample.
MINIGEN_FN LossTerm call_fake(float logit) {
  const SoftplusSigmoid of = softplus_sigmoid(logit);
  return {of.softplus, of.sigmoid};
}

// What the generator minimises in the minimax game: log (1 - D).
MINIGEN_FN LossTerm minus_call_fake(float logit) {
  const LossTerm of = call_fake(logit);
  return {-of.loss, -of.gradient};
}

MINIGEN_FN LossTerm square_to_one(float logit) { return {0.5f * (logit - 1.0f) * (logit - 1.0f), logit - 1.0f}; }
MINIGEN_FN LossTerm square_to_zero(float logit) { return {0.5f * logit * logit, logit}; }

// max(0, margin) and 1 where the margin is positive; NaN stays NaN.
MINIGEN_FN LossTerm hinge(float margin) {
  if (margin <= 0.0f) return {0.0f, 0.0f};
  return {margin, margin > 0.0f ? 1.0f : margin};
}
MINIGEN_FN LossTerm below_one(float logit) {
  const LossTerm of = hinge(1.0f - logit);
  return {of.loss, -of.gradient};
}
MINIGEN_FN LossTerm above_minus_one(float logit) { return hinge(1.0f + logit); }
MINIGEN_FN LossTerm minus(float logit) { return {-logit, -1.0f}; }

// A GAN's losses: the terms of a real logit, of a generated one, and the generator's.
#define MINIGEN_GAN_LOSSES(GAME)                                    \
  GAME(non_saturating, call_real, call_fake, call_real)             \
  GAME(minimax, call_real, call_fake, minus_call_fake)              \
  GAME(least_squares, square_to_one, square_to_zero, square_to_one) \
  GAME(hinge, below_one, above_minus_one, minus)

#define GAME(name, real, fake, generator) name,
enum class GanLoss : int { MINIGEN_GAN_LOSSES(GAME) };
#undef GAME

// A VAE's likelihoods: the term of a column, and whether it is to be divided by twice the variance.
#define MINIGEN_LIKELIHOODS(LIKELIHOOD) \
  LIKELIHOOD(bernoulli, false)          \
  LIKELIHOOD(gaussian, true)            \
  LIKELIHOOD(continuous_bernoulli, false)

#define LIKELIHOOD(name, has_variance) name,
enum class Likelihood : int { MINIGEN_LIKELIHOODS(LIKELIHOOD) };
#undef LIKELIHOOD

// Bernoulli: softplus(l) - x l, as log(1 + e^-|l|) + (max(l, 0) - x l) so that large terms cancel exactly; sigmoid(l) -
// x as (1 - x) - sigmoid(-l) where l is positive, so that the two do not cancel where the prediction is right.
MINIGEN_FN LossTerm bernoulli(float logit, float x) {
  const float e = math::exp_negative(-math::absolute(logit));
  const float linear = (logit < 0.0f ? 0.0f : logit) - x * logit;
  const float wrong = e / (1.0f + e);
  return {linear + math::log1p_unit(e), logit < 0.0f ? wrong - x : (1.0f - x) - wrong};
}

// Continuous Bernoulli: log((e^l - 1) / l) - x l, with a = |l| as (max(l, 0) - x l) + log((1 - e^-a) / a), and below
// a = 1 by its power series. `smaller` is the distribution's mean at -a.
MINIGEN_FN LossTerm continuous_bernoulli(float logit, float x) {
  const float a = math::absolute(logit);
  const bool near = a < 1.0f;
  const float s = near ? a * a : 0.0f;
  const float far = near ? 1.0f : a;
  const float over = 1.0f / far;
  const float rest = -math::expm1(-far);  // 1 - e^-a
  const float log_series =
      (0.5f - x) * logit + s * (4.16666667e-2f + s * (-3.47222222e-4f + s * (5.51146384e-6f - s * 1.03339372e-7f)));
  const float log_plain = ((logit < 0.0f ? 0.0f : logit) - x * logit) + math::log(rest * over);
  const float series = 0.5f - a * (8.33333333e-2f + s * (-1.38888889e-3f + s * (3.30687831e-5f - s * 8.26719577e-7f)));
  const float plain = over - (1.0f - rest) / rest;
  const float smaller = near ? series : plain;
  return {near ? log_series : log_plain, logit < 0.0f ? smaller - x : (1.0f - x) - smaller};
}

// Gaussian: the square; its gradient is half of the square's, which the division by twice the variance makes up for.
MINIGEN_FN LossTerm gaussian(float mean, float x) { return {(mean - x) * (mean - x), mean - x}; }

// The bounds of a learned log variance of the data. NaN stays NaN.
constexpr float variance_low = -14.0f, variance_high = 80.0f;
MINIGEN_FN float bounded_variance(float logvar) {
  const float above = logvar < variance_low ? variance_low : logvar;
  return above > variance_high ? variance_high : above;
}

// The largest log variance of a VAE's posterior: e^89 does not fit a float. NaN stays NaN.
constexpr float logvar_limit = 40.0f;
MINIGEN_FN float bounded_logvar(float h) { return h > logvar_limit ? logvar_limit : h; }

// KL of N(mu, e^logvar) to N(0, 1): half of this.
MINIGEN_FN float twice_kl(float mu, float logvar) { return mu * mu + (math::expm1(logvar) - logvar); }

}  // namespace minigen
