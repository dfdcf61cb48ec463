// The three products of the dense layer in bf16: see bf16.hpp. Compiled once for AVX512-BF16 and once for AMX.
#include "bf16.hpp"
#include "dispatch.hpp"
#include "gemm_bf16.hpp"

#define MINIGEN_STRING(text) #text
#define MINIGEN_NAME(text) MINIGEN_STRING(text)

namespace minigen::MINIGEN_ISA {

// `each` for all elements of a block; straight code for those as wide as nearly all are.
template <class Each>
static inline __attribute__((always_inline)) void for_block(int64_t rows, int64_t cols, Each each) {
  for (int64_t i = 0; i < rows; ++i) {
    if (cols == block_side) {
#pragma omp simd
      for (int64_t j = 0; j < block_side; ++j) each(i, j);
    } else {
#pragma omp simd
      for (int64_t j = 0; j < cols; ++j) each(i, j);
    }
  }
}

template <Activation activation>
static void activate(const float* z, const float*, float* c, int64_t stride, int64_t rows, int64_t cols) {
  for_block(rows, cols, [=](int64_t i, int64_t j) __attribute__((always_inline)) {
    c[i * stride + j] = minigen::activation_forward(z[i * block_side + j], activation);
  });
}

template <Activation activation>
static void differentiate(const float* z, const float* y, float* c, int64_t stride, int64_t rows, int64_t cols) {
  for_block(rows, cols, [=](int64_t i, int64_t j) __attribute__((always_inline)) {
    c[i * stride + j] = z[i * block_side + j] * activation_derivative(y[i * stride + j], activation);
  });
}

// A head of one output reads as much as it multiplies: rounding would lose digits and gain no time. It stays float32.
static bool stays_float32(int64_t O) { return O == 1; }

void dense_forward(const float* x, const float* W, const float* b, float* y, int64_t B, int64_t I, int64_t O,
                   Activation activation) {
  if (stays_float32(O)) return minigen::kernels().dense_forward(x, W, b, y, B, I, O, activation);
  Bf16Product p = {.M = B, .N = O, .K = I, .A = x, .A_stride = I, .A_layout = Layout::plain, .B = W, .B_stride = O,
                   .B_layout = Layout::plain, .C = y, .bias = b};
  with_activation(activation, [&](auto known) {
    if (known.value != Activation::linear) p.finish = activate<known.value>;
  });
  multiply_bf16(p);
}

void dense_dgrad(const float* dz, const float* W, const float* x_or_null, float* dx, int64_t B, int64_t I, int64_t O,
                 Activation activation) {
  if (stays_float32(O)) return minigen::kernels().dense_dgrad(dz, W, x_or_null, dx, B, I, O, activation);
  Bf16Product p = {.M = B, .N = I, .K = O, .A = dz, .A_stride = O, .A_layout = Layout::plain, .B = W, .B_stride = O,
                   .B_layout = Layout::transposed, .C = dx};
  with_activation(activation, [&](auto known) {
    if (known.value == Activation::linear) return;
    p.X = x_or_null;
    p.finish = differentiate<known.value>;
  });
  multiply_bf16(p);
}

void dense_wgrad(const float* x, const float* dz, float* dW, float* db, int64_t B, int64_t I, int64_t O) {
  if (stays_float32(O)) return minigen::kernels().dense_wgrad(x, dz, dW, db, B, I, O);
  multiply_bf16({.M = I, .N = O, .K = B, .A = x, .A_stride = I, .A_layout = Layout::transposed, .B = dz, .B_stride = O,
                 .B_layout = Layout::plain, .C = dW, .column_sums = db});
}

extern const Bf16Kernels bf16_table = {MINIGEN_NAME(MINIGEN_ISA), dense_forward, dense_dgrad, dense_wgrad,
                                       bf16_peak_gflops};

}  // namespace minigen::MINIGEN_ISA
