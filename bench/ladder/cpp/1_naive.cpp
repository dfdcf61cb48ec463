// y[B,O] = x[B,I] W[I,O] + b[O], as the formula says it: for each output a sum over i.
//
// The sum walks down a column of W: each number comes from another row, that is from another cache line, of which 15 of
// 16 numbers are thrown away. And each addition waits for the one before it.
#include <cstdint>

extern "C" void dense(const float* x, const float* W, const float* b, float* y, int64_t B, int64_t I, int64_t O) {
  for (int64_t r = 0; r < B; ++r)
    for (int64_t o = 0; o < O; ++o) {
      float sum = b[o];
      for (int64_t i = 0; i < I; ++i) sum += x[r * I + i] * W[i * O + o];
      y[r * O + o] = sum;
    }
}
