// Activations y = act(z), and their derivatives from the stored y: minigen/reference/activations.py derives both.
#pragma once

#include "elementary.hpp"

namespace minigen {

enum class Activation : int { linear, relu, leaky_relu, tanh, sigmoid, softplus };

constexpr float leaky_slope = 0.2f;

// softplus(z) and sigmoid(z) share e^-|z| (below 2^-126 it is taken as 0).
struct SoftplusSigmoid {
  float softplus, sigmoid;
};

MINIGEN_FN SoftplusSigmoid softplus_sigmoid(float z) {
  const float e = math::exp_negative(-math::absolute(z));
  const float positive = z < 0.0f ? 0.0f : z;  // NaN stays NaN
  return {positive + math::log1p_unit(e), (z < 0.0f ? e : 1.0f) / (1.0f + e)};
}

// With `activation` known at compile time the switch folds away and loops over it vectorise: see with_activation.
MINIGEN_FN float activation_forward(float z, Activation activation) {
  switch (activation) {
    case Activation::relu:
      return z < 0.0f ? 0.0f : z;
    case Activation::leaky_relu:
      return z > 0.0f ? z : leaky_slope * z;
    case Activation::tanh:
      return math::tanh(z);
    case Activation::sigmoid:
      return softplus_sigmoid(z).sigmoid;
    case Activation::softplus:
      return softplus_sigmoid(z).softplus;
    default:
      return z;
  }
}

// act'(z) from y = act(z).
MINIGEN_FN float activation_derivative(float y, Activation activation) {
  switch (activation) {
    case Activation::relu:
      return y > 0.0f ? 1.0f : 0.0f;
    case Activation::leaky_relu:
      return y > 0.0f ? 1.0f : leaky_slope;
    case Activation::tanh:
      return (1.0f - y) * (1.0f + y);  // 1 - y is exact where it is small
    case Activation::sigmoid:
      return y * (1.0f - y);
    case Activation::softplus:
      return -math::expm1(-y);
    default:
      return 1.0f;
  }
}

// act''(z) / act'(z) from y = act(z): 0 for what is made of straight pieces.
MINIGEN_FN float activation_bend(float y, Activation activation) {
  switch (activation) {
    case Activation::tanh:
      return -2.0f * y;
    case Activation::sigmoid:
      return 1.0f - 2.0f * y;
    case Activation::softplus:
      return math::exp_negative(-y);
    default:
      return 0.0f;
  }
}

// A value known at compile time, as the argument of a generic lambda.
template <Activation A>
struct KnownActivation {
  static constexpr Activation value = A;
};

// Calls body(KnownActivation<activation>{}): the one switch outside of the loop.
template <class Body>
static inline void with_activation(Activation activation, const Body& body) {
  switch (activation) {
    case Activation::linear:
      return body(KnownActivation<Activation::linear>{});
    case Activation::relu:
      return body(KnownActivation<Activation::relu>{});
    case Activation::leaky_relu:
      return body(KnownActivation<Activation::leaky_relu>{});
    case Activation::tanh:
      return body(KnownActivation<Activation::tanh>{});
    case Activation::sigmoid:
      return body(KnownActivation<Activation::sigmoid>{});
    case Activation::softplus:
      return body(KnownActivation<Activation::softplus>{});
  }
}

}  // namespace minigen
