// A block of C = C0 + A B from packed tiles of bf16, up to 2 x 2 tiles of 16 x 16 sums, on AMX or AVX512-BF16.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <iterator>
#include <utility>

#include "vector.hpp"

namespace minigen::MINIGEN_ISA {

constexpr int64_t tile_side = 16, tile_depth = 32;
constexpr int64_t tile_size = tile_side * tile_depth;

// An operand is one bf16, or the sum of three, whose 24 bits are those of a float32. Of their nine products the three
// smallest are left out: float32 would round them away. The others in an order in which one tile stays where it is.
struct Term {
  int a, b;  // part of A, part of B: 0 is the largest
};
template <int a_parts, int b_parts>
constexpr Term terms[] = {{0, 0}};
template <>
constexpr Term terms<1, 3>[] = {{0, 2}, {0, 1}, {0, 0}};
template <>
constexpr Term terms<3, 3>[] = {{0, 2}, {0, 1}, {0, 0}, {2, 0}, {1, 0}, {1, 1}};

// Rows x Cols tiles of sums over k, `tiles` of 32. Part p of tile t of A's tile row r is number
// (r * tiles + t) * a_parts + p; so is B's. C0 may be C, or null for zeros; with c0_stride = 0 it is one row for all.
// Where tiles are multiplied by a unit of their own, aside() is called for each term: the rest of the core has that
// time for other work.
template <class Aside>
using Block = void (*)(int64_t tiles, const uint16_t* a, const uint16_t* b, float* c, int64_t c_stride, const float* c0,
                       int64_t c0_stride, Aside& aside);

#if defined(__AMX_BF16__)

constexpr double block_flops_per_ns = 2000;  // of one core, roughly: decides about threads

// The tile registers, 16 rows of 64 bytes each, while a thread needs them. Afterwards they are empty, so that the
// system has nothing to save.
class BlockUnit {
 public:
  BlockUnit() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } shape;
    static_assert(sizeof shape == 64);
    __asm__ volatile("" ::"r"(&shape) : "memory");  // GCC's intrinsics do not say that they read memory
    _tile_loadconfig(&shape);
  }
  ~BlockUnit() { _tile_release(); }
  BlockUnit(const BlockUnit&) = delete;
  BlockUnit& operator=(const BlockUnit&) = delete;
};

// Registers 0 to 3 are sums, 4 and 5 tiles of A, 6 and 7 of B.
template <int a_parts, int b_parts, int Rows, int Cols, class Aside>
static void block(int64_t tiles, const uint16_t* a, const uint16_t* b, float* c, int64_t c_stride, const float* c0,
                  int64_t c0_stride, Aside& aside) {
  constexpr int64_t floats = sizeof(float);
  __asm__ volatile("" ::: "memory");  // what was packed has to be there: see BlockUnit
  if (c0) {
    _tile_loadd(0, c0, c0_stride * floats);
    if (Cols == 2) _tile_loadd(1, c0 + tile_side, c0_stride * floats);
    if (Rows == 2) _tile_loadd(2, c0 + tile_side * c0_stride, c0_stride * floats);
    if (Rows == 2 && Cols == 2) _tile_loadd(3, c0 + tile_side * c0_stride + tile_side, c0_stride * floats);
  } else {
    _tile_zero(0);
    if (Cols == 2) _tile_zero(1);
    if (Rows == 2) _tile_zero(2);
    if (Rows == 2 && Cols == 2) _tile_zero(3);
  }

  const int64_t next_a = tiles * a_parts * tile_size, next_b = tiles * b_parts * tile_size;
  const auto multiply = [&](auto number) __attribute__((always_inline)) {
    constexpr int n = number.value;
    constexpr Term term = terms<a_parts, b_parts>[n], before = terms<a_parts, b_parts>[n ? n - 1 : 0];
    const uint16_t *at = a + term.a * tile_size, *bt = b + term.b * tile_size;
    aside();
    if (n == 0 || term.a != before.a) {
      _tile_loadd(4, at, 64);
      if (Rows == 2) _tile_loadd(5, at + next_a, 64);
    }
    if (n == 0 || term.b != before.b) {
      _tile_stream_loadd(6, bt, 64);  // the next rows need A again before they need this
      if (Cols == 2) _tile_stream_loadd(7, bt + next_b, 64);
    }
    _tile_dpbf16ps(0, 4, 6);
    if (Cols == 2) _tile_dpbf16ps(1, 4, 7);
    if (Rows == 2) _tile_dpbf16ps(2, 5, 6);
    if (Rows == 2 && Cols == 2) _tile_dpbf16ps(3, 5, 7);
  };
  const auto multiply_all = [&]<int... n>(std::integer_sequence<int, n...>)
                                __attribute__((always_inline)) { (multiply(std::integral_constant<int, n>()), ...); };
  for (int64_t t = 0; t < tiles; ++t, a += a_parts * tile_size, b += b_parts * tile_size)
    multiply_all(std::make_integer_sequence<int, std::size(terms<a_parts, b_parts>)>());

  _tile_stored(0, c, c_stride * floats);
  if (Cols == 2) _tile_stored(1, c + tile_side, c_stride * floats);
  if (Rows == 2) _tile_stored(2, c + tile_side * c_stride, c_stride * floats);
  if (Rows == 2 && Cols == 2) _tile_stored(3, c + tile_side * c_stride + tile_side, c_stride * floats);
  __asm__ volatile("" ::: "memory");
}

#else

constexpr double block_flops_per_ns = 100;

struct BlockUnit {
  BlockUnit() {}  // nothing to prepare
};

typedef int32_t Pair __attribute__((may_alias));  // two bf16

// Eight rows at a time: 16 sums in registers, an element of A is broadcast with its pair.
template <int a_parts, int b_parts, int Rows, int Cols, class Aside>
static void block(int64_t tiles, const uint16_t* a, const uint16_t* b, float* c, int64_t c_stride, const float* c0,
                  int64_t c0_stride, Aside&) {
  constexpr int group = 8;
  for (int64_t low = 0; low < Rows * tile_side; low += group) {
    __m512 sum[group][Cols];
#pragma GCC unroll 8
    for (int i = 0; i < group; ++i)
#pragma GCC unroll 2
      for (int j = 0; j < Cols; ++j)
        sum[i][j] = c0 ? _mm512_loadu_ps(c0 + (low + i) * c0_stride + j * tile_side) : _mm512_setzero_ps();
    for (int64_t t = 0; t < tiles; ++t)
      for (const Term& term : terms<a_parts, b_parts>) {
        const int64_t row = low / tile_side, inside = low % tile_side;
        const uint16_t* at = a + ((row * tiles + t) * a_parts + term.a) * tile_size + inside * tile_depth;
        const uint16_t* bt = b + (t * b_parts + term.b) * tile_size;
#pragma GCC unroll 2
        for (int pair = 0; pair < tile_depth / 2; ++pair) {
          __m512i bk[Cols];
#pragma GCC unroll 2
          for (int j = 0; j < Cols; ++j)
            bk[j] = _mm512_load_si512(bt + j * tiles * b_parts * tile_size + pair * tile_depth);
#pragma GCC unroll 8
          for (int i = 0; i < group; ++i) {
            const __m512i aik = _mm512_set1_epi32(*reinterpret_cast<const Pair*>(at + i * tile_depth + 2 * pair));
#pragma GCC unroll 2
            for (int j = 0; j < Cols; ++j)
              sum[i][j] =
                  _mm512_dpbf16_ps(sum[i][j], reinterpret_cast<__m512bh>(bk[j]), reinterpret_cast<__m512bh>(aik));
          }
        }
      }
#pragma GCC unroll 8
    for (int i = 0; i < group; ++i)
#pragma GCC unroll 2
      for (int j = 0; j < Cols; ++j) _mm512_storeu_ps(c + (low + i) * c_stride + j * tile_side, sum[i][j]);
  }
}

#endif

// For 1 or 2 rows and columns of tiles.
template <int a_parts, int b_parts, class Aside>
static inline Block<Aside> pick_block(int64_t rows, int64_t cols) {
  static constexpr Block<Aside> blocks[2][2] = {
      {block<a_parts, b_parts, 1, 1, Aside>, block<a_parts, b_parts, 1, 2, Aside>},
      {block<a_parts, b_parts, 2, 1, Aside>, block<a_parts, b_parts, 2, 2, Aside>}};
  return blocks[rows - 1][cols - 1];
}

}  // namespace minigen::MINIGEN_ISA
