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

void rmsprop_range(float* p, const float* g, float* velocity, float* v, int64_t begin, int64_t end, float rate,
                   float kept, float taken, float eps, float momentum, float decay) {
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    const float gradient = g[i] + decay * p[i];
    v[i] = kept * v[i] + taken * (gradient * gradient);
    velocity[i] = momentum * velocity[i] + gradient / (math::square_root(v[i]) + eps);
    p[i] -= rate * velocity[i];
  }
}

// 1, -1, or x itself where that is 0 or NaN.
float sign_of(float x) { return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x; }

void lion_range(float* p, const float* g, float* m, int64_t begin, int64_t end, float rate, float kept1, float taken1,
                float kept2, float taken2, float decay) {
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    p[i] -= rate * (sign_of(kept1 * m[i] + taken1 * g[i]) + decay * p[i]);
    m[i] = kept2 * m[i] + taken2 * g[i];
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

void rmsprop(float* p, const float* g, float* m, float* v, int64_t n, const float* lr, double beta2, double eps,
             double momentum, double weight_decay) {
  const float rate = lr[0], kept = static_cast<float>(beta2), taken = static_cast<float>(1.0 - beta2);
  const float least = static_cast<float>(eps), mu = static_cast<float>(momentum);
  const float decay = static_cast<float>(weight_decay);
  parallel_ranges(n, 1024, n * 0.3, [=](int64_t begin, int64_t end) {
    rmsprop_range(p, g, m, v, begin, end, rate, kept, taken, least, mu, decay);
  });
}

void lion(float* p, const float* g, float* m, int64_t n, const float* lr, double beta1, double beta2,
          double weight_decay) {
  const float rate = lr[0], decay = static_cast<float>(weight_decay);
  const float kept1 = static_cast<float>(beta1), taken1 = static_cast<float>(1.0 - beta1);
  const float kept2 = static_cast<float>(beta2), taken2 = static_cast<float>(1.0 - beta2);
  parallel_ranges(n, 1024, n * 0.2, [=](int64_t begin, int64_t end) {
    lion_range(p, g, m, begin, end, rate, kept1, taken1, kept2, taken2, decay);
  });
}

void advance(uint64_t* step, const float* losses, float* history, int64_t T, int64_t K) {
  float* row = history + static_cast<int64_t>(step[0] % static_cast<uint64_t>(T)) * K;
  for (int64_t k = 0; k < K; ++k) row[k] = losses[k];
  ++step[0];
}

}  // namespace minigen::MINIGEN_ISA
