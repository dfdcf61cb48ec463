// The arithmetic that this CPU can do with nothing but fused multiply-adds in registers: the bound that the matrix
// kernel is measured against.
#include <time.h>

#include "cores.hpp"
#include "kernels.hpp"
#include "threads.hpp"
#include "vector.hpp"

namespace minigen::MINIGEN_ISA {

static double now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

static double peak_of_one_thread(double seconds) {
  constexpr int chains = has_32_registers ? 24 : 12;  // more than the multiply-adds in flight, with registers to spare
  constexpr int rounds = 2000;                        // between two looks at the clock
  Vector factor, term, x[chains];
  for (int l = 0; l < lanes; ++l) {
    factor[l] = 0.999f;  // x tends to 1: neither infinite nor denormal
    term[l] = 0.001f;
  }
  for (int i = 0; i < chains; ++i) x[i] = term * static_cast<float>(i + 1);  // the compiler may merge equal chains

  const double start = now();
  double elapsed = 0, operations = 0;
  while (elapsed < seconds) {
    for (int r = 0; r < rounds; ++r)
#pragma GCC unroll 32
      for (int i = 0; i < chains; ++i) x[i] = x[i] * factor + term;
    operations += 2.0 * lanes * chains * rounds;
    elapsed = now() - start;
  }

  Vector sum = {};
  for (const Vector& each : x) sum += each;
  volatile float used = sum[0];  // or the compiler would leave it all out
  (void)used;
  return operations / elapsed / 1e9;
}

double fma_peak_gflops(int threads, double seconds) {
  double of_thread[max_threads];
  all_at_once(threads, [&](int t) { of_thread[t] = peak_of_one_thread(seconds); });
  double total = 0;
  for (int t = 0; t < threads; ++t) total += of_thread[t];
  return total;
}

}  // namespace minigen::MINIGEN_ISA
