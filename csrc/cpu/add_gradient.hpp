// A weight gradient that is added to what its buffers hold.
#pragma once

#include <new>

#include "scratch.hpp"
#include "threads.hpp"

namespace minigen::MINIGEN_ISA {

static thread_local Scratch<float> gradient_scratch;

// `db` may be null. gradient(dW, db) computes into scratch memory first, which is then added: one more pass, but it
// works for any kernel.
template <class Gradient>
static void add_gradient(float* dW, float* db, int64_t I, int64_t O, const Gradient& gradient) {
  float* const sums = gradient_scratch.get(I * O + O);
  if (!sums) throw std::bad_alloc();
  gradient(sums, db ? sums + I * O : nullptr);
  const auto add = [](float* to, const float* from, int64_t n) {
    parallel_ranges(n, 1024, static_cast<double>(n) * 0.2, [=](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) to[i] += from[i];
    });
  };
  add(dW, sums, I * O);
  if (db) add(db, sums + I * O, O);
}

}  // namespace minigen::MINIGEN_ISA
