#include "kernels.hpp"
#include "likelihood_terms.hpp"
#include "row_losses.hpp"

namespace minigen::MINIGEN_ISA {

void gaussian_loss(const float* output, const float* x, const float* logvar, float* doutput, float* rows, float* loss,
                   int64_t B, int64_t D, int64_t V) {
  const float scale = 1.0f / static_cast<float>(B);
  const auto one_row = V == D ? gaussian_terms<false> : gaussian_terms<true>;
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
    for (int64_t first = 0; first < D; first += column_block) {
      float gradients[column_block];
      const int64_t width = D - first < column_block ? D - first : column_block;
      column_gradients(doutput, output, x, gradients, first, width, B, D);
      for (int64_t d = 0; d < width; ++d) sum += gradients[d];
    }
    dlogvar[0] = kept_inside(static_cast<float>(sum), logvar[0]);
    return;
  }
  parallel_ranges(D, column_block, static_cast<double>(B * D) * 0.3, [=](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += column_block) {
      const int64_t width = end - first < column_block ? end - first : column_block;
      column_gradients(doutput, output, x, dlogvar + first, first, width, B, D);
      for (int64_t d = first; d < first + width; ++d) dlogvar[d] = kept_inside(dlogvar[d], logvar[d]);
    }
  });
}

}  // namespace minigen::MINIGEN_ISA
