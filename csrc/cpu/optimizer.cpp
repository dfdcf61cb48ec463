#include "kernels.hpp"
#include "threads.hpp"

namespace minigen::MINIGEN_ISA {

void sgd(float* p, const float* g, float* velocity, int64_t n, const float* lr, double momentum,
         double weight_decay) {
  const float rate = lr[0], keep = static_cast<float>(momentum), decay = static_cast<float>(weight_decay);
  parallel_ranges(n, 1024, n * 0.3, [&](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
      velocity[i] = keep * velocity[i] + (g[i] + decay * p[i]);
      p[i] -= rate * velocity[i];
    }
  });
}

void adam(float* p, const float* g, float* m, float* v, int64_t n, const float* lr, const uint64_t* step,
          AdamSettings settings) {
  const AdamStep s = adam_step(settings, lr[0], step[0]);
  parallel_ranges(n, 1024, n * 0.6, [&](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
      const AdamState next = adam_update(p[i], g[i], m[i], v[i], s);
      p[i] = next.p;
      m[i] = next.m;
      v[i] = next.v;
    }
  });
}

}  // namespace minigen::MINIGEN_ISA
