// Operands of the matrix product in bf16 on their way into tiles: see gemm_bf16.hpp.
#pragma once

#include <immintrin.h>

#include "block_bf16.hpp"
#include "product.hpp"
#include "vector.hpp"

namespace minigen::MINIGEN_ISA {

static inline __mmask16 first_lanes(int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xffff : count <= 0 ? 0 : (1 << count) - 1);
}

// The 16 x 16 matrix of floats whose rows are v becomes its transpose.
static inline __attribute__((always_inline)) void transpose_floats(__m512 v[16]) {
  __m512 t[16];
#pragma GCC unroll 4
  for (int g = 0; g < 16; g += 4) {  // within quads: four rows become four columns
    const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(v[g], v[g + 1]));
    const __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(v[g], v[g + 1]));
    const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(v[g + 2], v[g + 3]));
    const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(v[g + 2], v[g + 3]));
    t[g] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
    t[g + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
    t[g + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
    t[g + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
  }
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {  // the quads themselves
    const __m512 a = _mm512_shuffle_f32x4(t[r], t[r + 4], 0x88), b = _mm512_shuffle_f32x4(t[r], t[r + 4], 0xdd);
    const __m512 c = _mm512_shuffle_f32x4(t[r + 8], t[r + 12], 0x88);
    const __m512 d = _mm512_shuffle_f32x4(t[r + 8], t[r + 12], 0xdd);
    v[r] = _mm512_shuffle_f32x4(a, c, 0x88);
    v[r + 4] = _mm512_shuffle_f32x4(b, d, 0x88);
    v[r + 8] = _mm512_shuffle_f32x4(a, c, 0xdd);
    v[r + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
  }
}

// One row of a tile, all parts of it: pairs of an element of `low` and one of `high`. One part is the nearest bf16. Of
// three, the first two are cut off: exact, and what is left fits into the third.
template <int parts>
static inline __attribute__((always_inline)) void pack_row(__m512 low, __m512 high, uint16_t* to) {
  if constexpr (parts == 1) {
    const __m512i zip = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __m512i rounded = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
    _mm512_store_si512(to, _mm512_permutexvar_epi16(zip, rounded));
  } else {
    const __m512i upper_half = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
    constexpr int a_and_b_or_c = 0xea;
#pragma GCC unroll 3
    for (int part = 0; part < parts; ++part) {
      const __m512i l = _mm512_castps_si512(low), h = _mm512_castps_si512(high);
      const __m512i pairs = _mm512_ternarylogic_epi32(h, upper_half, _mm512_srli_epi32(l, 16), a_and_b_or_c);
      _mm512_store_si512(to + part * tile_size, pairs);
      low = _mm512_sub_ps(low, _mm512_castsi512_ps(_mm512_and_si512(l, upper_half)));
      high = _mm512_sub_ps(high, _mm512_castsi512_ps(_mm512_and_si512(h, upper_half)));
    }
  }
}

// An operand, or a part of it: `n` rows of A or columns of B by `k`. Its tile (s, t), of rows or columns from 16 s on
// and k from 32 t on, is packed as number s * ceil(k / 32) + t, all its parts.
struct Operand {
  const float* from;
  int64_t stride, n, k;
  uint16_t* packed;
  float scale = 1;         // of the elements, where the packing scales
  int64_t whole_rows = 0;  // the first rows in memory, which are whole numbers once scaled but for rounding
  float* sums = nullptr;   // where wanted, those of B's columns are added to these
};

// An operand on its way into tiles, a few rows of a tile at a step. Along: k runs along the rows of the matrix, and a
// tile comes from 16 rows of 32; else k counts the rows, and it comes from 32 rows of 16. Either way from two halves of
// 16 x 16, and a pair is k and k + 16: a vector of floats from each becomes one of pairs without any element changing
// its place. Transpose: the rows of the tile are columns of the halves, which are turned before.
//
// Where to read and to write next is kept and not computed from a number: tiles are loaded far ahead, unless there are
// stores before them whose addresses are not known yet.
class Packing {
 public:
  template <int parts, int few, bool along, bool transpose, bool with_sums, bool scaled>
  void start(const Operand& o) {
    step_ = step<parts, few, along, transpose, with_sums, scaled>;
    o_ = o;
    to_ = o.packed;
    deep_ = ceil_div(o.k, tile_depth);
    n_ = o.k > 0 ? o.n : 0;
    k_ = o.k;
    row_ = transpose ? -2 : 0;
    find_edges<along>();
  }

  bool done() const { return n_ <= 0; }

  void steps(int count) {
    for (int i = 0; i < count && !done(); ++i) step_(*this);
  }
  void all() {
    while (!done()) step_(*this);
  }

  // How many steps a tile takes, of `few` rows each.
  static constexpr int tile_steps(int few, bool transpose) {
    return static_cast<int>(tile_side) / few + (transpose ? 2 : 0);
  }

 private:
  template <bool along>
  void find_edges() {
    whole_ = n_ >= tile_side && k_ >= tile_depth;
    rows_ = along ? n_ : k_;
    cols_ = along ? k_ : n_;
  }

  // Row i of a half of the tile, as it lies in memory; zeros past the end of the matrix.
  template <bool along>
  __m512 read(int64_t half, int64_t i) const {
    const int64_t r = along ? i : 16 * half + i, c = along ? 16 * half : 0;
    const float* p = o_.from + r * o_.stride + c;
    if (whole_) return _mm512_loadu_ps(p);
    return r < rows_ ? _mm512_maskz_loadu_ps(first_lanes(cols_ - c), p) : _mm512_setzero_ps();
  }

  template <int parts, bool along, bool scaled>
  __m512 scale(__m512 x, int64_t half, int64_t i) const {
    if (!scaled) return x;
    x = _mm512_mul_ps(x, _mm512_set1_ps(o_.scale));
    return parts > 1 && (along ? i : 16 * half + i) < o_.whole_rows ? _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT)
                                                                    : x;
  }

  template <int parts, int few, bool along, bool transpose, bool with_sums, bool scaled>
  static void step(Packing& p) {
    if (transpose && p.row_ < 0) return p.turn_half<parts, along, scaled>();
    __m512 sum = _mm512_setzero_ps();
#pragma GCC unroll 16
    for (int64_t i = p.row_; i < p.row_ + few; ++i) {
      uint16_t* const to = p.to_ + i * tile_depth;
      if (transpose) {
        pack_row<parts>(_mm512_load_ps(p.turned_[0][i]), _mm512_load_ps(p.turned_[1][i]), to);
        continue;
      }
      const __m512 low = p.read<along>(0, i), high = p.read<along>(1, i);
      pack_row<parts>(p.scale<parts, along, scaled>(low, 0, i), p.scale<parts, along, scaled>(high, 1, i), to);
      if (with_sums) sum = _mm512_add_ps(sum, _mm512_add_ps(low, high));
      // So many rows at once are too much for the CPU's own prefetching. Past the end of the matrix nothing happens.
      const int64_t ahead = (i * p.o_.stride + 2 * tile_depth) * static_cast<int64_t>(sizeof(float));
      __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<intptr_t>(p.o_.from) + ahead));
    }
    if (with_sums) {
      const __mmask16 lanes_used = first_lanes(p.n_);
      const __m512 before = _mm512_maskz_loadu_ps(lanes_used, p.o_.sums);
      _mm512_mask_storeu_ps(p.o_.sums, lanes_used, _mm512_add_ps(before, sum));
    }
    p.row_ += few;
    if (p.row_ == tile_side) p.next_tile<parts, along, transpose, with_sums>();
  }

  // Rows -2 and -1 stand for the halves.
  template <int parts, bool along, bool scaled>
  void turn_half() {
    const int64_t half = row_++ + 2;
    __m512 v[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) v[i] = scale<parts, along, scaled>(read<along>(half, i), half, i);
    transpose_floats(v);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) _mm512_store_ps(turned_[half][i], v[i]);
  }

  // In the order of memory: along k, or along the columns.
  template <int parts, bool along, bool transpose, bool with_sums>
  void next_tile() {
    row_ = transpose ? -2 : 0;
    along ? next_along<parts>() : next_across<parts, with_sums>();
    find_edges<along>();
  }

  template <int parts>
  void next_along() {
    to_ += parts * tile_size;
    o_.from += tile_depth;
    k_ -= tile_depth;
    if (k_ > 0) return;
    k_ = o_.k;
    o_.from += tile_side * o_.stride - deep_ * tile_depth;
    o_.whole_rows -= tile_side;
    n_ -= tile_side;
  }

  template <int parts, bool with_sums>
  void next_across() {
    to_ += deep_ * parts * tile_size;
    o_.from += tile_side;
    if (with_sums) o_.sums += tile_side;
    n_ -= tile_side;
    if (n_ > 0) return;
    const int64_t wide = ceil_div(o_.n, tile_side);
    to_ += (1 - wide * deep_) * parts * tile_size;
    o_.from += tile_depth * o_.stride - wide * tile_side;
    if (with_sums) o_.sums -= wide * tile_side;
    o_.whole_rows -= tile_depth;
    k_ -= tile_depth;
    if (k_ > 0) n_ = o_.n;
  }

  void (*step_)(Packing&) = nullptr;
  Operand o_ = {};
  uint16_t* to_ = nullptr;
  int64_t deep_ = 0, n_ = 0, k_ = 0, row_ = 0, rows_ = 0, cols_ = 0;
  bool whole_ = false;
  alignas(64) float turned_[2][16][16];
};

}  // namespace minigen::MINIGEN_ISA
