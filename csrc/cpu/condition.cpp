#include <algorithm>
#include <stdexcept>

#include "kernels.hpp"
#include "row_losses.hpp"

namespace minigen::MINIGEN_ISA {

void activation_of_sum(const float* a, const float* b, float* y, int64_t n, Activation activation) {
  with_activation(activation, [&](auto known) {
    parallel_ranges(n, 64, n * 0.4, [&](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) y[i] = minigen::activation_forward(a[i] + b[i], known.value);
    });
  });
}

// Each thread has columns of its own and adds the rows in their order, so that no sum depends on the number of threads.
void class_sums(const float* x, const int32_t* labels, float* sums, int64_t B, int64_t O, int64_t N) {
  if (std::any_of(labels, labels + B, [N](int32_t label) { return label < 0 || label >= N; }))
    throw std::invalid_argument("labels must lie in [0, number of classes)");
  parallel_ranges(O, 16, (B + N) * O * 0.1, [=](int64_t begin, int64_t end) {
    for (int64_t c = 0; c < N; ++c) std::fill(sums + c * O + begin, sums + c * O + end, 0.0f);
    for (int64_t r = 0; r < B; ++r) {
      const float* from = x + r * O;
      float* to = sums + labels[r] * O;
#pragma omp simd
      for (int64_t o = begin; o < end; ++o) to[o] += from[o];
    }
  });
}

void projection_forward(const float* x, const float* e, float* y, int64_t B, int64_t I) {
  for_rows(B, B * I * 0.1, [=](int64_t r) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = r * I; i < (r + 1) * I; ++i) sum += x[i] * e[i];
    y[r] += sum;
  });
}

// x may be null with the linear activation, whose derivative does not need it.
void projection_dgrad(const float* dz, const float* e, const float* x, float* dx, int64_t B, int64_t I,
                      Activation activation) {
  const float* const output = x ? x : e;
  with_activation(activation, [&](auto known) {
    for_rows(B, B * I * 0.2, [&](int64_t r) {
#pragma omp simd
      for (int64_t i = r * I; i < (r + 1) * I; ++i)
        dx[i] += dz[r] * e[i] * activation_derivative(output[i], known.value);
    });
  });
}

void projection_wgrad(const float* x, const float* dz, float* de, int64_t B, int64_t I) {
  for_rows(B, B * I * 0.1, [=](int64_t r) {
#pragma omp simd
    for (int64_t i = r * I; i < (r + 1) * I; ++i) de[i] = dz[r] * x[i];
  });
}

}  // namespace minigen::MINIGEN_ISA
