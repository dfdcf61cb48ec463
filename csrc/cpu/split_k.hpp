// Products that sum over much more than they leave: C = A B + bias as the sum of two halves of k.
//
// Two cores then need not exchange A or B, only a half of C each. A layer of many inputs follows or precedes one that
// has made, or will take, just those columns on the same core: its other products cut the same dimension (M or N).
//
// Whether a product is a sum of halves depends on its layer alone. So its bits depend neither on the number of threads
// nor on the other rows of A, whoever computes which half.
#pragma once

#include <new>

#include "product.hpp"
#include "scratch.hpp"
#include "threads.hpp"
#include "vector.hpp"

namespace minigen::MINIGEN_ISA {

constexpr int64_t finish_rows = 8, finish_cols = 2 * lanes;  // as wide as a panel: straight code

static inline bool is_split_k(const Product& p) {
  return p.A_layout == Layout::plain && p.K >= 512 && 2 * p.K >= 3 * p.N && p.N > 1;
}

// The halves' sums without what comes after them: into C, and into `other`, whose rows are as long.
static inline Product half_of(const Product& p, int half, float* other) {
  const int64_t middle = p.K / 2 / 32 * 32;
  Product h = p;
  h.activate = nullptr;
  h.differentiate = nullptr;
  h.consume = nullptr;
  if (half == 0) {
    h.K = middle;
    return h;
  }
  h.K = p.K - middle;
  h.A += middle;
  h.B += p.B_layout == Layout::plain ? middle * p.B_stride : middle;
  h.bias = nullptr;
  h.C = other;
  return h;
}

static inline Product rows_of(const Product& p, int64_t begin, int64_t end) {
  Product r = p;
  r.M = end - begin;
  r.pixels = larger(0, p.pixels - begin);
  r.A += begin * p.A_stride;
  r.C += begin * p.N;
  return r;
}

// What is left to do for a block of C that is complete but for it.
static inline void finish_block(const Product& p, int64_t at, int64_t rows, int64_t cols) {
  float* c = p.C + at;
  if (p.differentiate) {
    alignas(64) float derivative[finish_rows * finish_cols];
    p.differentiate(p.X + at, p.N, derivative, finish_cols, rows, cols);
    for (int64_t i = 0; i < rows; ++i)
#pragma omp simd
      for (int64_t j = 0; j < cols; ++j) c[i * p.N + j] *= derivative[i * finish_cols + j];
  }
  if (p.activate) p.activate(c, p.N, c, p.N, rows, cols);
  if (p.consume) p.consume(p.context, c, p.N, at, p.N, rows, cols);
}

// Rows [begin, end) of C from both halves; row `begin` of the other is its first.
static inline void add_halves(const Product& p, const float* other, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i += finish_rows) {
    const int64_t rows = smaller(finish_rows, end - i), at = i * p.N;
    const float* from = other + (i - begin) * p.N;
#pragma omp simd
    for (int64_t n = 0; n < rows * p.N; ++n) p.C[at + n] += from[n];
    for (int64_t j = 0; j < p.N; j += finish_cols) finish_block(p, at + j, rows, smaller(finish_cols, p.N - j));
  }
}

static thread_local Scratch<float> other_half;

// compute(p, t, threads, id): the part that thread t of so many has in p; its number among all threads is `id`.
template <class Compute>
static void multiply_split_k(const Product& p, int threads, const Compute& compute) {
  const int64_t few_rows = larger(96, (1 << 16) / p.N);  // of which a half stays in L2
  const bool exchange = threads % 2 == 0 && p.M <= 2 * p.K;
  const int64_t rows = exchange ? p.M : threads * smaller(few_rows, p.M);
  float* const other = other_half.get(larger(1, rows * p.N));
  if (!other) throw std::bad_alloc();
  if (exchange) {  // one half for some threads, the other for the others
    const int each = threads / 2;
    parallel(threads, [&](int t) { compute(half_of(p, t / each, other), t % each, each, t); });
    parallel(threads, [&](int t) {
      const int64_t begin = p.M * t / threads;
      add_halves(p, other + begin * p.N, begin, p.M * (t + 1) / threads);
    });
    return;
  }
  parallel(threads, [&](int t) {  // both for some rows
    const int64_t last = p.M * (t + 1) / threads;
    float* const mine = other + t * rows / threads * p.N;
    for (int64_t begin = p.M * t / threads; begin < last; begin += few_rows) {
      const int64_t end = smaller(begin + few_rows, last);
      const Product part = rows_of(p, begin, end);
      compute(half_of(part, 0, mine), 0, 1, t);
      compute(half_of(part, 1, mine), 0, 1, t);
      add_halves(p, mine, begin, end);
    }
  });
}

}  // namespace minigen::MINIGEN_ISA
