// Activations y = act(z), and their derivatives from the stored y: minigen/reference/activations.py derives both.
#pragma once

#include "elementary.hpp"

namespace minigen {

enum class Activation : int { linear, relu, leaky_relu, elu, tanh, sigmoid, softplus };

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
    case Activation::elu:
      return z > 0.0f ? z : math::expm1(z);
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

// `low` where y <= 0, `high` where y > 0, and a NaN where y is one.
MINIGEN_FN float by_sign(float y, float low, float high) { return y > 0.0f ? high : (y <= 0.0f ? low : y); }

// act'(z) from y = act(z). NaN stays NaN, except of linear, whose derivative does not depend on y.
MINIGEN_FN float activation_derivative(float y, Activation activation) {
  switch (activation) {
    case Activation::relu:
      return by_sign(y, 0.0f, 1.0f);
    case Activation::leaky_relu:
      return by_sign(y, leaky_slope, 1.0f);
    case Activation::elu:
      return y > 0.0f ? 1.0f : y + 1.0f;
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

// act''(z) / act'(z) from y = act(z): 0 for what is made of straight pieces. NaN as in activation_derivative.
MINIGEN_FN float activation_bend(float y, Activation activation) {
  switch (activation) {
    case Activation::relu:
    case Activation::leaky_relu:
      return by_sign(y, 0.0f, 0.0f);
    case Activation::elu:
      return by_sign(y, 1.0f, 0.0f);
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

// Calls body(KnownActivation<activation>{}) and returns what it returns, for example a pointer to a function made for
// that activation: the one switch, outside of the loop.
template <class Body>
static inline auto with_activation(Activation activation, const Body& body) {
  switch (activation) {
    case Activation::linear:
      return body(KnownActivation<Activation::linear>{});
    case Activation::relu:
      return body(KnownActivation<Activation::relu>{});
    case Activation::leaky_relu:
      return body(KnownActivation<Activation::leaky_relu>{});
    case Activation::elu:
      return body(KnownActivation<Activation::elu>{});
    case Activation::tanh:
      return body(KnownActivation<Activation::tanh>{});
    case Activation::sigmoid:
      return body(KnownActivation<Activation::sigmoid>{});
    case Activation::softplus:
      return body(KnownActivation<Activation::softplus>{});
  }
  __builtin_unreachable();
}

// Activations z sigmoid(p(z)), whose derivative does not follow from the output: minigen/reference/self_gated.py.
enum class SelfGated : int { gelu, silu };

constexpr float gelu_scale = 1.59576912f;  // 2 sqrt(2 / pi)
constexpr float gelu_cube = 0.044715f;

// p(z), p'(z) and p''(z); gelu's of a z that is at most 100 from 0, where its sigmoid is 0 or 1, so that no cube
// overflows.
struct GateArgument {
  float value, slope, bend;
};

MINIGEN_FN GateArgument gate_argument(float z, SelfGated kind) {
  if (kind == SelfGated::silu) return {z, 1.0f, 0.0f};
  const float low = z < -100.0f ? -100.0f : z;
  const float near = low > 100.0f ? 100.0f : low;
  const float square = gelu_cube * near * near;
  return {gelu_scale * (near + near * square), gelu_scale * (1.0f + 3.0f * square),
          (6.0f * gelu_scale * gelu_cube) * near};
}

MINIGEN_FN float self_gated_forward(float z, SelfGated kind) {
  return z * softplus_sigmoid(gate_argument(z, kind).value).sigmoid;
}

// act'(z) = s + z s (1 - s) p'(z)
MINIGEN_FN float self_gated_derivative(float z, SelfGated kind) {
  const GateArgument p = gate_argument(z, kind);
  const float gate = softplus_sigmoid(p.value).sigmoid;
  return gate + z * (gate * (1.0f - gate)) * p.slope;
}

// act''(z) = 2 s' p' + z (s' (1 - 2 s) p'^2 + s' p'') with s' = s (1 - s)
MINIGEN_FN float self_gated_second_derivative(float z, SelfGated kind) {
  const GateArgument p = gate_argument(z, kind);
  const float gate = softplus_sigmoid(p.value).sigmoid, steep = gate * (1.0f - gate);
  return 2.0f * steep * p.slope + z * (steep * (1.0f - 2.0f * gate) * p.slope * p.slope + steep * p.bend);
}

}  // namespace minigen
