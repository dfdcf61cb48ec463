#include "blocks.hpp"
#include "kernels.hpp"
#include "row_losses.hpp"

namespace minigen::MINIGEN_ISA {

namespace {

// A draw of Gumbel's distribution from u, a multiple of 2^-24 in [0, 1).
float gumbel(float u) {
  const float exponential = -math::log(u + 0x1p-24f);
  return -math::log(exponential < 0x1p-25f ? 0x1p-25f : exponential);
}

// The softmax of y, in place.
void softmax(float* y, int64_t width) {
  float largest = y[0];
  for (int64_t d = 1; d < width; ++d) largest = y[d] > largest ? y[d] : largest;
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t d = 0; d < width; ++d) {
    y[d] = math::exp_negative(y[d] - largest);
    sum += y[d];
  }
#pragma omp simd
  for (int64_t d = 0; d < width; ++d) y[d] /= sum;
}

template <Activation activation>
void activate(const float* z, float* y, int64_t begin, int64_t end) {
#pragma omp simd
  for (int64_t d = begin; d < end; ++d) y[d] = activation_forward(z[d], activation);
}

template <Activation activation>
void differentiate(const float* dy, const float* y, float* dz, int64_t begin, int64_t end) {
#pragma omp simd
  for (int64_t d = begin; d < end; ++d) dz[d] = dy[d] * activation_derivative(y[d], activation);
}

}  // namespace

void gumbel_softmax_forward(const float* z, const float* u, const int32_t* ends, float* y, int64_t B, int64_t D,
                            int64_t G, Activation activation, double temperature) {
  const float sharpness = u == nullptr ? 1.0f : static_cast<float>(1.0 / temperature);
  const auto numbers = with_activation(activation, [](auto known) { return activate<known.value>; });
  for_rows(B, static_cast<double>(B * D) * 2.0, [=](int64_t r) {
    const float *logits = z + r * D, *uniform = u == nullptr ? nullptr : u + r * D;
    float* out = y + r * D;
    for_blocks(
        ends, G, [=](int64_t begin, int64_t end) { numbers(logits, out, begin, end); },
        [=](int64_t begin, int64_t end) {
          if (uniform == nullptr) {
            for (int64_t d = begin; d < end; ++d) out[d] = logits[d];
          } else {
#pragma omp simd
            for (int64_t d = begin; d < end; ++d) out[d] = (logits[d] + gumbel(uniform[d])) * sharpness;
          }
          softmax(out + begin, end - begin);
        });
  });
}

void gumbel_softmax_backward(const float* dy, const float* y, const int32_t* ends, float* dz, int64_t B, int64_t D,
                             int64_t G, Activation activation, double temperature) {
  const float sharpness = static_cast<float>(1.0 / temperature);
  const auto numbers = with_activation(activation, [](auto known) { return differentiate<known.value>; });
  for_rows(B, static_cast<double>(B * D) * 0.5, [=](int64_t r) {
    const float *slope = dy + r * D, *p = y + r * D;
    float* out = dz + r * D;
    for_blocks(
        ends, G, [=](int64_t begin, int64_t end) { numbers(slope, p, out, begin, end); },
        [=](int64_t begin, int64_t end) {
          float mean = 0;
#pragma omp simd reduction(+ : mean)
          for (int64_t d = begin; d < end; ++d) mean += slope[d] * p[d];
#pragma omp simd
          for (int64_t d = begin; d < end; ++d) out[d] = p[d] * (slope[d] - mean) * sharpness;
        });
  });
}

}  // namespace minigen::MINIGEN_ISA
