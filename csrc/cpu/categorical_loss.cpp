#include "kernels.hpp"
#include "row_losses.hpp"

namespace minigen::MINIGEN_ISA {

namespace {

// The cross entropy of one block of `width` columns, and its gradient. The largest logit is subtracted, so no e^
// exceeds 1 and their sum lies between 1 and the width.
float block_loss(const float* logits, const float* x, float* dlogits, int64_t width, float scale) {
  float largest = logits[0];
  for (int64_t d = 1; d < width; ++d) largest = logits[d] > largest ? logits[d] : largest;
  float sum = 0, total = 0, chosen = 0;
#pragma omp simd reduction(+ : sum, total, chosen)
  for (int64_t d = 0; d < width; ++d) {
    const float below = logits[d] - largest;
    const float e = math::exp_negative(below);
    dlogits[d] = e;
    sum += e;
    total += x[d];
    chosen += x[d] * below;
  }
  const float share = total / sum;
#pragma omp simd
  for (int64_t d = 0; d < width; ++d) dlogits[d] = (dlogits[d] * share - x[d]) * scale;
  return total * math::log(sum) - chosen;
}

}  // namespace

// A block of columns ends before column ends[g], and begins where the one before it ends.
void categorical_loss(const float* output, const float* x, const int32_t* ends, float* doutput, float* rows,
                      float* loss, int64_t B, int64_t D, int64_t G) {
  const float scale = 1.0f / static_cast<float>(B);
  for_rows(B, static_cast<double>(B * D) * 0.8, [=](int64_t r) {
    float sum = 0;
    int64_t begin = r * D;
    for (int64_t g = 0; g < G; ++g) {
      const int64_t end = r * D + ends[g];
      sum += block_loss(output + begin, x + begin, doutput + begin, end - begin, scale);
      begin = end;
    }
    rows[r] = sum;
  });
  loss[0] = mean(rows, B);
}

}  // namespace minigen::MINIGEN_ISA
