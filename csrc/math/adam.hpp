// Adam and AdamW on one parameter: minigen/reference/optimizer.py.
#pragma once

#include "portable.hpp"

namespace minigen {

struct AdamSettings {
  double beta1, beta2, eps, weight_decay;  // weight_decay: AdamW's, 0 for Adam
};

// The factors of one update, the same for every parameter.
struct AdamStep {
  float beta1, one_minus_beta1, beta2, one_minus_beta2, eps;
  float rate;        // lr / (1 - beta1^t)
  float correction;  // 1 / (1 - beta2^t)
  float decay;       // lr weight_decay
};

MINIGEN_FN AdamStep adam_step(AdamSettings s, float lr, uint64_t steps_done) {
  const double t = static_cast<double>(steps_done) + 1.0;
  return {static_cast<float>(s.beta1),
          static_cast<float>(1.0 - s.beta1),
          static_cast<float>(s.beta2),
          static_cast<float>(1.0 - s.beta2),
          static_cast<float>(s.eps),
          static_cast<float>(lr / (1.0 - pow(s.beta1, t))),
          static_cast<float>(1.0 / (1.0 - pow(s.beta2, t))),
          static_cast<float>(lr * s.weight_decay)};
}

struct AdamState {
  float p, m, v;
};

MINIGEN_FN AdamState adam_update(float p, float g, float m, float v, const AdamStep& s) {
  m = s.beta1 * m + s.one_minus_beta1 * g;
  v = s.beta2 * v + s.one_minus_beta2 * (g * g);
  p = p - s.decay * p;
  p = p - s.rate * m / (math::square_root(v * s.correction) + s.eps);
  return {p, m, v};
}

}  // namespace minigen
