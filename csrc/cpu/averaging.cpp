#include "kernels.hpp"
#include "threads.hpp"

namespace minigen::MINIGEN_ISA {

namespace {

void average_range(float* average, const float* p, int64_t begin, int64_t end, float weight) {
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) average[i] += weight * (p[i] - average[i]);
}

}  // namespace

void average(float* average, const float* p, int64_t n, const uint64_t* step, double decay) {
  const double early = 10.0 / (10.0 + static_cast<double>(step[0]));
  const auto weight = static_cast<float>(early > 1.0 - decay ? early : 1.0 - decay);
  parallel_ranges(n, 1024, n * 0.15,
                  [=](int64_t begin, int64_t end) { average_range(average, p, begin, end, weight); });
}

}  // namespace minigen::MINIGEN_ISA
