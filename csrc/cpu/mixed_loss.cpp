#include "blocks.hpp"
#include "kernels.hpp"
#include "likelihood_terms.hpp"
#include "row_losses.hpp"

namespace minigen::MINIGEN_ISA {

namespace {

// Calls take(d, gradient of the log variance of column d) for the numbers in columns begin to end.
template <class Take>
void gradients_of_numbers(const float* doutput, const float* output, const float* x, int64_t begin, int64_t end,
                          int64_t B, int64_t D, const Take& take) {
  for (int64_t first = begin; first < end; first += column_block) {
    float gradients[column_block];
    const int64_t width = end - first < column_block ? end - first : column_block;
    column_gradients(doutput, output, x, gradients, first, width, B, D);
    for (int64_t d = 0; d < width; ++d) take(first + d, gradients[d]);
  }
}

}  // namespace

void mixed_loss(const float* output, const float* x, const int32_t* ends, const float* logvar, float* doutput,
                float* rows, float* loss, int64_t B, int64_t D, int64_t G, int64_t V) {
  const float scale = 1.0f / static_cast<float>(B);
  const bool shared = V != D;
  const auto numbers_of_a_row = shared ? gaussian_terms<true> : gaussian_terms<false>;
  for_rows(B, static_cast<double>(B * D) * 0.8, [=](int64_t r) {
    const float *m = output + r * D, *target = x + r * D;
    float *dm = doutput + r * D, sum = 0;
    for_blocks(
        ends, G,
        [&](int64_t begin, int64_t end) {
          sum += 0.5f * numbers_of_a_row(m + begin, target + begin, shared ? logvar : logvar + begin, dm + begin,
                                         end - begin, scale);
        },
        [&](int64_t begin, int64_t end) {
          sum += cross_entropy(m + begin, target + begin, dm + begin, end - begin, scale);
        });
    rows[r] = sum;
  });
  loss[0] = mean(rows, B);
}

// As gaussian_logvar_gradient: columns are shared out to the threads, one variance of all numbers is one thread's work.
void mixed_logvar_gradient(const float* doutput, const float* output, const float* x, const int32_t* ends,
                           const float* logvar, float* dlogvar, int64_t B, int64_t D, int64_t G, int64_t V) {
  if (V != D) {
    double sum = 0;
    const auto add = [&](int64_t, float gradient) { sum += gradient; };
    for_blocks(
        ends, G, [&](int64_t begin, int64_t end) { gradients_of_numbers(doutput, output, x, begin, end, B, D, add); },
        [](int64_t, int64_t) {});
    dlogvar[0] = kept_inside(static_cast<float>(sum), logvar[0]);
    return;
  }
  parallel_ranges(D, column_block, static_cast<double>(B * D) * 0.3, [=](int64_t from, int64_t to) {
    const auto keep = [=](int64_t d, float gradient) { dlogvar[d] = kept_inside(gradient, logvar[d]); };
    for_blocks(
        ends, G,
        [&](int64_t begin, int64_t end) {
          gradients_of_numbers(doutput, output, x, begin > from ? begin : from, end < to ? end : to, B, D, keep);
        },
        [&](int64_t begin, int64_t end) {
          for (int64_t d = begin > from ? begin : from; d < (end < to ? end : to); ++d) dlogvar[d] = 0;
        });
  });
}

}  // namespace minigen::MINIGEN_ISA
