#include "kernels.hpp"
#include "threads.hpp"

namespace minigen::MINIGEN_ISA {

namespace {

// Rough cost of one element in nanoseconds on one core, to decide about threads.
double cost(Activation activation) {
  return activation == Activation::linear || activation == Activation::relu || activation == Activation::leaky_relu
             ? 0.15
             : 0.5;
}

}  // namespace

void activation_forward(const float* z, float* y, int64_t n, Activation activation) {
  with_activation(activation, [&](auto known) {
    parallel_ranges(n, 64, n * cost(activation), [&](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) y[i] = minigen::activation_forward(z[i], known.value);
    });
  });
}

void activation_backward(const float* dy, const float* y, float* dz, int64_t n, Activation activation) {
  with_activation(activation, [&](auto known) {
    parallel_ranges(n, 64, n * 0.2, [&](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) dz[i] = dy[i] * activation_derivative(y[i], known.value);
    });
  });
}

namespace {

template <SelfGated kind>
void self_gated_forward(const float* z, float* y, int64_t n) {
  parallel_ranges(n, 64, n * 0.6, [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) y[i] = minigen::self_gated_forward(z[i], kind);
  });
}

template <SelfGated kind>
void self_gated_backward(const float* dy, const float* z, float* dz, int64_t n) {
  parallel_ranges(n, 64, n * 0.8, [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) dz[i] = dy[i] * self_gated_derivative(z[i], kind);
  });
}

template <SelfGated kind>
void self_gated_curvature(const float* dy, const float* z_tangent, const float* z, float* dz, int64_t n,
                          bool accumulate) {
  parallel_ranges(n, 64, n * 1.0, [=](int64_t begin, int64_t end) {
    if (!accumulate)
      for (int64_t i = begin; i < end; ++i) dz[i] = 0.0f;
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) dz[i] += dy[i] * z_tangent[i] * self_gated_second_derivative(z[i], kind);
  });
}

}  // namespace

void self_gated_forward(const float* z, float* y, int64_t n, SelfGated activation) {
  if (activation == SelfGated::gelu) return self_gated_forward<SelfGated::gelu>(z, y, n);
  self_gated_forward<SelfGated::silu>(z, y, n);
}

void self_gated_backward(const float* dy, const float* z, float* dz, int64_t n, SelfGated activation) {
  if (activation == SelfGated::gelu) return self_gated_backward<SelfGated::gelu>(dy, z, dz, n);
  self_gated_backward<SelfGated::silu>(dy, z, dz, n);
}

void self_gated_curvature(const float* dy, const float* z_tangent, const float* z, float* dz, int64_t n,
                          SelfGated activation, bool accumulate) {
  if (activation == SelfGated::gelu) return self_gated_curvature<SelfGated::gelu>(dy, z_tangent, z, dz, n, accumulate);
  self_gated_curvature<SelfGated::silu>(dy, z_tangent, z, dz, n, accumulate);
}

}  // namespace minigen::MINIGEN_ISA
