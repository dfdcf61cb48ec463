// A weight divided by its largest singular value: minigen/reference/spectral_norm.py derives forward and backward.
#include <new>

#include "kernels.hpp"
#include "row_losses.hpp"
#include "scratch.hpp"

namespace minigen::MINIGEN_ISA {

namespace {

constexpr int64_t block = 32;  // columns at once
constexpr double smallest_norm = 1e-12;

float dot(const float* a, const float* b, int64_t n) {
  float total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < n; ++i) total += a[i] * b[i];
  return total;
}

// Makes the length of x 1, and returns what it was.
double normalize(float* x, int64_t n) {
  double squares = 0;
  for (int64_t i = 0; i < n; ++i) squares += static_cast<double>(x[i]) * x[i];
  const double root = __builtin_sqrt(squares), norm = root < smallest_norm ? smallest_norm : root;
  for (int64_t i = 0; i < n; ++i) x[i] = static_cast<float>(x[i] / norm);
  return norm;
}

// u[O] = v[I] W[I,O]
void product_from_left(const float* v, const float* W, float* u, int64_t I, int64_t O) {
  parallel_ranges(O, block, I * O * 0.3, [=](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += block) {
      const int64_t width = end - first < block ? end - first : block;
      double sums[block] = {};
      for (int64_t i = 0; i < I; ++i) {
        const float* row = W + i * O + first;
        const float factor = v[i];
#pragma omp simd
        for (int64_t j = 0; j < width; ++j) sums[j] += factor * row[j];
      }
      for (int64_t j = 0; j < width; ++j) u[first + j] = static_cast<float>(sums[j]);
    }
  });
}

}  // namespace

void spectral_norm(const float* W, float* u, float* v, float* sigma, float* normalized, int64_t I, int64_t O,
                   bool iterate) {
  for_rows(I, I * O * 0.1, [=](int64_t i) { v[i] = dot(W + i * O, u, O); });
  double norm = normalize(v, I);  // of W u, with the u there was
  if (iterate) {
    product_from_left(v, W, u, I, O);
    norm = normalize(u, O);
  }
  sigma[0] = static_cast<float>(norm);
  const float divisor = sigma[0];
  parallel_ranges(I * O, 64, I * O * 0.15, [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) normalized[i] = W[i] / divisor;
  });
}

void spectral_norm_backward(const float* dnormalized, const float* normalized, const float* u, const float* v,
                            const float* sigma, float* dW, int64_t I, int64_t O, bool accumulate) {
  static thread_local Scratch<float> scratch;
  float* const sums = scratch.get(I);  // of each row
  if (!sums) throw std::bad_alloc();
  for_rows(I, I * O * 0.2, [=](int64_t i) { sums[i] = dot(dnormalized + i * O, normalized + i * O, O); });
  double total = 0;
  for (int64_t i = 0; i < I; ++i) total += sums[i];
  const float along = static_cast<float>(total), divisor = sigma[0];
  for_rows(I, I * O * 0.2, [=](int64_t i) {
    const float share = along * v[i];
    const float* row = dnormalized + i * O;
    float* out = dW + i * O;
    if (!accumulate)
      for (int64_t j = 0; j < O; ++j) out[j] = 0.0f;
#pragma omp simd
    for (int64_t j = 0; j < O; ++j) out[j] += (row[j] - share * u[j]) / divisor;
  });
}

}  // namespace minigen::MINIGEN_ISA
