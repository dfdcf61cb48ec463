// Layer normalization differentiated once more, for a penalty on a gradient: minigen/reference/normalization.py.
#include <new>

#include "kernels.hpp"
#include "row_losses.hpp"
#include "scratch.hpp"

namespace minigen::MINIGEN_ISA {

namespace {

constexpr int64_t block = 32;  // columns that a thread takes at once

// A row of the layer's input and its statistics.
struct Row {
  const float* x;
  float mean, inv_std;
};

// The means over a row's columns of v, times gamma where that is not null, and of h times that.
struct Means {
  float plain, along_h;
};

thread_local Scratch<Means> means_scratch;

Means means(const float* v, const float* gamma, Row row, int64_t O) {
  float total = 0, products = 0;
  if (gamma) {
#pragma omp simd reduction(+ : total, products)
    for (int64_t j = 0; j < O; ++j) {
      const float value = v[j] * gamma[j];
      total += value;
      products += value * ((row.x[j] - row.mean) * row.inv_std);
    }
  } else {
#pragma omp simd reduction(+ : total, products)
    for (int64_t j = 0; j < O; ++j) {
      total += v[j];
      products += v[j] * ((row.x[j] - row.mean) * row.inv_std);
    }
  }
  return {total / static_cast<float>(O), products / static_cast<float>(O)};
}

float mean_product(const float* dz, const float* gamma, const float* v, int64_t O) {
  float total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t j = 0; j < O; ++j) total += dz[j] * gamma[j] * v[j];
  return total / static_cast<float>(O);
}

void tangent_row(const float* v, Row row, const float* gamma, Means of_v, float* z_tangent, int64_t O) {
#pragma omp simd
  for (int64_t j = 0; j < O; ++j) {
    const float h = (row.x[j] - row.mean) * row.inv_std;
    z_tangent[j] = gamma[j] * (row.inv_std * (v[j] - of_v.plain - h * of_v.along_h));
  }
}

void curvature_row(const float* dz, const float* v, Row row, const float* gamma, float* dx, int64_t O, float kept) {
  const Means of_g = means(dz, gamma, row, O), of_v = means(v, nullptr, row, O);
  const float p = of_g.along_h, q = of_v.along_h, s = row.inv_std;
  const float bent = s * s * (mean_product(dz, gamma, v, O) - of_g.plain * of_v.plain - p * q);
#pragma omp simd
  for (int64_t j = 0; j < O; ++j) {
    const float h = (row.x[j] - row.mean) * s;
    const float through_g = s * (dz[j] * gamma[j] - of_g.plain - h * p), through_v = s * (v[j] - of_v.plain - h * q);
    const float before = kept == 0.0f ? 0.0f : dx[j];
    dx[j] = before - (bent * h + s * (q * through_g + p * through_v));
  }
}

}  // namespace

void layer_norm_tangent(const float* x_tangent, const float* x, const float* gamma, const float* mean,
                        const float* inv_std, float* z_tangent, int64_t B, int64_t O) {
  for_rows(B, B * O * 0.6, [=](int64_t r) {
    const Row row = {x + r * O, mean[r], inv_std[r]};
    const float* v = x_tangent + r * O;
    tangent_row(v, row, gamma, means(v, nullptr, row, O), z_tangent + r * O, O);
  });
}

void layer_norm_tangent_wgrad(const float* dz, const float* x_tangent, const float* x, const float* mean,
                              const float* inv_std, float* dgamma, int64_t B, int64_t O) {
  Means* const of_rows = means_scratch.get(B);
  if (!of_rows) throw std::bad_alloc();
  for_rows(B, B * O * 0.4,
           [=](int64_t r) { of_rows[r] = means(x_tangent + r * O, nullptr, {x + r * O, mean[r], inv_std[r]}, O); });
  parallel_ranges(O, block, B * O * 0.4, [=](int64_t begin, int64_t end) {
    for (int64_t j0 = begin; j0 < end; j0 += block) {
      const int64_t width = end - j0 < block ? end - j0 : block;
      double sums[block] = {};
      for (int64_t r = 0; r < B; ++r) {
        const float *v = x_tangent + r * O + j0, *x_row = x + r * O + j0, *dz_row = dz + r * O + j0;
        const float m = mean[r], s = inv_std[r], plain = of_rows[r].plain, along_h = of_rows[r].along_h;
#pragma omp simd
        for (int64_t j = 0; j < width; ++j) sums[j] += dz_row[j] * (s * (v[j] - plain - (x_row[j] - m) * s * along_h));
      }
      for (int64_t j = 0; j < width; ++j) dgamma[j0 + j] = static_cast<float>(dgamma[j0 + j] + sums[j]);
    }
  });
}

void layer_norm_curvature(const float* dz, const float* x_tangent, const float* x, const float* gamma,
                          const float* mean, const float* inv_std, float* dx, int64_t B, int64_t O, bool accumulate) {
  for_rows(B, B * O * 1.5, [=](int64_t r) {
    const Row row = {x + r * O, mean[r], inv_std[r]};
    curvature_row(dz + r * O, x_tangent + r * O, row, gamma, dx + r * O, O, accumulate ? 1.0f : 0.0f);
  });
}

}  // namespace minigen::MINIGEN_ISA
