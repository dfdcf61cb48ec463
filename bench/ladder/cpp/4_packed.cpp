// W is copied into panels first: four vectors of columns, all rows of them one after the other.
//
// In W the rows of a panel lie O floats apart. If O is a multiple of 1024, all of them fall into the same few places of
// the cache and drive each other out; in the panel they are neighbours, read from one end to the other. Its last
// columns are filled up with zeros, so no inner loop has a remainder. Four sums of a row of y now fit into registers
// for the whole of i: nothing is stored before a sum is finished.
#include <algorithm>
#include <vector>

#include "vector.hpp"

constexpr int64_t vectors = 4, width = vectors * lanes;

extern "C" void dense(const float* x, const float* W, const float* b, float* y, int64_t B, int64_t I, int64_t O) {
  std::vector<float> panel(I * width);
  for (int64_t o0 = 0; o0 < O; o0 += width) {
    const int64_t columns = std::min(width, O - o0);
    for (int64_t i = 0; i < I; ++i) std::copy_n(W + i * O + o0, columns, panel.begin() + i * width);
    for (int64_t r = 0; r < B; ++r) {
      Vector sum[vectors] = {};
      for (int64_t i = 0; i < I; ++i)
        for (int64_t v = 0; v < vectors; ++v) sum[v] += x[r * I + i] * at(&panel[i * width + v * lanes]);
      for (int64_t o = 0; o < columns; ++o) y[r * O + o0 + o] = sum[o / lanes][o % lanes] + b[o0 + o];
    }
  }
}
