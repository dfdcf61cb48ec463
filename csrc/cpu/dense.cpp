// The dense layer y = act(x W + b): forward, gradient of its input, gradient of its weights and bias.
#include "gemm.hpp"
#include "kernels.hpp"

namespace minigen::MINIGEN_ISA {

template <Activation activation>
static void activate_row(float* y, int64_t cols) {
#pragma omp simd
  for (int64_t j = 0; j < cols; ++j) y[j] = minigen::activation_forward(y[j], activation);
}

template <Activation activation>
static void activate(float* y, const float*, int64_t stride, int64_t rows, int64_t cols) {
  if (cols == 2 * lanes)  // a loop of known length is worth having twice
    for (int64_t i = 0; i < rows; ++i) activate_row<activation>(y + i * stride, 2 * lanes);
  else
    for (int64_t i = 0; i < rows; ++i) activate_row<activation>(y + i * stride, cols);
}

template <Activation activation>
static void times_derivative_row(float* dx, const float* x, int64_t cols) {
#pragma omp simd
  for (int64_t j = 0; j < cols; ++j) dx[j] *= minigen::activation_derivative(x[j], activation);
}

template <Activation activation>
static void times_derivative(float* dx, const float* x, int64_t stride, int64_t rows, int64_t cols) {
  if (cols == 2 * lanes)
    for (int64_t i = 0; i < rows; ++i) times_derivative_row<activation>(dx + i * stride, x + i * stride, 2 * lanes);
  else
    for (int64_t i = 0; i < rows; ++i) times_derivative_row<activation>(dx + i * stride, x + i * stride, cols);
}

void dense_forward(const float* x, const float* W, const float* b, float* y, int64_t B, int64_t I, int64_t O,
                   Activation activation) {
  Finish finish = nullptr;
  with_activation(activation, [&](auto known) {
    if (known.value != Activation::linear) finish = activate<known.value>;
  });
  multiply({.M = B, .N = O, .K = I, .A = x, .A_stride = I, .A_layout = Layout::plain, .B = W, .B_stride = O,
            .B_layout = Layout::plain, .C = y, .bias = b, .finish = finish});
}

void dense_dgrad(const float* dz, const float* W, const float* x_or_null, float* dx, int64_t B, int64_t I, int64_t O,
                 Activation activation) {
  Finish finish = nullptr;
  with_activation(activation, [&](auto known) {
    if (known.value != Activation::linear) finish = times_derivative<known.value>;
  });
  multiply({.M = B, .N = I, .K = O, .A = dz, .A_stride = O, .A_layout = Layout::plain, .B = W, .B_stride = O,
            .B_layout = Layout::transposed, .C = dx, .finish = finish, .other = x_or_null});
}

void dense_wgrad(const float* x, const float* dz, float* dW, float* db, int64_t B, int64_t I, int64_t O) {
  multiply({.M = I, .N = O, .K = B, .A = x, .A_stride = I, .A_layout = Layout::transposed, .B = dz, .B_stride = O,
            .B_layout = Layout::plain, .C = dW, .column_sums = db});
}

}  // namespace minigen::MINIGEN_ISA
