// The blocked loops, a vector of columns at a time: one multiply-add instruction does 8 of them with AVX2.
//
// Each still loads a vector of W and one of y, and stores y again: the core can multiply two vectors in the time in
// which it stores one, so it waits for its own stores.
#include <algorithm>

#include "vector.hpp"

constexpr int64_t block = 64;

extern "C" void dense(const float* x, const float* W, const float* b, float* y, int64_t B, int64_t I, int64_t O) {
  for (int64_t r = 0; r < B; ++r) std::copy(b, b + O, y + r * O);
  for (int64_t o0 = 0; o0 < O; o0 += block)
    for (int64_t i0 = 0; i0 < I; i0 += block) {
      const int64_t o1 = std::min(O, o0 + block), i1 = std::min(I, i0 + block);
      for (int64_t r = 0; r < B; ++r)
        for (int64_t i = i0; i < i1; ++i) {
          const float a = x[r * I + i];
          int64_t o = o0;
          for (; o + lanes <= o1; o += lanes) at(y + r * O + o) += a * at(W + i * O + o);
          for (; o < o1; ++o) y[r * O + o] += a * W[i * O + o];
        }
    }
}
