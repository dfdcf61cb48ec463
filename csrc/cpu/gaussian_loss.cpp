#include "kernels.hpp"
#include "row_losses.hpp"

namespace minigen::MINIGEN_ISA {

namespace {

constexpr float log_2pi = 1.83787707f;
constexpr int64_t block = 64;  // columns whose sums are kept at a time

// Twice a row's loss, and the gradient by the means. `shared`: one logvar of all columns.
template <bool shared>
float row_loss(const float* mean, const float* x, const float* logvar, float* dmean, int64_t D, float scale) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t d = 0; d < D; ++d) {
    const float of_column = bounded_variance(logvar[shared ? 0 : d]);
    const float precision = math::exp(-of_column);
    const float error = mean[d] - x[d];
    dmean[d] = error * precision * scale;
    sum += error * error * precision + (of_column + log_2pi);
  }
  return sum;
}

// Where logvar has left its bounds, a gradient that would carry it further out is 0.
float kept_inside(float gradient, float logvar) {
  const bool outwards = (logvar < variance_low && gradient > 0.0f) || (logvar > variance_high && gradient < 0.0f);
  return outwards ? 0.0f : gradient;
}

// gradients[width]: of the logvar of each of the columns from `first` on, were it inside of its bounds.
void column_gradients(const float* doutput, const float* output, const float* x, float* gradients, int64_t first,
                      int64_t width, int64_t B, int64_t D) {
  for (int64_t d = 0; d < width; ++d) gradients[d] = 0;
  for (int64_t r = 0; r < B; ++r) {
    const int64_t at = r * D + first;
#pragma omp simd
    for (int64_t d = 0; d < width; ++d) gradients[d] += doutput[at + d] * (output[at + d] - x[at + d]);
  }
  for (int64_t d = 0; d < width; ++d) gradients[d] = 0.5f * (1.0f - gradients[d]);
}

}  // namespace

void gaussian_loss(const float* output, const float* x, const float* logvar, float* doutput, float* rows, float* loss,
                   int64_t B, int64_t D, int64_t V) {
  const float scale = 1.0f / static_cast<float>(B);
  const auto one_row = V == D ? row_loss<false> : row_loss<true>;
  for_rows(B, static_cast<double>(B * D) * 0.5,
           [=](int64_t r) { rows[r] = 0.5f * one_row(output + r * D, x + r * D, logvar, doutput + r * D, D, scale); });
  loss[0] = mean(rows, B);
}

// Columns are shared out to the threads, so that a sum over rows has one order whatever their number. One variance of
// all columns is one thread's work.
void gaussian_logvar_gradient(const float* doutput, const float* output, const float* x, const float* logvar,
                              float* dlogvar, int64_t B, int64_t D, int64_t V) {
  if (V != D) {
    double sum = 0;
    for (int64_t first = 0; first < D; first += block) {
      float gradients[block];
      const int64_t width = D - first < block ? D - first : block;
      column_gradients(doutput, output, x, gradients, first, width, B, D);
      for (int64_t d = 0; d < width; ++d) sum += gradients[d];
    }
    dlogvar[0] = kept_inside(static_cast<float>(sum), logvar[0]);
    return;
  }
  parallel_ranges(D, block, static_cast<double>(B * D) * 0.3, [=](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += block) {
      const int64_t width = end - first < block ? end - first : block;
      column_gradients(doutput, output, x, dlogvar + first, first, width, B, D);
      for (int64_t d = first; d < first + width; ++d) dlogvar[d] = kept_inside(dlogvar[d], logvar[d]);
    }
  });
}

}  // namespace minigen::MINIGEN_ISA
