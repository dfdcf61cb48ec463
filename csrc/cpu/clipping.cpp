#include <cmath>

#include "kernels.hpp"
#include "scratch.hpp"
#include "threads.hpp"

namespace minigen::MINIGEN_ISA {

namespace {

constexpr int64_t block = 4096;  // elements of a sum: the same for any number of threads

double sum_of_squares(const float* g, int64_t count) {
  double sum = 0.0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(g[i]) * static_cast<double>(g[i]);
  return sum;
}

void scale(float* g, int64_t begin, int64_t end, float factor) {
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) g[i] *= factor;
}

}  // namespace

void clip_norm(float* g, float* norm, int64_t n, double most) {
  static thread_local Scratch<double> scratch;
  const int64_t blocks = (n + block - 1) / block;
  double* sums = scratch.get(blocks);
  double total = 0.0;
  if (sums != nullptr) {
    parallel_ranges(blocks, 1, n * 0.1, [=](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        const int64_t first = b * block;
        sums[b] = sum_of_squares(g + first, n - first < block ? n - first : block);
      }
    });
    for (int64_t b = 0; b < blocks; ++b) total += sums[b];
  } else {  // no memory: the same sums, one after the other
    for (int64_t first = 0; first < n; first += block)
      total += sum_of_squares(g + first, n - first < block ? n - first : block);
  }
  const double length = std::sqrt(total);
  norm[0] = static_cast<float>(length);
  if (!(length > most) || std::isinf(length)) return;  // what is not finite stays, to be found
  const auto factor = static_cast<float>(most / length);
  parallel_ranges(n, 1024, n * 0.1, [=](int64_t begin, int64_t end) { scale(g, begin, end, factor); });
}

}  // namespace minigen::MINIGEN_ISA
