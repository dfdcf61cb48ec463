// Batch and layer normalization: minigen/reference/normalization.py derives both.
#include <new>

#include "kernels.hpp"
#include "row_losses.hpp"
#include "scratch.hpp"

namespace minigen::MINIGEN_ISA {

namespace {

constexpr int64_t block = 32;  // columns that a thread takes at once: of a row, two cache lines

// Run body(first, width) for the columns [first, first + width) of every block of O.
template <class Body>
void for_columns(int64_t O, double work, const Body& body) {
  parallel_ranges(O, block, work, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; j += block) body(j, end - j < block ? end - j : block);
  });
}

void clear(double* sums) {
  for (int64_t j = 0; j < block; ++j) sums[j] = 0;
}

// Adds the columns of x[R, width], whose rows are O apart, to sums.
void add_rows(const float* x, int64_t R, int64_t O, int64_t width, double* sums) {
  for (int64_t r = 0; r < R; ++r, x += O) {
#pragma omp simd
    for (int64_t j = 0; j < width; ++j) sums[j] += x[j];
  }
}

void add_squares(const float* x, const float* mean, int64_t R, int64_t O, int64_t width, double* sums) {
  for (int64_t r = 0; r < R; ++r, x += O) {
#pragma omp simd
    for (int64_t j = 0; j < width; ++j) {
      const double off = static_cast<double>(x[j]) - mean[j];
      sums[j] += off * off;
    }
  }
}

// Adds dz (x - mean) inv_std.
void add_products(const float* dz, const float* x, const float* mean, const float* inv_std, int64_t R, int64_t O,
                  int64_t width, double* sums) {
  for (int64_t r = 0; r < R; ++r, x += O, dz += O) {
#pragma omp simd
    for (int64_t j = 0; j < width; ++j) sums[j] += dz[j] * ((x[j] - mean[j]) * inv_std[j]);
  }
}

// y = act(gamma (x - mean) inv_std + beta), a row of column statistics.
template <Activation activation>
void normalize_rows(const float* x, const float* gamma, const float* beta, const float* mean, const float* inv_std,
                    float* y, int64_t R, int64_t O, int64_t width) {
  for (int64_t r = 0; r < R; ++r, x += O, y += O) {
#pragma omp simd
    for (int64_t j = 0; j < width; ++j)
      y[j] = minigen::activation_forward((x[j] - mean[j]) * inv_std[j] * gamma[j] + beta[j], activation);
  }
}

// The rows' loop is compiled for each activation, what surrounds it once.
auto normalize_rows_of(Activation activation) {
  return with_activation(activation, [](auto known) { return normalize_rows<known.value>; });
}

float inverse_root(double variance, double eps) { return static_cast<float>(1.0 / __builtin_sqrt(variance + eps)); }

}  // namespace

void batch_norm_forward(const float* x, const float* gamma, const float* beta, float* y, float* mean, float* inv_std,
                        float* running_mean, float* running_var, int64_t G, int64_t R, int64_t O, double momentum,
                        double eps, Activation activation) {
  const double rows = static_cast<double>(R), unbiased = R > 1 ? rows / (rows - 1) : 1.0;
  const auto normalize = normalize_rows_of(activation);
  for_columns(O, G * R * O * 1.0, [&](int64_t first, int64_t width) {
    double sums[block];
    for (int64_t g = 0; g < G; ++g) {
      const float* of_batch = x + g * R * O + first;
      float *m = mean + g * O + first, *s = inv_std + g * O + first;
      clear(sums);
      add_rows(of_batch, R, O, width, sums);
      for (int64_t j = 0; j < width; ++j) m[j] = static_cast<float>(sums[j] / rows);
      clear(sums);
      add_squares(of_batch, m, R, O, width, sums);
      for (int64_t j = 0; j < width; ++j) {
        const double variance = sums[j] / rows;
        s[j] = inverse_root(variance, eps);
        float &kept_mean = running_mean[first + j], &kept_var = running_var[first + j];
        kept_mean = static_cast<float>((1.0 - momentum) * kept_mean + momentum * m[j]);
        kept_var = static_cast<float>((1.0 - momentum) * kept_var + momentum * unbiased * variance);
      }
      normalize(of_batch, gamma + first, beta + first, m, s, y + g * R * O + first, R, O, width);
    }
  });
}

void batch_norm_infer(const float* x, const float* gamma, const float* beta, const float* running_mean,
                      const float* running_var, float* y, int64_t B, int64_t O, double eps, Activation activation) {
  const auto normalize = normalize_rows_of(activation);
  for_columns(O, B * O * 0.5, [&](int64_t first, int64_t width) {
    float inv_std[block];
    for (int64_t j = 0; j < width; ++j) inv_std[j] = inverse_root(running_var[first + j], eps);
    normalize(x + first, gamma + first, beta + first, running_mean + first, inv_std, y + first, B, O, width);
  });
}

void batch_norm_dgrad(const float* dz, const float* x, const float* gamma, const float* mean, const float* inv_std,
                      float* dx, int64_t G, int64_t R, int64_t O) {
  const double rows = static_cast<double>(R);
  for_columns(O, G * R * O * 1.0, [&](int64_t first, int64_t width) {
    double sums[block], products[block];
    float from_sum[block], from_products[block], scale[block];
    for (int64_t g = 0; g < G; ++g) {
      const int64_t at = g * R * O + first;
      const float *m = mean + g * O + first, *s = inv_std + g * O + first;
      clear(sums);
      clear(products);
      add_rows(dz + at, R, O, width, sums);
      add_products(dz + at, x + at, m, s, R, O, width, products);
      for (int64_t j = 0; j < width; ++j) {
        from_sum[j] = static_cast<float>(sums[j] / rows);
        from_products[j] = static_cast<float>(products[j] / rows);
        scale[j] = gamma[first + j] * s[j];
      }
      for (int64_t r = 0; r < R; ++r) {
        const float *dz_row = dz + at + r * O, *x_row = x + at + r * O;
        float* dx_row = dx + at + r * O;
#pragma omp simd
        for (int64_t j = 0; j < width; ++j)
          dx_row[j] = scale[j] * (dz_row[j] - from_sum[j] - (x_row[j] - m[j]) * s[j] * from_products[j]);
      }
    }
  });
}

void batch_norm_wgrad(const float* dz, const float* x, const float* mean, const float* inv_std, float* dgamma,
                      float* dbeta, int64_t G, int64_t R, int64_t O) {
  for_columns(O, G * R * O * 0.5, [&](int64_t first, int64_t width) {
    double sums[block], products[block];
    clear(sums);
    clear(products);
    for (int64_t g = 0; g < G; ++g) {
      const int64_t at = g * R * O + first;
      add_rows(dz + at, R, O, width, sums);
      add_products(dz + at, x + at, mean + g * O + first, inv_std + g * O + first, R, O, width, products);
    }
    for (int64_t j = 0; j < width; ++j) {
      dgamma[first + j] = static_cast<float>(products[j]);
      dbeta[first + j] = static_cast<float>(sums[j]);
    }
  });
}

// --- layer normalization: the same, of the columns of each row ---------------------------------------------------

namespace {

float sum(const float* x, int64_t O) {
  float total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t j = 0; j < O; ++j) total += x[j];
  return total;
}

float sum_of_squares(const float* x, float mean, int64_t O) {
  float total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t j = 0; j < O; ++j) total += (x[j] - mean) * (x[j] - mean);
  return total;
}

template <Activation activation>
void normalize_row(const float* x, const float* gamma, const float* beta, float mean, float inv_std, float* y,
                   int64_t O) {
#pragma omp simd
  for (int64_t j = 0; j < O; ++j)
    y[j] = minigen::activation_forward((x[j] - mean) * inv_std * gamma[j] + beta[j], activation);
}

void row_dgrad(const float* dz, const float* x, const float* gamma, float mean, float inv_std, float* dx, int64_t O) {
  float total = 0, products = 0;
#pragma omp simd reduction(+ : total, products)
  for (int64_t j = 0; j < O; ++j) {
    const float g = dz[j] * gamma[j];
    total += g;
    products += g * ((x[j] - mean) * inv_std);
  }
  const float columns = static_cast<float>(O), from_sum = total / columns, from_products = products / columns;
#pragma omp simd
  for (int64_t j = 0; j < O; ++j)
    dx[j] = inv_std * (dz[j] * gamma[j] - from_sum - (x[j] - mean) * inv_std * from_products);
}

// out = inv_std (t - mean t - h mean(h t)), times gamma: how z moves with x along t.
void row_tangent(const float* t, const float* x, const float* gamma, float mean, float inv_std, float* out, int64_t O) {
  float total = 0, products = 0;
#pragma omp simd reduction(+ : total, products)
  for (int64_t j = 0; j < O; ++j) {
    total += t[j];
    products += t[j] * ((x[j] - mean) * inv_std);
  }
  const float columns = static_cast<float>(O), from_sum = total / columns, from_products = products / columns;
#pragma omp simd
  for (int64_t j = 0; j < O; ++j)
    out[j] = gamma[j] * (inv_std * (t[j] - from_sum - (x[j] - mean) * inv_std * from_products));
}

// Adds -s^2 (b g + a t + (c - 3 a b) h) to dx, in the names of the derivation.
void row_curvature(const float* dz, const float* tangent, const float* x, const float* gamma, float mean, float inv_std,
                   float* dx, int64_t O) {
  const float columns = static_cast<float>(O);
  float sum_g = 0, sum_t = 0;
#pragma omp simd reduction(+ : sum_g, sum_t)
  for (int64_t j = 0; j < O; ++j) {
    sum_g += dz[j] * gamma[j];
    sum_t += tangent[j];
  }
  const float mean_g = sum_g / columns, mean_t = sum_t / columns;
  float a = 0, b = 0, c = 0;
#pragma omp simd reduction(+ : a, b, c)
  for (int64_t j = 0; j < O; ++j) {
    const float h = (x[j] - mean) * inv_std, g = dz[j] * gamma[j] - mean_g, t = tangent[j] - mean_t;
    a += h * g;
    b += h * t;
    c += g * t;
  }
  a /= columns;
  b /= columns;
  const float along = c / columns - 3.0f * a * b, square = inv_std * inv_std;
#pragma omp simd
  for (int64_t j = 0; j < O; ++j) {
    const float h = (x[j] - mean) * inv_std, g = dz[j] * gamma[j] - mean_g, t = tangent[j] - mean_t;
    dx[j] -= square * (b * g + a * t + along * h);
  }
}

// sums += dz h' of a row, of the columns from `first` on; h' = inv_std (t - from_sum - h from_products).
void add_tangent_products(const float* dz, const float* t, const float* x, float mean, float inv_std, float from_sum,
                          float from_products, int64_t width, double* sums) {
#pragma omp simd
  for (int64_t j = 0; j < width; ++j)
    sums[j] += dz[j] * (inv_std * (t[j] - from_sum - (x[j] - mean) * inv_std * from_products));
}

}  // namespace

void layer_norm_tangent(const float* x_tangent, const float* x, const float* gamma, const float* mean,
                        const float* inv_std, float* z_tangent, int64_t B, int64_t O) {
  for_rows(B, B * O * 0.6, [=](int64_t r) {
    row_tangent(x_tangent + r * O, x + r * O, gamma, mean[r], inv_std[r], z_tangent + r * O, O);
  });
}

void layer_norm_curvature(const float* dz, const float* x_tangent, const float* x, const float* gamma,
                          const float* mean, const float* inv_std, float* dx, int64_t B, int64_t O, bool accumulate) {
  for_rows(B, B * O * 1.0, [=](int64_t r) {
    float* out = dx + r * O;
    if (!accumulate)
      for (int64_t j = 0; j < O; ++j) out[j] = 0.0f;
    row_curvature(dz + r * O, x_tangent + r * O, x + r * O, gamma, mean[r], inv_std[r], out, O);
  });
}

void layer_norm_tangent_wgrad(const float* dz, const float* x_tangent, const float* x, const float* mean,
                              const float* inv_std, float* dgamma, int64_t B, int64_t O) {
  static thread_local Scratch<float> scratch;
  float* const means = scratch.get(2 * B);  // of each row, of t and of t h
  if (!means) throw std::bad_alloc();
  for_rows(B, B * O * 0.3, [=](int64_t r) {
    const float *t = x_tangent + r * O, *row = x + r * O;
    const float m = mean[r], s = inv_std[r], columns = static_cast<float>(O);
    float total = 0, products = 0;
#pragma omp simd reduction(+ : total, products)
    for (int64_t j = 0; j < O; ++j) {
      total += t[j];
      products += t[j] * ((row[j] - m) * s);
    }
    means[2 * r] = total / columns;
    means[2 * r + 1] = products / columns;
  });
  for_columns(O, B * O * 0.5, [=](int64_t first, int64_t width) {
    double sums[block];
    clear(sums);
    for (int64_t r = 0; r < B; ++r) {
      const int64_t at = r * O + first;
      add_tangent_products(dz + at, x_tangent + at, x + at, mean[r], inv_std[r], means[2 * r], means[2 * r + 1], width,
                           sums);
    }
    for (int64_t j = 0; j < width; ++j) dgamma[first + j] += static_cast<float>(sums[j]);
  });
}

void layer_norm_forward(const float* x, const float* gamma, const float* beta, float* y, float* mean, float* inv_std,
                        int64_t B, int64_t O, double eps, Activation activation) {
  const auto normalize = with_activation(activation, [](auto known) { return normalize_row<known.value>; });
  for_rows(B, B * O * 0.6, [=](int64_t r) {
    const float* row = x + r * O;
    const float columns = static_cast<float>(O), m = sum(row, O) / columns;
    const float s = inverse_root(sum_of_squares(row, m, O) / columns, eps);
    normalize(row, gamma, beta, m, s, y + r * O, O);
    mean[r] = m;
    inv_std[r] = s;
  });
}

void layer_norm_dgrad(const float* dz, const float* x, const float* gamma, const float* mean, const float* inv_std,
                      float* dx, int64_t B, int64_t O) {
  for_rows(B, B * O * 0.6,
           [=](int64_t r) { row_dgrad(dz + r * O, x + r * O, gamma, mean[r], inv_std[r], dx + r * O, O); });
}

void layer_norm_wgrad(const float* dz, const float* x, const float* mean, const float* inv_std, float* dgamma,
                      float* dbeta, int64_t B, int64_t O, bool accumulate) {
  for_columns(O, B * O * 0.5, [&](int64_t first, int64_t width) {
    double sums[block], products[block];
    clear(sums);
    clear(products);
    for (int64_t r = 0; r < B; ++r) {
      const float *dz_row = dz + r * O + first, *x_row = x + r * O + first;
      const float m = mean[r], s = inv_std[r];
#pragma omp simd
      for (int64_t j = 0; j < width; ++j) {
        sums[j] += dz_row[j];
        products[j] += dz_row[j] * ((x_row[j] - m) * s);
      }
    }
    for (int64_t j = 0; j < width; ++j) {
      dgamma[first + j] = (accumulate ? dgamma[first + j] : 0.0f) + static_cast<float>(products[j]);
      dbeta[first + j] = (accumulate ? dbeta[first + j] : 0.0f) + static_cast<float>(sums[j]);
    }
  });
}

}  // namespace minigen::MINIGEN_ISA
