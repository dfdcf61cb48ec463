// Denormal numbers (below 2^-126) as zeros while a kernel runs.
//
// A weight whose gradient has died leaves running means that shrink by a factor each step until they are denormal, and
// stay so. Every operation on one costs the CPU about a hundred cycles: measured, an update of Adam becomes forty times
// slower. Nothing is lost: such numbers are far below the rounding of anything that they are added to.
#pragma once

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace minigen {

class FlushDenormals {
 public:
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

#if defined(__x86_64__)
  FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }  // flush results, read inputs as zero
  ~FlushDenormals() { _mm_setcsr(before_); }

 private:
  const unsigned before_;
#elif defined(__aarch64__)
  FlushDenormals() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(before_));
    __asm__ volatile("msr fpcr, %0" ::"r"(before_ | (1ull << 24)));
  }
  ~FlushDenormals() { __asm__ volatile("msr fpcr, %0" ::"r"(before_)); }

 private:
  unsigned long long before_;
#else
  FlushDenormals() {}
#endif
};

}  // namespace minigen
