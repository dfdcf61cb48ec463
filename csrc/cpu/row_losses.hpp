// Losses that have one value for each row and their mean.
#pragma once

#include "threads.hpp"

namespace minigen::MINIGEN_ISA {

// rows[r] = one_row(r), each computed by one thread, so that its bits do not depend on the number of threads.
template <class OneRow>
static inline void for_rows(int64_t B, double work, const OneRow& one_row) {
  parallel_ranges(B, 1, work, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) one_row(r);
  });
}

static inline float mean(const float* rows, int64_t B) {
  double sum = 0;
  for (int64_t r = 0; r < B; ++r) sum += rows[r];
  return static_cast<float>(sum / static_cast<double>(B));
}

}  // namespace minigen::MINIGEN_ISA
