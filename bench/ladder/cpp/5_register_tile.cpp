// A tile of y, six rows of two vectors, stays in registers: twelve sums, two vectors of W and one number of x are 15 of
// AVX2's 16 registers (with AVX-512's 32 it is 12 rows, 27 of them).
//
// A vector of W that has been loaded serves all rows of the tile, and a number of x both vectors: for six rows 8 loads
// serve 12 multiply-adds, where the panel alone took 5 for 4. Twelve sums that do not wait for each other are enough to
// start two multiply-adds in every cycle, although each takes four cycles. This is the kernel in csrc/cpu/gemm.hpp
// before everything that makes it fit small and lopsided shapes, transposed factors, threads and epilogues.
#include <algorithm>
#include <vector>

#include "vector.hpp"

constexpr int64_t rows = lanes == 16 ? 12 : 6, width = 2 * lanes, depth = 256;

// Adds `depth` terms at most to a tile of y; `panel` holds their rows of W.
template <int64_t tile_rows>
static void tile(const float* x, int64_t I, const float* panel, int64_t terms, float* y, int64_t O, int64_t columns) {
  Vector sum[tile_rows][2] = {};
  for (int64_t i = 0; i < terms; ++i) {
    const Vector left = at(panel + i * width), right = at(panel + i * width + lanes);
#pragma GCC unroll 12
    for (int64_t r = 0; r < tile_rows; ++r) {
      sum[r][0] += x[r * I + i] * left;
      sum[r][1] += x[r * I + i] * right;
    }
  }
  for (int64_t r = 0; r < tile_rows; ++r) {
    if (columns == width) {
      at(y + r * O) += sum[r][0];
      at(y + r * O + lanes) += sum[r][1];
    } else {
      for (int64_t o = 0; o < columns; ++o) y[r * O + o] += sum[r][o / lanes][o % lanes];
    }
  }
}

extern "C" void dense(const float* x, const float* W, const float* b, float* y, int64_t B, int64_t I, int64_t O) {
  for (int64_t r = 0; r < B; ++r) std::copy(b, b + O, y + r * O);
  std::vector<float> panel(depth * width);
  for (int64_t i0 = 0; i0 < I; i0 += depth)
    for (int64_t o0 = 0; o0 < O; o0 += width) {
      const int64_t terms = std::min(depth, I - i0), columns = std::min(width, O - o0);
      for (int64_t i = 0; i < terms; ++i) std::copy_n(W + (i0 + i) * O + o0, columns, panel.begin() + i * width);
      int64_t r = 0;
      for (; r + rows <= B; r += rows) tile<rows>(x + r * I + i0, I, panel.data(), terms, y + r * O + o0, O, columns);
      for (; r < B; ++r) tile<1>(x + r * I + i0, I, panel.data(), terms, y + r * O + o0, O, columns);
    }
}
