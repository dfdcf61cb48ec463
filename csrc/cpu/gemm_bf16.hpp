// The matrix product with operands rounded to bf16, C = act(A B + bias), on AMX tiles or AVX512-BF16 dot products.
//
// Both operands are packed as bf16, in tiles of 1 KiB that either instruction set reads as they are: 16 rows of A by 32
// k, and 32 k by 16 columns of B with the two k of a pair next to each other. What fills up the last tiles is zero. C
// is cut into blocks of 32 x 32, four tiles of sums in registers while k runs.
//
// Arithmetic is so fast here that a product costs about as much as reading and rounding its operands. So each thread
// packs its part of B once for each block of k, and A strip by strip. AMX multiplies tiles in a unit of its own, which
// leaves the core free: meanwhile it packs the next strip and finishes the block before.
//
// Every element of C is summed over increasing k by the same instructions, in whichever block and thread it falls: the
// result does not depend on the number of threads.
#pragma once

#include <immintrin.h>

#include <cstdlib>
#include <new>

#include "block_bf16.hpp"
#include "product.hpp"
#include "threads.hpp"
#include "vector.hpp"

namespace minigen::MINIGEN_ISA {

constexpr int64_t block_side = 2 * tile_side;
template <int parts>
constexpr int64_t max_depth = 13 / parts;  // tiles of k at a time: a strip of A is 26 KiB of L1
constexpr int64_t max_panels = 32;         // of B at a time: at most 832 KiB of L2

// --- packing -------------------------------------------------------------------------------------------------------

static inline __mmask16 first_lanes(int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xffff : count <= 0 ? 0 : (1 << count) - 1);
}

static inline __m512i round_to_bf16(__m512 low, __m512 high) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

// The 16 x 16 matrix of 32-bit words whose rows are v becomes its transpose.
static inline __attribute__((always_inline)) void transpose_words(__m512i v[16]) {
  __m512i t[16];
#pragma GCC unroll 4
  for (int g = 0; g < 16; g += 4) {  // within quads: four rows become four columns
    const __m512i a = _mm512_unpacklo_epi32(v[g], v[g + 1]), b = _mm512_unpackhi_epi32(v[g], v[g + 1]);
    const __m512i c = _mm512_unpacklo_epi32(v[g + 2], v[g + 3]), d = _mm512_unpackhi_epi32(v[g + 2], v[g + 3]);
    t[g] = _mm512_unpacklo_epi64(a, c);
    t[g + 1] = _mm512_unpackhi_epi64(a, c);
    t[g + 2] = _mm512_unpacklo_epi64(b, d);
    t[g + 3] = _mm512_unpackhi_epi64(b, d);
  }
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {  // the quads themselves
    const __m512i a = _mm512_shuffle_i32x4(t[r], t[r + 4], 0x88), b = _mm512_shuffle_i32x4(t[r], t[r + 4], 0xdd);
    const __m512i c = _mm512_shuffle_i32x4(t[r + 8], t[r + 12], 0x88);
    const __m512i d = _mm512_shuffle_i32x4(t[r + 8], t[r + 12], 0xdd);
    v[r] = _mm512_shuffle_i32x4(a, c, 0x88);
    v[r + 4] = _mm512_shuffle_i32x4(b, d, 0x88);
    v[r + 8] = _mm512_shuffle_i32x4(a, c, 0xdd);
    v[r + 12] = _mm512_shuffle_i32x4(b, d, 0xdd);
  }
}

// Part `part` of two vectors, next to each other or element by element in turn: of one part, the nearest bf16; of
// three, one of those whose sum they are. All but the last are cut off: exact, and nothing is left of the last.
template <bool in_turn, int parts, int part>
static inline __attribute__((always_inline)) __m512i take_part(__m512 low, __m512 high) {
  const __m512i upper_half = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  const auto cut = [=](__m512 x) __attribute__((always_inline)) {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x), upper_half));
  };
#pragma GCC unroll 2
  for (int before = 0; before < part; ++before) {
    low = _mm512_sub_ps(low, cut(low));
    high = _mm512_sub_ps(high, cut(high));
  }
  if constexpr (part + 1 < parts) {
    if (in_turn)
      return _mm512_or_si512(_mm512_castps_si512(cut(high)), _mm512_srli_epi32(_mm512_castps_si512(low), 16));
    return round_to_bf16(cut(low), cut(high));
  }
  const __m512i zip = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                       5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const __m512i rounded = round_to_bf16(low, high);
  return in_turn ? _mm512_permutexvar_epi16(zip, rounded) : rounded;
}

// One tile, all parts of it, from `rows` x `cols` of a matrix. Along: k runs along the rows, 16 rows of 32; else k
// counts the rows, 32 rows of 16, and pairs of them are interleaved. Whole: there are as many. With `sums`, adds those
// of the columns.
template <int parts, bool along, bool transpose, bool whole, bool with_sums>
static inline __attribute__((always_inline)) void pack_tile(const float* from, int64_t stride, int64_t rows,
                                                            int64_t cols, uint16_t* tile, float* sums) {
  const auto read = [=](int64_t r, int64_t c) __attribute__((always_inline)) {
    const float* p = from + r * stride + c;
    if (whole) return _mm512_loadu_ps(p);
    return r < rows ? _mm512_maskz_loadu_ps(first_lanes(cols - c), p) : _mm512_setzero_ps();
  };
  const auto read_low = [=](int i) __attribute__((always_inline)) { return along ? read(i, 0) : read(2 * i, 0); };
  const auto read_high = [=](int i) __attribute__((always_inline)) { return along ? read(i, 16) : read(2 * i + 1, 0); };
  if (along)
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      // Sixteen rows at once are too much for the CPU's own prefetching. Past the end of the matrix nothing happens.
      const uintptr_t ahead = reinterpret_cast<uintptr_t>(from) + (i * stride + 2 * tile_depth) * sizeof(float);
      __builtin_prefetch(reinterpret_cast<const void*>(ahead));
    }
  if constexpr (transpose) {  // a part at a time: 16 vectors are half of all registers
    const auto pack_part = [&](auto part) __attribute__((always_inline)) {
      __m512i v[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) v[i] = take_part<!along, parts, part.value>(read_low(i), read_high(i));
      transpose_words(v);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) _mm512_store_si512(tile + part.value * tile_size + i * tile_depth, v[i]);
    };
    pack_part(std::integral_constant<int, 0>());
    if constexpr (parts == 3) {
      pack_part(std::integral_constant<int, 1>());
      pack_part(std::integral_constant<int, 2>());
    }
    return;
  }
  __m512 sum[4] = {};
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    const __m512 low = read_low(i), high = read_high(i);
    uint16_t* to = tile + i * tile_depth;
    _mm512_store_si512(to, take_part<!along, parts, 0>(low, high));
    if constexpr (parts == 3) {
      _mm512_store_si512(to + tile_size, take_part<!along, parts, 1>(low, high));
      _mm512_store_si512(to + 2 * tile_size, take_part<!along, parts, 2>(low, high));
    }
    if (with_sums) sum[i % 4] = _mm512_add_ps(sum[i % 4], _mm512_add_ps(low, high));
  }
  if (!with_sums) return;
  const __m512 total = _mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3]));
  const __mmask16 lanes_used = first_lanes(cols);
  _mm512_mask_storeu_ps(sums, lanes_used, _mm512_add_ps(_mm512_maskz_loadu_ps(lanes_used, sums), total));
}

// An operand, or a part of it: `n` rows of A or columns of B by `k`. Its tile (s, t), of rows or columns from 16 s on
// and k from 32 t on, is packed as number s * ceil(k / 32) + t, all its parts.
struct Operand {
  const float* from;
  int64_t stride, n, k;
  uint16_t* packed;
};

template <int parts, bool along, bool transpose, bool with_sums>
static void pack_one(const Operand& o, int64_t s, int64_t t, float* sums) {
  const int64_t deep = ceil_div(o.k, tile_depth);
  const int64_t rows = along ? o.n - s * tile_side : o.k - t * tile_depth;
  const int64_t cols = along ? o.k - t * tile_depth : o.n - s * tile_side;
  const float* at =
      o.from + (along ? s * tile_side * o.stride + t * tile_depth : t * tile_depth * o.stride + s * tile_side);
  uint16_t* to = o.packed + (s * deep + t) * parts * tile_size;
  if (with_sums) sums += s * tile_side;
  if (rows >= (along ? tile_side : tile_depth) && cols >= (along ? tile_depth : tile_side))
    pack_tile<parts, along, transpose, true, with_sums>(at, o.stride, rows, cols, to, sums);
  else
    pack_tile<parts, along, transpose, false, with_sums>(at, o.stride, rows, cols, to, sums);
}

template <int parts, bool along, bool transpose, bool with_sums>
static void pack_all(const Operand& o, float* sums) {
  const int64_t wide = ceil_div(o.n, tile_side), deep = ceil_div(o.k, tile_depth);
  // In the order of memory: a few rows from end to end.
  if (along)
    for (int64_t s = 0; s < wide; ++s)
      for (int64_t t = 0; t < deep; ++t) pack_one<parts, along, transpose, with_sums>(o, s, t, sums);
  else
    for (int64_t t = 0; t < deep; ++t)
      for (int64_t s = 0; s < wide; ++s) pack_one<parts, along, transpose, with_sums>(o, s, t, sums);
}

// B[k0.., j0..]. Adds the sums of its columns to `sums` unless that is null.
template <int parts>
static void pack_B(const Product& p, int64_t j0, int64_t cols, int64_t k0, int64_t k, uint16_t* packed,
                   float* sums) {
  if (p.B_layout == Layout::transposed)
    pack_all<parts, true, true, false>({p.B + j0 * p.B_stride + k0, p.B_stride, cols, k, packed}, nullptr);
  else if (sums)
    pack_all<parts, false, false, true>({p.B + k0 * p.B_stride + j0, p.B_stride, cols, k, packed}, sums);
  else
    pack_all<parts, false, false, false>({p.B + k0 * p.B_stride + j0, p.B_stride, cols, k, packed}, nullptr);
}

// What is done bit by bit while tiles are multiplied: the block of C before this one is finished, and then the next
// strip of A is packed.
template <int parts>
class Aside {
 public:
  explicit Aside(const Product& p) : p_(p) {}
  Aside(const Aside&) = delete;
  Aside& operator=(const Aside&) = delete;

  // A[i0.., k0..], after what was to be packed before.
  void pack_later(int64_t i0, int64_t rows, int64_t k0, int64_t k, uint16_t* packed) {
    pack_now();
    const bool plain = p_.A_layout == Layout::plain;
    A_ = {p_.A + (plain ? i0 * p_.A_stride + k0 : k0 * p_.A_stride + i0), p_.A_stride, rows, k, packed};
    pack_ = plain ? pack_one<parts, true, false, false> : pack_one<parts, false, true, false>;
    tile_ = 0;
    deep_ = ceil_div(k, tile_depth);
    tiles_ = ceil_div(rows, tile_side) * deep_;
  }

  void pack_now() {
    while (tile_ < tiles_) pack_next();
  }

  // The block at row i0 and column j0 from its sums z, after the one that was to be finished before.
  void finish_later(int64_t i0, int64_t j0, const float* z, int64_t rows, int64_t cols) {
    finish_now();
    z_ = z;
    at_ = i0 * p_.N + j0;
    rows_ = rows;
    cols_ = cols;
  }

  void finish_now() {
    while (rows_ > 0) finish_next();
  }

  void operator()() {
    if (rows_ > 0)
      finish_next();
    else if (tile_ < tiles_)
      pack_next();
  }

 private:
  void pack_next() {
    pack_(A_, tile_ / deep_, tile_ % deep_, nullptr);
    ++tile_;
  }

  void finish_next() {
    constexpr int64_t few = 8;
    p_.consume(p_.context, z_, block_side, at_, p_.N, smaller(few, rows_), cols_);
    z_ += few * block_side;
    at_ += few * p_.N;
    rows_ -= few;
  }

  const Product& p_;
  Operand A_ = {};
  void (*pack_)(const Operand&, int64_t, int64_t, float*) = nullptr;
  int64_t tile_ = 0, tiles_ = 0, deep_ = 1;
  const float* z_ = nullptr;
  int64_t at_ = 0, rows_ = 0, cols_ = 0;
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
  float* z[2];         // sums of a block and of the one before
};

// Memory for packed tiles that only grows, one for each thread that calls.
class PackingScratch {
 public:
  PackingScratch() = default;
  PackingScratch(const PackingScratch&) = delete;
  PackingScratch& operator=(const PackingScratch&) = delete;
  ~PackingScratch() { std::free(data_); }

  uint16_t* tiles(int64_t count) {
    if (count > count_) {
      std::free(data_);
      data_ = static_cast<uint16_t*>(std::aligned_alloc(64, static_cast<size_t>(count * tile_size) * sizeof(uint16_t)));
      count_ = data_ ? count : 0;
      if (!data_) throw std::bad_alloc();
    }
    return data_;
  }

 private:
  uint16_t* data_ = nullptr;
  int64_t count_ = 0;
};

static thread_local PackingScratch packing_scratch;

// k in [k0, k0 + k) of one product.
struct Slice {
  int64_t k0, k, tiles;
  bool first, last;
};

template <int parts>
static void compute_block(const Product& p, const Slice& slice, int64_t i0, int64_t j0, const uint16_t* a,
                          const uint16_t* b, const float* bias, float* z, Aside<parts>& aside) {
  const int64_t rows = smaller(block_side, p.M - i0), cols = smaller(block_side, p.N - j0);
  const auto block = pick_block<parts, Aside<parts>>(ceil_div(rows, tile_side), ceil_div(cols, tile_side));
  float* c = p.C + i0 * p.N + j0;
  const bool finish = slice.last && p.consume;
  if (rows % tile_side == 0 && cols % tile_side == 0 && !finish) {
    block(slice.tiles, a, b, c, p.N, slice.first ? bias : c, slice.first ? 0 : p.N, aside);
    return;
  }
  if (!slice.first) copy_rows(c, p.N, z, block_side, rows, cols);
  block(slice.tiles, a, b, z, block_side, slice.first ? bias : z, slice.first ? 0 : block_side, aside);
  if (finish)
    aside.finish_later(i0, j0, z, rows, cols);
  else
    copy_rows(z, block_side, c, p.N, rows, cols);
}

// Strip i of the part's, whose A is packed, against the columns of blocks from `low` to `high`.
template <int parts>
static void compute_strip(const Product& p, const Slice& slice, int64_t i, int64_t low, int64_t high,
                          const Packed& packed, Aside<parts>& aside) {
  for (int64_t j = 0; j < high - low; ++j)
    compute_block<parts>(p, slice, i * block_side, (low + j) * block_side, packed.A[i % 2],
                         packed.B + j * 2 * slice.tiles * parts * tile_size, packed.bias + j * block_side,
                         packed.z[j % 2], aside);
  aside.finish_now();
}

template <int parts>
static void compute_part(const Product& p, const Part& part, const Packed& packed) {
  const int64_t deep = ceil_div(p.K, tile_depth);
  const int64_t slices = larger(1, ceil_div(deep, max_depth<parts>));  // K = 0: one without terms, for the bias
  const bool with_sums = p.column_sums && part.has_sums;
  Aside<parts> aside(p);
  if (part.row == part.row_end && !with_sums) return;
  for (int64_t low = part.column; low < part.column_end; low += max_panels) {
    const int64_t high = smaller(low + max_panels, part.column_end);
    const int64_t j0 = low * block_side, cols = smaller(high * block_side, p.N) - j0;
    for (int64_t j = 0; j < (high - low) * block_side; ++j) packed.bias[j] = p.bias && j < cols ? p.bias[j0 + j] : 0;
    if (with_sums)
      for (int64_t j = j0; j < j0 + cols; ++j) p.column_sums[j] = 0;
    for (int64_t s = 0; s < slices; ++s) {
      const int64_t k0 = deep * s / slices * tile_depth, k1 = smaller(deep * (s + 1) / slices * tile_depth, p.K);
      const Slice slice = {k0, k1 - k0, ceil_div(k1 - k0, tile_depth), s == 0, s + 1 == slices};
      pack_B<parts>(p, j0, cols, k0, slice.k, packed.B, with_sums ? p.column_sums + j0 : nullptr);
      const auto pack_strip = [&](int64_t i) {
        if (i < part.row_end)
          aside.pack_later(i * block_side, smaller(block_side, p.M - i * block_side), k0, slice.k, packed.A[i % 2]);
      };
      pack_strip(part.row);
      for (int64_t i = part.row; i < part.row_end; ++i) {
        aside.pack_now();
        pack_strip(i + 1);
        compute_strip<parts>(p, slice, i, low, high, packed, aside);
      }
    }
  }
}

// --- all of it -----------------------------------------------------------------------------------------------------

// Rough nanoseconds of one core for so many blocks: sums, packing of both operands, C.
template <int parts>
static double part_work(int64_t rows, int64_t columns, int64_t K) {
  const double m = static_cast<double>(rows * block_side), n = static_cast<double>(columns * block_side);
  constexpr double products = std::size(terms<parts>);
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

template <int parts>
static void multiply_bf16(const Product& p) {
  const int64_t rows = ceil_div(p.M, block_side), columns = ceil_div(p.N, block_side);
  const int threads = threads_for(part_work<parts>(rows, columns, p.K));
  const int r_parts = row_parts<parts>(threads, rows, columns, p.K), c_parts = threads / r_parts;
  const int64_t depth = larger(1, smaller(ceil_div(p.K, tile_depth), max_depth<parts>));
  const int64_t A_tiles = 4 * depth * parts;
  const int64_t B_tiles = 2 * depth * parts * smaller(max_panels, ceil_div(columns, c_parts));
  uint16_t* scratch = packing_scratch.tiles(threads * (A_tiles + B_tiles));
  parallel(threads, [&](int t) {
    const int64_t r = t / c_parts, c = t % c_parts;
    const Part part = {rows * r / r_parts, rows * (r + 1) / r_parts, columns * c / c_parts, columns * (c + 1) / c_parts,
                       r == 0};
    uint16_t* mine = scratch + t * (A_tiles + B_tiles) * tile_size;
    alignas(64) float bias[max_panels * block_side];
    alignas(64) float z[2][block_side * block_side];
    const BlockUnit unit;
    uint16_t* const B = mine + A_tiles * tile_size;
    compute_part<parts>(p, part, {{mine, mine + A_tiles / 2 * tile_size}, B, bias, {z[0], z[1]}});
  });
}

}  // namespace minigen::MINIGEN_ISA
