// Loss terms of one element with their gradients: minigen/reference/{gan_loss,vae_loss,latent}.py derive them.
#pragma once

#include "activations.hpp"

namespace minigen {

enum class GanLoss : int { non_saturating, minimax };

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

// Bernoulli: softplus(l) - x l, as log(1 + e^-|l|) + (max(l, 0) - x l) so that large terms cancel exactly.
MINIGEN_FN LossTerm bernoulli(float logit, float x) {
  const float e = math::exp_negative(-math::absolute(logit));
  const float linear = (logit < 0.0f ? 0.0f : logit) - x * logit;
  return {linear + math::log1p_unit(e), (logit < 0.0f ? e : 1.0f) / (1.0f + e) - x};
}

// The largest log variance of a VAE's posterior: e^89 does not fit a float. NaN stays NaN.
constexpr float logvar_limit = 40.0f;
MINIGEN_FN float bounded_logvar(float h) { return h > logvar_limit ? logvar_limit : h; }

// KL of N(mu, e^logvar) to N(0, 1): half of this.
MINIGEN_FN float twice_kl(float mu, float logvar) { return mu * mu + (math::expm1(logvar) - logvar); }

}  // namespace minigen
