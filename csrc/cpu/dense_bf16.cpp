// The three products of the dense layer, which minigen/reference/dense.py derives, in bf16: see bf16.hpp. Compiled once
// for AVX512-BF16 and once for AMX.
#include "adam.hpp"
#include "add_gradient.hpp"
#include "bf16.hpp"
#include "dispatch.hpp"
#include "gemm_bf16.hpp"

#define MINIGEN_STRING(text) #text
#define MINIGEN_NAME(text) MINIGEN_STRING(text)

namespace minigen::MINIGEN_ISA {

// `row` for all rows of a block, with a constant width where it is as wide as nearly all are: straight code.
template <class Row>
static inline __attribute__((always_inline)) void for_rows(int64_t rows, int64_t cols, Row row) {
  if (cols == block_side)
    for (int64_t i = 0; i < rows; ++i) row(i, block_side);
  else
    for (int64_t i = 0; i < rows; ++i) row(i, cols);
}

// The epilogues: Consume of product.hpp, whose context is the product.
template <Activation activation>
static void activate(const void* context, const float* z, int64_t stride, int64_t at, int64_t N, int64_t rows,
                     int64_t cols) {
  const Product& p = *static_cast<const Product*>(context);
  for_rows(rows, cols, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
    const float* from = z + i * stride;
    float* to = p.C + at + i * N;
#pragma omp simd
    for (int64_t j = 0; j < count; ++j) to[j] = minigen::activation_forward(from[j], activation);
  });
}

// A division waits longer than all the rest takes.
template <>
void activate<Activation::tanh>(const void* context, const float* z, int64_t stride, int64_t at, int64_t N,
                                int64_t rows, int64_t cols) {
  const Product& p = *static_cast<const Product*>(context);
  for_rows(rows, cols, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
    alignas(64) float numerator[block_side], denominator[block_side];
#pragma omp simd
    for (int64_t j = 0; j < count; ++j) {
      const math::Fraction f = math::tanh_fraction(z[i * stride + j]);
      numerator[j] = f.numerator;
      denominator[j] = f.denominator;
    }
    float* to = p.C + at + i * N;
    for (int64_t j = 0; j < count; j += lanes)
      store_first(to + j, divide_by_1_to_2(load(numerator + j), load(denominator + j)), smaller(lanes, count - j));
  });
}

template <Activation activation>
static void differentiate(const void* context, const float* z, int64_t stride, int64_t at, int64_t N, int64_t rows,
                          int64_t cols) {
  const Product& p = *static_cast<const Product*>(context);
  for_rows(rows, cols, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
    const float* from = z + i * stride;
    const float* y = p.X + at + i * N;
    float* to = p.C + at + i * N;
#pragma omp simd
    for (int64_t j = 0; j < count; ++j) to[j] = from[j] * activation_derivative(y[j], activation);
  });
}

// What stays float32. A head of one output reads as much as it multiplies: rounding would lose digits and gain no time.
// With three parts precision is the same either way, and splitting the operands pays from so many columns of the
// product on, or columns and rows (measured). The number of rows in a batch does not count: a row has the same bits in
// any.
template <int parts>
static bool forward_stays_float32(int64_t I, int64_t O) {
  return O == 1 || (parts > 1 && (O < 64 || I * O <= 1 << 14));
}
template <int parts>
static bool dgrad_stays_float32(int64_t I, int64_t O) {
  return O == 1 || (parts > 1 && I < 64);
}
template <int parts>
static bool wgrad_stays_float32(int64_t I, int64_t O) {
  return O == 1 || (parts > 1 && I * O < 32 * (I + O));
}

// One part rounds pixels as it rounds everything.
template <int parts>
static void take_pixels(Product& p, int64_t pixels) {
  if (parts == 1) return;
  p.pixels = pixels;
  p.levels = pixels > 0;
}

template <int parts>
static void dense_forward(const float* x, const float* W, const float* b, float* y, int64_t B, int64_t I, int64_t O,
                          Activation activation, int64_t pixels) {
  if (forward_stays_float32<parts>(I, O))
    return minigen::kernels().dense_forward(x, W, b, y, B, I, O, activation, pixels);
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
  take_pixels<parts>(p, pixels);
  with_activation(activation, [&](auto known) {
    if (known.value != Activation::linear) p.consume = activate<known.value>;
  });
  p.context = &p;
  multiply_bf16<parts>(p);
}

template <int parts>
static void dense_dgrad(const float* dz, const float* W, const float* x, float* dx, int64_t B, int64_t I, int64_t O,
                        Activation activation) {
  if (dgrad_stays_float32<parts>(I, O)) return minigen::kernels().dense_dgrad(dz, W, x, dx, B, I, O, activation);
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
  with_activation(activation, [&](auto known) {
    if (known.value == Activation::linear) return;
    p.X = x;
    p.consume = differentiate<known.value>;
  });
  p.context = &p;
  multiply_bf16<parts>(p);
}

template <int parts>
static Product weight_gradient(const float* x, const float* dz, float* dW, float* db, int64_t B, int64_t I, int64_t O,
                               int64_t pixels) {
  Product p = {.M = I,
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
  take_pixels<parts>(p, pixels);
  return p;
}

template <int parts>
static void dense_wgrad(const float* x, const float* dz, float* dW, float* db, int64_t B, int64_t I, int64_t O,
                        int64_t pixels, bool accumulate) {
  if (wgrad_stays_float32<parts>(I, O))
    return minigen::kernels().dense_wgrad(x, dz, dW, db, B, I, O, pixels, accumulate);
  if (accumulate)
    return add_gradient(
        dW, db, I, O, [=](float* sums, float* ones) { dense_wgrad<parts>(x, dz, sums, ones, B, I, O, pixels, false); });
  multiply_bf16<parts>(weight_gradient<parts>(x, dz, dW, db, B, I, O, pixels));
}

template <int parts>
static void dense_wgrad_adam(const float* x, const float* dz, float* dW, float* db, int64_t B, int64_t I, int64_t O,
                             AdamSlots W, AdamSlots b, const float* lr, const uint64_t* step, AdamSettings settings,
                             int64_t pixels) {
  if (wgrad_stays_float32<parts>(I, O))
    return minigen::kernels().dense_wgrad_adam(x, dz, dW, db, B, I, O, W, b, lr, step, settings, pixels);
  const Update update = {W, adam_step(settings, lr[0], step[0])};
  multiply_bf16<parts>(with_update(weight_gradient<parts>(x, dz, dW, db, B, I, O, pixels), update));
  adam_range(b.p, db, b.m, b.v, 0, O, update.step);
}

template <int parts>
constexpr DenseKernels products = {dense_forward<parts>, dense_dgrad<parts>, dense_wgrad<parts>,
                                   dense_wgrad_adam<parts>};

#if defined(__AMX_BF16__)
constexpr const DenseKernels* in_six_products = &products<3>;
#else
constexpr const DenseKernels* in_six_products = nullptr;  // would take longer than in float32
#endif

extern const Bf16Kernels bf16_table = {MINIGEN_NAME(MINIGEN_ISA), &products<1>, in_six_products, bf16_peak_gflops};

}  // namespace minigen::MINIGEN_ISA
