// What a matrix product is asked for.
#pragma once

#include <cstdint>

#include "vector.hpp"

namespace minigen::MINIGEN_ISA {

static constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static constexpr int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// How a matrix is read: element (r, c) at [r * stride + c], or transposed at [r + c * stride].
enum class Layout { plain, transposed };

// y = act(z) for a block of a matrix.
using Activate = void (*)(const float* z, int64_t z_stride, float* y, int64_t y_stride, int64_t rows, int64_t cols);

// d = act'(z) for a block of a matrix, from y = act(z).
using Differentiate = void (*)(const float* y, int64_t y_stride, float* d, int64_t d_stride, int64_t rows,
                               int64_t cols);

// Takes a block of a finished C, rows of `cols` values `stride` apart, in place of storing it. Row i of the block is
// C[offset + i * N], in elements from C's begin.
using Consume = void (*)(const void* context, const float* block, int64_t stride, int64_t offset, int64_t N,
                         int64_t rows, int64_t cols);

struct Product {
  // C[M,N] = act(A[M,K] B[K,N] + bias[N]) where `activate` is set (a forward pass), or (A B) * d where `differentiate`
  // is (a backward pass), d[M,N] the activation's derivative, computed from its stored output X[M,N]. Never both.
  int64_t M, N, K;
  const float* A;
  int64_t A_stride;
  Layout A_layout;
  const float* B;
  int64_t B_stride;
  Layout B_layout;
  float* C;
  const float* bias = nullptr;
  // Leading rows of A whose entries are k / 255, k an integer from -255 to 255 (pixel_levels is 255). With `levels`, A
  // is multiplied by pixel_levels and B divided by it: such entries then have few significant bits.
  int64_t pixels = 0;
  bool levels = false;
  float* column_sums = nullptr;  // [N], those of B, which then has to be plain
  Activate activate = nullptr;
  const float* X = nullptr;
  Differentiate differentiate = nullptr;
  Consume consume = nullptr;      // where set, C holds unfinished sums at most
  const void* context = nullptr;  // of `consume`
  const float* streams[3] = {};   // arrays laid out like C that `consume` updates
};

constexpr float pixel_levels = 255;

static inline double flops(const Product& p) {
  return 2.0 * static_cast<double>(p.M) * static_cast<double>(p.N) * static_cast<double>(p.K);
}

constexpr double flops_per_ns = 12.0 * lanes;  // of one core, roughly: decides about threads

}  // namespace minigen::MINIGEN_ISA
