// The arithmetic that this CPU can do in bf16 with nothing but products in registers: see peak.cpp.
#include <time.h>

#include "bf16.hpp"
#include "cores.hpp"
#include "block_bf16.hpp"
#include "threads.hpp"

namespace minigen::MINIGEN_ISA {

static double now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Products in registers alone: how many operations those were.
#if defined(__AMX_BF16__)
static double only_multiply(int rounds) {
  for (int r = 0; r < rounds; ++r) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  return 4.0 * 2 * tile_side * tile_side * tile_depth * rounds;
}
#else
static double only_multiply(int rounds) {
  constexpr int chains = 24;  // more than are in flight
  __m512 sum[chains];
  for (int i = 0; i < chains; ++i) sum[i] = _mm512_set1_ps(static_cast<float>(i));  // equal chains would become one
  __m512bh zeros = {};
  for (int r = 0; r < rounds; ++r) {
    __asm__ volatile("" : "+v"(zeros));  // or the compiler would leave it all out
#pragma GCC unroll 32
    for (int i = 0; i < chains; ++i) sum[i] = _mm512_dpbf16_ps(sum[i], zeros, zeros);
  }
#pragma GCC unroll 32
  for (int i = 0; i < chains; ++i) __asm__ volatile("" ::"v"(sum[i]));
  return 2.0 * 2 * tile_side * chains * rounds;
}
#endif

static double peak_of_one_thread(double seconds) {
  const BlockUnit unit;
  const double start = now();
  double elapsed = 0, operations = 0;
  while (elapsed < seconds) {
    operations += only_multiply(2000);
    elapsed = now() - start;
  }
  return operations / elapsed / 1e9;
}

double bf16_peak_gflops(int threads, double seconds) {
  double of_thread[max_threads];
  all_at_once(threads, [&](int t) { of_thread[t] = peak_of_one_thread(seconds); });
  double total = 0;
  for (int t = 0; t < threads; ++t) total += of_thread[t];
  return total;
}

}  // namespace minigen::MINIGEN_ISA
