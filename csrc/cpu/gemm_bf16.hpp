// The matrix product with operands rounded to bf16, C = act(A B + bias), on AMX tiles or AVX512-BF16 dot products.
//
// Both operands are packed as bf16, in tiles of 1 KiB that either instruction set reads as they are: 16 rows of A by 32
// k, and 32 k by 16 columns of B, in words of two k. What fills up the last tiles is zero. C is cut into blocks of
// 32 x 32, four tiles of sums in registers while k runs.
//
// Arithmetic is so fast here that a product costs about as much as reading and rounding its operands. So each thread
// packs its part of B once for each block of k, and A strip by strip. AMX multiplies tiles in a unit of its own, which
// leaves the core free: meanwhile it packs the next panel of B (32 columns) or strip of A (32 rows), and finishes the
// block before.
//
// Every element of C is summed over k in the same order by the same instructions, in whichever block and thread it
// falls: the result does not depend on the number of threads.
#pragma once

#include <immintrin.h>

#include <new>

#include "block_bf16.hpp"
#include "pack_bf16.hpp"
#include "split_k.hpp"
#include "product.hpp"
#include "threads.hpp"
#include "vector.hpp"

namespace minigen::MINIGEN_ISA {

constexpr int64_t block_side = 2 * tile_side;
template <int parts>
constexpr int64_t max_depth = 13 / parts;  // tiles of k at a time: a strip of A is 26 KiB of L1
constexpr int64_t max_panels = 32;         // of B at a time: at most 832 KiB of L2
constexpr int64_t strip_size = block_side * max_panels * block_side;  // sums of a strip of C

// k in [k0, k0 + k) of one product.
struct Slice {
  int64_t k0, k, tiles;
  bool first, last;
};

// What is done bit by bit while tiles are multiplied: the block of C before this one is finished (the whole strip
// before this one, if the epilogue reads arrays as large as C), and the next panel of B and the next strip of A are
// packed. One bit has to fit between the multiplications of a term: the core looks ahead by some five hundred
// instructions, and if these are all of one bit, no multiplication is under way.
template <int parts>
class Aside {
 public:
  explicit Aside(const Product& p) : p_(p) {}
  Aside(const Aside&) = delete;
  Aside& operator=(const Aside&) = delete;

  // A[i0.., k0..], after what was to be packed before; against so many blocks of B.
  void pack_A_later(const Slice& slice, int64_t i0, int64_t rows, bool exact, int64_t blocks, uint16_t* packed) {
    pack_A_now();
    const bool plain = p_.A_layout == Layout::plain;
    const Operand A = {p_.A + (plain ? i0 * p_.A_stride + slice.k0 : slice.k0 * p_.A_stride + i0),
                       p_.A_stride,
                       rows,
                       slice.k,
                       packed,
                       pixel_levels,
                       p_.pixels - (plain ? i0 : slice.k0)};
    if (exact)
      plain ? A_.start<1, step_rows, true, false, false, true>(A) : A_.start<1, step_rows, false, true, false, true>(A);
    else if (p_.levels)
      plain ? A_.start<parts, step_rows, true, false, false, true>(A)
            : A_.start<parts, step_rows, false, true, false, true>(A);
    else
      plain ? A_.start<parts, step_rows, true, false, false, false>(A)
            : A_.start<parts, step_rows, false, true, false, false>(A);
    A_steps_ = steps_a_term(!plain, blocks);
  }
  void pack_A_now() { A_.all(); }

  // B[k0.., j0..]. Adds the sums of its columns to `sums` unless that is null.
  void pack_B_later(const Slice& slice, int64_t j0, int64_t cols, uint16_t* packed, float* sums) {
    pack_B_now();
    const bool plain = p_.B_layout == Layout::plain;
    const Operand B = {p_.B + (plain ? slice.k0 * p_.B_stride + j0 : j0 * p_.B_stride + slice.k0),
                       p_.B_stride,
                       cols,
                       slice.k,
                       packed,
                       1 / pixel_levels,
                       0,
                       sums};
    if (!plain)
      B_.start<parts, step_rows, true, true, false, false>(B);
    else if (sums)
      p_.levels ? B_.start<parts, step_rows, false, false, true, true>(B)
                : B_.start<parts, step_rows, false, false, true, false>(B);
    else
      p_.levels ? B_.start<parts, step_rows, false, false, false, true>(B)
                : B_.start<parts, step_rows, false, false, false, false>(B);
    B_steps_ = steps_a_term(!plain, 1);
  }
  void pack_B_now() { B_.all(); }

  // The part of C at row i0 and column j0 from its sums z, after the one that was to be finished before.
  void finish_later(int64_t i0, int64_t j0, const float* z, int64_t z_stride, int64_t rows, int64_t cols) {
    finish_now();
    z_ = z;
    z_stride_ = z_stride;
    at_ = i0 * p_.N + j0;
    rows_ = rows;
    cols_ = cols;
    col_ = 0;
  }

  void finish_now() {
    while (rows_ > 0) finish_next();
  }

  void operator()() {
    const bool finishes = rows_ > 0;
    if (finishes) finish_next();
    if (!B_.done())
      B_.steps(B_steps_);
    else if (!finishes)
      A_.steps(A_steps_);
  }

 private:
  static constexpr int step_rows = parts == 1 ? tile_side : 2;  // one part packs faster, and multiplies less at a time

  // So that two rows or columns of tiles are packed while so many blocks are multiplied.
  static int steps_a_term(bool transpose, int64_t blocks) {
    constexpr int64_t terms_a_tile = std::size(terms<parts, parts>);
    return static_cast<int>(ceil_div(2 * Packing::tile_steps(step_rows, transpose), blocks * terms_a_tile));
  }

  void finish_next() {
    if (p_.streams[0]) return finish_along();
    const int64_t few = p_.X ? 8 : 2;  // rows: those of a derivative wait for X rather than compute
    p_.consume(p_.context, z_, z_stride_, at_, p_.N, smaller(few, rows_), cols_);
    z_ += few * z_stride_;
    at_ += few * p_.N;
    rows_ -= few;
  }

  // From end to end of a row, in the order in which the CPU fetches ahead.
  void finish_along() {
    constexpr int64_t few = 4 * lanes;
    p_.consume(p_.context, z_ + col_, z_stride_, at_ + col_, p_.N, 1, smaller(few, cols_ - col_));
    col_ += few;
    if (col_ < cols_) return;
    col_ = 0;
    z_ += z_stride_;
    at_ += p_.N;
    --rows_;
  }

  const Product& p_;
  Packing A_, B_;
  int A_steps_ = 0, B_steps_ = 0;  // for each term
  const float* z_ = nullptr;
  int64_t z_stride_ = 0, at_ = 0, rows_ = 0, cols_ = 0, col_ = 0;
};

// --- one thread's share --------------------------------------------------------------------------------------------

// Blocks of C: rows and columns of blocks, first and one past the last. One part of each column has its sums.
struct Part {
  int64_t row, row_end, column, column_end;
  bool has_sums;
};

struct Packed {
  uint16_t *A[2], *B;  // A: a strip and the next one
  float* bias;         // filled up with zeros
  float* z[2];         // sums of a strip and of the one before
};

static thread_local Scratch<uint16_t> packing_scratch;

template <int parts>
static void compute_block(const Product& p, const Slice& slice, bool exact, int64_t i0, int64_t j0, const uint16_t* a,
                          const uint16_t* b, const float* bias, float* z, int64_t z_stride, Aside<parts>& aside) {
  const int64_t rows = smaller(block_side, p.M - i0), cols = smaller(block_side, p.N - j0);
  const int64_t high = ceil_div(rows, tile_side), wide = ceil_div(cols, tile_side);
  const auto block =
      exact ? pick_block<1, parts, Aside<parts>>(high, wide) : pick_block<parts, parts, Aside<parts>>(high, wide);
  float* const c = p.C + i0 * p.N + j0;
  const float* const start = p.bias ? bias : nullptr;
  const bool finish = slice.last && p.consume;
  if (rows % tile_side == 0 && cols % tile_side == 0 && !finish) {
    block(slice.tiles, a, b, c, p.N, slice.first ? start : c, slice.first ? 0 : p.N, aside);
    return;
  }
  if (!slice.first) copy_rows(c, p.N, z, z_stride, rows, cols);
  block(slice.tiles, a, b, z, z_stride, slice.first ? start : z, slice.first ? 0 : z_stride, aside);
  if (!finish) copy_rows(z, z_stride, c, p.N, rows, cols);
}

// Whether all of the strip of A at row i0 are pixels: one part is then all there is of them.
static inline bool is_exact(const Product& p, const Slice& slice, int64_t i0) {
  return p.A_layout == Layout::plain ? p.pixels >= smaller(p.M, i0 + block_side) : p.pixels >= slice.k0 + slice.k;
}

// Where the packed columns of block j are, counted from the panels' first.
template <int parts>
static uint16_t* panel_of(const Packed& packed, const Slice& slice, int64_t j) {
  return packed.B + j * 2 * slice.tiles * parts * tile_size;
}

// The columns of blocks from `low` to `high` of one slice: what their B is packed for.
struct Panels {
  int64_t low, high;
  float* sums;  // of their columns, null if not wanted

  int64_t count() const { return high - low; }
  int64_t first_column() const { return low * block_side; }
};

// From so many strips on all of B is packed before the first: that costs little beside them, and a large matrix is read
// from end to end.
constexpr int64_t many_strips = 16;

// Panels [j, j + count) of these.
template <int parts>
static void pack_panels_later(const Product& p, const Slice& slice, const Panels& panels, int64_t j, int64_t count,
                              const Packed& packed, Aside<parts>& aside) {
  if (j >= panels.count()) return;
  const int64_t j0 = panels.first_column() + j * block_side;
  aside.pack_B_later(slice, j0, smaller(count * block_side, p.N - j0), panel_of<parts>(packed, slice, j),
                     panels.sums ? panels.sums + j * block_side : nullptr);
}

// The strip at row i0, whose A is packed, against the panels; if `first`, they are packed as it goes.
template <int parts>
static void compute_strip(const Product& p, const Slice& slice, int64_t i0, bool first, const Panels& panels,
                          const uint16_t* A, const Packed& packed, float* z, Aside<parts>& aside) {
  const int64_t blocks = panels.count(), j0 = panels.first_column();
  const bool exact = is_exact(p, slice, i0), finish = slice.last && p.consume, along = p.streams[0] != nullptr;
  const int64_t z_stride = along ? blocks * block_side : block_side;
  const int64_t rows = smaller(block_side, p.M - i0);
  for (int64_t j = 0; j < blocks; ++j) {
    if (first) {
      aside.pack_B_now();
      pack_panels_later<parts>(p, slice, panels, j + 1, 1, packed, aside);
    }
    const int64_t column = j0 + j * block_side;
    // Sums that are finished block by block stay in L1: this one's, and those of the one before.
    float* const sums = z + (along ? j * block_side : j % 2 * block_side * block_side);
    compute_block<parts>(p, slice, exact, i0, column, A, panel_of<parts>(packed, slice, j),
                         packed.bias + j * block_side, sums, z_stride, aside);
    if (finish && !along) aside.finish_later(i0, column, sums, z_stride, rows, smaller(block_side, p.N - column));
  }
  if (finish && along) aside.finish_later(i0, j0, z, z_stride, rows, smaller(blocks * block_side, p.N - j0));
}

template <int parts>
static void compute_part(const Product& p, const Part& part, const Packed& packed) {
  const int64_t deep = ceil_div(p.K, tile_depth);
  const int64_t slices = larger(1, ceil_div(deep, max_depth<parts>));  // K = 0: one without terms, for the bias
  const bool with_sums = p.column_sums && part.has_sums;
  int64_t strips_done = 0;
  Aside<parts> aside(p);
  if (part.row == part.row_end && !with_sums) return;
  for (int64_t low = part.column; low < part.column_end; low += max_panels) {
    const int64_t high = smaller(low + max_panels, part.column_end);
    const int64_t j0 = low * block_side, cols = smaller(high * block_side, p.N) - j0;
    for (int64_t j = 0; j < (high - low) * block_side; ++j) packed.bias[j] = p.bias && j < cols ? p.bias[j0 + j] : 0;
    if (with_sums)
      for (int64_t j = j0; j < j0 + cols; ++j) p.column_sums[j] = 0;
    const Panels panels = {low, high, with_sums ? p.column_sums + j0 : nullptr};
    for (int64_t s = 0; s < slices; ++s) {
      const int64_t k0 = deep * s / slices * tile_depth, k1 = smaller(deep * (s + 1) / slices * tile_depth, p.K);
      const Slice slice = {k0, k1 - k0, ceil_div(k1 - k0, tile_depth), s == 0, s + 1 == slices};
      const auto pack_strip = [&](int64_t i) {
        if (i < part.row_end)
          aside.pack_A_later(slice, i * block_side, smaller(block_side, p.M - i * block_side),
                             is_exact(p, slice, i * block_side), panels.count(), packed.A[i % 2]);
      };
      // Where this part has no row of C, but the sums of B's columns, there is no strip to pack B beside.
      const int64_t strips = part.row_end - part.row;
      const bool as_it_goes = strips > 0 && strips < many_strips;
      pack_panels_later<parts>(p, slice, panels, 0, as_it_goes ? 1 : panels.count(), packed, aside);
      if (!as_it_goes) aside.pack_B_now();
      pack_strip(part.row);
      for (int64_t i = part.row; i < part.row_end; ++i) {
        aside.pack_A_now();
        pack_strip(i + 1);
        compute_strip<parts>(p, slice, i * block_side, as_it_goes && i == part.row, panels, packed.A[i % 2], packed,
                             packed.z[strips_done++ % 2], aside);
      }
    }
  }
  aside.finish_now();
}

// --- all of it -----------------------------------------------------------------------------------------------------

// Rough nanoseconds of one core for so many blocks: sums, packing of both operands, C.
template <int parts>
static double part_work(int64_t rows, int64_t columns, int64_t K) {
  const double m = static_cast<double>(rows * block_side), n = static_cast<double>(columns * block_side);
  constexpr double products = std::size(terms<parts, parts>);
  const double k = static_cast<double>(K);
  return products * 2 * m * n * k / block_flops_per_ns + 0.1 * parts * (m + n) * k + 0.1 * m * n;
}

// Into how many parts the rows of blocks are cut; `threads` over that for the columns. The cut with the least work for
// the busiest thread: what is cut finely is packed by few. Rather the rows: those of a batch then stay with their
// thread from one layer to the next.
template <int parts>
static int row_parts(int threads, int64_t rows, int64_t columns, int64_t K) {
  int best = threads;
  double least = part_work<parts>(ceil_div(rows, threads), columns, K);
  for (int r = threads - 1; r > 0; --r) {
    if (threads % r) continue;
    const double work = part_work<parts>(ceil_div(rows, r), ceil_div(columns, threads / r), K);
    if (work >= least) continue;
    best = r;
    least = work;
  }
  return best;
}

// One thread's, whatever the product. The same for all: memory that one core packed into for one product and another
// core for the next would be fetched from cache to cache every time.
template <int parts>
constexpr int64_t max_A_tiles = 4 * max_depth<parts> * parts;
template <int parts>
constexpr int64_t max_B_tiles = 2 * max_panels * max_depth<parts> * parts;
template <int parts>
constexpr int64_t scratch_size = (max_A_tiles<parts> + max_B_tiles<parts>)*tile_size + 4 * strip_size;

// What thread t of `threads` has in a product. `scratch` is its own.
template <int parts>
static void compute_share(const Product& p, int t, int threads, uint16_t* scratch) {
  const int64_t rows = ceil_div(p.M, block_side), columns = ceil_div(p.N, block_side);
  // Of arrays as large as C each core had better have whole rows: at the end of half a row it fetches ahead what the
  // other is writing.
  const bool by_rows = p.streams[0] && rows >= threads;
  const int r_parts = by_rows ? threads : row_parts<parts>(threads, rows, columns, p.K), c_parts = threads / r_parts;
  const int64_t r = t / c_parts, c = t % c_parts;
  const Part part = {rows * r / r_parts, rows * (r + 1) / r_parts, columns * c / c_parts, columns * (c + 1) / c_parts,
                     r == 0};
  alignas(64) float bias[max_panels * block_side];
  uint16_t *const A = scratch, *const B = scratch + max_A_tiles<parts> * tile_size;
  float* const z = reinterpret_cast<float*>(B + max_B_tiles<parts> * tile_size);
  const BlockUnit unit;
  compute_part<parts>(p, part, {{A, A + max_A_tiles<parts> / 2 * tile_size}, B, bias, {z, z + strip_size}});
}

template <int parts>
static void multiply_bf16(const Product& p) {
  const int threads = threads_for(part_work<parts>(ceil_div(p.M, block_side), ceil_div(p.N, block_side), p.K));
  uint16_t* const scratch = packing_scratch.get(threads * scratch_size<parts>);
  if (!scratch) throw std::bad_alloc();
  const auto compute = [=](const Product& product, int t, int of, int id) {
    compute_share<parts>(product, t, of, scratch + id * scratch_size<parts>);
  };
  if (is_split_k(p))
    multiply_split_k(p, threads, compute);
  else
    parallel(threads, [&](int t) { compute(p, t, threads, t); });
}

}  // namespace minigen::MINIGEN_ISA
