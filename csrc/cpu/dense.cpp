// The dense layer y = act(x W + b): forward, gradient of its input, gradient of its weights and bias, which
// minigen/reference/dense.py derives.
#include "adam.hpp"
#include "add_gradient.hpp"
#include "gemm.hpp"
#include "kernels.hpp"
#include "small_n.hpp"

namespace minigen::MINIGEN_ISA {

static void multiply(const Product& p) { is_small_n(p) ? multiply_small_n(p) : multiply_panels(p); }

// One row; `cols` is a constant where a row is as wide as a panel, and the loop then straight code.
template <class Function>
static inline __attribute__((always_inline)) void map_row(const float* from, float* to, int64_t cols,
                                                          Function function) {
#pragma omp simd
  for (int64_t j = 0; j < cols; ++j) to[j] = function(from[j]);
}

template <class Function>
static inline __attribute__((always_inline)) void map_rows(const float* from, int64_t from_stride, float* to,
                                                           int64_t to_stride, int64_t rows, int64_t cols,
                                                           Function function) {
  constexpr int64_t panel = 2 * lanes;
  if (cols == panel)
    for (int64_t i = 0; i < rows; ++i) map_row(from + i * from_stride, to + i * to_stride, panel, function);
  else
    for (int64_t i = 0; i < rows; ++i) map_row(from + i * from_stride, to + i * to_stride, cols, function);
}

template <Activation activation>
static void activate(const float* z, int64_t z_stride, float* y, int64_t y_stride, int64_t rows, int64_t cols) {
  map_rows(z, z_stride, y, y_stride, rows, cols, [](float x) { return minigen::activation_forward(x, activation); });
}

static inline __attribute__((always_inline)) void tanh_row(const float* from, float* to, int64_t cols) {
  constexpr int64_t panel = 2 * lanes;
  alignas(64) float numerator[panel], denominator[panel];
  for (int64_t begin = 0; begin < cols; begin += panel) {
    const int64_t count = smaller(panel, cols - begin);
#pragma omp simd
    for (int64_t j = 0; j < count; ++j) {
      const math::Fraction f = math::tanh_fraction(from[begin + j]);
      numerator[j] = f.numerator;
      denominator[j] = f.denominator;
    }
    for (int64_t j = 0; j < count; j += lanes) {
      const Vector y = divide_by_1_to_2(load(numerator + j), load(denominator + j));
      count - j < lanes ? store_first(to + begin + j, y, count - j) : store(to + begin + j, y);
    }
  }
}

template <>
void activate<Activation::tanh>(const float* z, int64_t z_stride, float* y, int64_t y_stride, int64_t rows,
                                int64_t cols) {
  constexpr int64_t panel = 2 * lanes;
  if (cols == panel)
    for (int64_t i = 0; i < rows; ++i) tanh_row(z + i * z_stride, y + i * y_stride, panel);
  else
    for (int64_t i = 0; i < rows; ++i) tanh_row(z + i * z_stride, y + i * y_stride, cols);
}

template <Activation activation>
static void differentiate(const float* y, int64_t y_stride, float* d, int64_t d_stride, int64_t rows, int64_t cols) {
  map_rows(y, y_stride, d, d_stride, rows, cols, [](float x) { return activation_derivative(x, activation); });
}

void dense_forward(const float* x, const float* W, const float* b, float* y, int64_t B, int64_t I, int64_t O,
                   Activation activation, int64_t) {
  Product p = {.M = B,
               .N = O,
               .K = I,
               .A = x,
               .A_stride = I,
               .A_layout = Layout::plain,
               .B = W,
               .B_stride = O,
               .B_layout = Layout::plain,
               .C = y,
               .bias = b};
  if (O == 1) {  // a single column is contiguous
    p.B_stride = I;
    p.B_layout = Layout::transposed;
  }
  with_activation(activation, [&](auto known) {
    if (known.value != Activation::linear) p.activate = activate<known.value>;
  });
  multiply(p);
}

void dense_dgrad(const float* dz, const float* W, const float* x, float* dx, int64_t B, int64_t I, int64_t O,
                 Activation activation) {
  with_activation(activation, [&](auto known) {
    if (O == 1)
      return parallel_ranges(B, 1, 0.1 * static_cast<double>(B * I), [=](int64_t begin, int64_t end) {
        outer_product<known.value>(dz, W, x, dx, begin, end, I);
      });
    Product p = {.M = B,
                 .N = I,
                 .K = O,
                 .A = dz,
                 .A_stride = O,
                 .A_layout = Layout::plain,
                 .B = W,
                 .B_stride = O,
                 .B_layout = Layout::transposed,
                 .C = dx};
    if (known.value != Activation::linear) {
      p.X = x;
      p.differentiate = differentiate<known.value>;
    }
    multiply(p);
  });
}

// Lane by lane: the order of the terms depends on n alone.
static float sum(const float* x, int64_t n) {
  Vector total = {};
  for (int64_t i = 0; i < n; i += lanes) total += load_first(x + i, smaller(lanes, n - i));
  const Quad quad = add_quads(total);
  return (quad[0] + quad[1]) + (quad[2] + quad[3]);
}

static Product weight_gradient(const float* x, const float* dz, float* dW, float* db, int64_t B, int64_t I, int64_t O) {
  return {.M = I,
          .N = O,
          .K = B,
          .A = x,
          .A_stride = I,
          .A_layout = Layout::transposed,
          .B = dz,
          .B_stride = O,
          .B_layout = Layout::plain,
          .C = dW,
          .column_sums = db};
}

void dense_wgrad(const float* x, const float* dz, float* dW, float* db, int64_t B, int64_t I, int64_t O, int64_t pixels,
                 bool accumulate) {
  if (accumulate)
    return add_gradient(dW, db, I, O,
                        [=](float* sums, float* ones) { dense_wgrad(x, dz, sums, ones, B, I, O, pixels, false); });
  if (O != 1) return multiply(weight_gradient(x, dz, dW, db, B, I, O));
  // dW^T[1,I] = dz^T x, where both transposes are the vectors themselves.
  multiply({.M = 1,
            .N = I,
            .K = B,
            .A = dz,
            .A_stride = B,
            .A_layout = Layout::plain,
            .B = x,
            .B_stride = I,
            .B_layout = Layout::plain,
            .C = dW});
  if (db) *db = sum(dz, B);
}

void dense_wgrad_adam(const float* x, const float* dz, float* dW, float* db, int64_t B, int64_t I, int64_t O,
                      AdamSlots W, AdamSlots b, const float* lr, const uint64_t* step, AdamSettings settings, int64_t) {
  const Update update = {W, adam_step(settings, lr[0], step[0])};
  if (O == 1) {
    dense_wgrad(x, dz, dW, db, B, I, O, 0, false);
    adam_range(W.p, dW, W.m, W.v, 0, I, update.step);
  } else {
    multiply(with_update(weight_gradient(x, dz, dW, db, B, I, O), update));
  }
  adam_range(b.p, db, b.m, b.v, 0, O, update.step);
}

}  // namespace minigen::MINIGEN_ISA
