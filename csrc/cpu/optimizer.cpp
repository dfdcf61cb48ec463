#include "adam.hpp"
#include "kernels.hpp"
#include "threads.hpp"

namespace minigen::MINIGEN_ISA {

namespace {

void sgd_range(float* p, const float* g, float* velocity, int64_t begin, int64_t end, float rate, float momentum,
               float decay) {
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    velocity[i] = momentum * velocity[i] + (g[i] + decay * p[i]);
    p[i] -= rate * velocity[i];
  }
}

}  // namespace

void sgd(float* p, const float* g, float* velocity, int64_t n, const float* lr, double momentum, double weight_decay) {
  const float rate = lr[0], kept = static_cast<float>(momentum), decay = static_cast<float>(weight_decay);
  parallel_ranges(n, 1024, n * 0.2,
                  [=](int64_t begin, int64_t end) { sgd_range(p, g, velocity, begin, end, rate, kept, decay); });
}

void adam(float* p, const float* g, float* m, float* v, int64_t n, const float* lr, const uint64_t* step,
          AdamSettings settings) {
  const AdamStep s = adam_step(settings, lr[0], step[0]);
  parallel_ranges(n, 1024, n * 0.3, [=](int64_t begin, int64_t end) { adam_range(p, g, m, v, begin, end, s); });
}

void clip(float* p, int64_t n, float limit) {
  parallel_ranges(n, 1024, n * 0.1, [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) p[i] = p[i] < -limit ? -limit : p[i] > limit ? limit : p[i];  // NaN stays
  });
}

void advance(uint64_t* step, const float* losses, float* history, int64_t T, int64_t K) {
  float* row = history + static_cast<int64_t>(step[0] % static_cast<uint64_t>(T)) * K;
  for (int64_t k = 0; k < K; ++k) row[k] = losses[k];
  ++step[0];
}

}  // namespace minigen::MINIGEN_ISA
