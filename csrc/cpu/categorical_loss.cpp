#include "kernels.hpp"
#include "likelihood_terms.hpp"
#include "row_losses.hpp"

namespace minigen::MINIGEN_ISA {

// A block of columns ends before column ends[g], and begins where the one before it ends.
void categorical_loss(const float* output, const float* x, const int32_t* ends, float* doutput, float* rows,
                      float* loss, int64_t B, int64_t D, int64_t G) {
  const float scale = 1.0f / static_cast<float>(B);
  for_rows(B, static_cast<double>(B * D) * 0.8, [=](int64_t r) {
    float sum = 0;
    int64_t begin = r * D;
    for (int64_t g = 0; g < G; ++g) {
      const int64_t end = r * D + ends[g];
      sum += cross_entropy(output + begin, x + begin, doutput + begin, end - begin, scale);
      begin = end;
    }
    rows[r] = sum;
  });
  loss[0] = mean(rows, B);
}

}  // namespace minigen::MINIGEN_ISA
