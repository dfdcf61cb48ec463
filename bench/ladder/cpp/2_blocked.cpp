// The same sums, a block of W at a time.
//
// The inner loop goes along a row of W, so all of a cache line is used, and its additions go to different sums, so none
// waits for another. A block of W, 64 x 64 floats or 16 KiB, stays in the first cache while all rows of x pass by.
#include <algorithm>
#include <cstdint>

constexpr int64_t block = 64;

extern "C" void dense(const float* x, const float* W, const float* b, float* y, int64_t B, int64_t I, int64_t O) {
  for (int64_t r = 0; r < B; ++r) std::copy(b, b + O, y + r * O);
  for (int64_t o0 = 0; o0 < O; o0 += block)
    for (int64_t i0 = 0; i0 < I; i0 += block) {
      const int64_t o1 = std::min(O, o0 + block), i1 = std::min(I, i0 + block);
      for (int64_t r = 0; r < B; ++r)
        for (int64_t i = i0; i < i1; ++i)
          for (int64_t o = o0; o < o1; ++o) y[r * O + o] += x[r * I + i] * W[i * O + o];
    }
}
