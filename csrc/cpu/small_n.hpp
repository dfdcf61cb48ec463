// Products C = A B of so few columns that most lanes of a panel would be padding, where A's rows and B's columns are
// contiguous: each element of C is then a dot product, whose lanes run along k and are added at the end. An element's
// order of summation depends on K alone, so the result does not depend on the number of threads.
#pragma once

#include "../math/activations.hpp"
#include "product.hpp"
#include "threads.hpp"
#include "vector.hpp"

namespace minigen::MINIGEN_ISA {

constexpr int max_dot_columns = has_32_registers ? 5 : 2;

static inline bool is_small_n(const Product& p) {
  if (p.A_layout != Layout::plain || p.B_layout != Layout::transposed || p.column_sums) return false;
  const int64_t padded = ceil_div(p.N, lanes) * lanes;
  return p.N == 1 || (padded <= 2 * lanes && 4 * p.N < 3 * padded && p.K >= 4 * lanes);
}

// 4 Quads x Columns of C from row i0 on. Rows beyond the last are computed from the last again and not stored.
template <int Quads, int Columns>
static void dot_tile(const Product& p, int64_t i0, int64_t j0) {
  constexpr int rows = 4 * Quads;
  const float* a[rows];
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i) a[i] = p.A + smaller(i0 + i, p.M - 1) * p.A_stride;
  const float* b = p.B + j0 * p.B_stride;

  Vector sum[Columns][rows] = {};
  const auto step = [&](auto read) __attribute__((always_inline)) {
    Vector bk[Columns];
#pragma GCC unroll 8
    for (int j = 0; j < Columns; ++j) bk[j] = read(b + j * p.B_stride);
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
      const Vector ai = read(a[i]);
#pragma GCC unroll 8
      for (int j = 0; j < Columns; ++j) sum[j][i] += ai * bk[j];
    }
  };
  const int64_t rest = p.K % lanes;
  for (int64_t k = 0; k < p.K - rest; k += lanes) {
    step([k](const float* x) { return load(x + k); });
  }
  if (rest) step([&](const float* x) { return load_first(x + p.K - rest, rest); });

#pragma GCC unroll 8
  for (int j = 0; j < Columns; ++j)
#pragma GCC unroll 2
    for (int q = 0; q < Quads; ++q) {
      Vector* v = sum[j] + 4 * q;
      transpose_quads(v);
      const Quad dots = add_quads((v[0] + v[1]) + (v[2] + v[3]));
      for (int i = 0; i < smaller(4, p.M - i0 - 4 * q); ++i)
        p.C[(i0 + 4 * q + i) * p.N + j0 + j] = dots[i] + (p.bias ? p.bias[j0 + j] : 0.0f);
    }
}

template <int... J>
static void dot_columns(const Product& p, int64_t i0, int64_t j0, int64_t columns, std::integer_sequence<int, J...>) {
  static constexpr decltype(&dot_tile<1, 1>) tiles[] = {dot_tile<1, J + 1>...};
  tiles[columns - 1](p, i0, j0);
}

// Rows [begin, end) of C.
static void multiply_rows(const Product& p, int64_t begin, int64_t end) {
  if (p.N == 1) {
    for (int64_t i = begin; i < end; i += 8) dot_tile<2, 1>(p, i, 0);
  } else {
    const int64_t groups = ceil_div(p.N, max_dot_columns);
    for (int64_t i = begin; i < end; i += 4)
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t j0 = p.N * g / groups;
        dot_columns(p, i, j0, p.N * (g + 1) / groups - j0, std::make_integer_sequence<int, max_dot_columns>());
      }
  }

  // Whole rows are contiguous: they count as one.
  const int64_t first = begin * p.N, count = (end - begin) * p.N;
  if (p.activate) p.activate(p.C + first, 0, p.C + first, 0, 1, count);
  if (!p.differentiate) return;
  constexpr int64_t chunk = 256;
  float derivative[chunk];
  for (int64_t at = first; at < first + count; at += chunk) {
    const int64_t part = smaller(chunk, first + count - at);
    p.differentiate(p.X + at, 0, derivative, 0, 1, part);
    for (int64_t j = 0; j < part; ++j) p.C[at + j] *= derivative[j];
  }
}

// dx = (dz W^T) * act'(z_before), the factor computed from x, where dz and W are vectors: one row for each element of
// dz, those of [begin, end).
template <Activation activation>
static void outer_product(const float* dz, const float* W, const float* x, float* dx, int64_t begin, int64_t end,
                          int64_t I) {
  for (int64_t r = begin; r < end; ++r) {
    const float* y = activation == Activation::linear ? W : x + r * I;  // not read if linear
    float* to = dx + r * I;
#pragma omp simd
    for (int64_t i = 0; i < I; ++i) to[i] = dz[r] * W[i] * activation_derivative(y[i], activation);
  }
}

static inline void multiply_small_n(const Product& p) {
  parallel_ranges(p.M, 8, 0.1 * static_cast<double>(p.M * p.K),
                  [&](int64_t begin, int64_t end) { multiply_rows(p, begin, end); });
}

}  // namespace minigen::MINIGEN_ISA
