// The matrix product that the dense operation stands on, C = act(A B + bias) or C = (A B) * d with d
// the activation's derivative computed from its stored output X, for one instruction set.
//
// C is cut into panels of a few vectors' width and these into tiles of a dozen rows. A tile of C stays in registers
// while k runs: each step loads one row of B's panel, broadcasts one element of A for each row of the tile and does one
// fused multiply-add for each vector of the tile. B is packed panel by panel, so that its loads are contiguous and free
// of cache-set conflicts. A is read where it lies, along its rows or its columns, or packed too if that pays.
//
// Every element of C is summed by one accumulator over increasing k, in whichever tile and thread it falls: the result
// does not depend on the number of threads. The layers (a panel of B in L1, a block of A in L2) are those of Goto and
// van de Geijn, "Anatomy of high-performance matrix multiplication", ACM TOMS 34(3), 2008.
#pragma once

#include "split_k.hpp"
#include "product.hpp"
#include "threads.hpp"
#include "vector.hpp"

namespace minigen::MINIGEN_ISA {

// A tile's sums, one row of the panel and one broadcast have to fit into the registers.
constexpr int tile_rows = has_32_registers ? 12 : 6;      // for panels of up to two vectors
constexpr int wide_tile_rows = has_32_registers ? 8 : 4;  // for panels of three
constexpr int max_vectors = 3;
constexpr int max_width = max_vectors * lanes;

constexpr int64_t block_k = lanes == 16 ? 384 : 400;  // rows of a packed panel: 48 KiB with AVX-512, else at most 25
// Rows of A, or half as many more, that one panel after the other reuses from L2.
constexpr int64_t block_rows = lanes == 16 ? 384 : 192;
constexpr int steps = 8;             // of a tile for each row of memory that it asks for ahead
constexpr int64_t direct_tiles = 2;  // with no more tiles than these, packing B costs more than it saves

// --- the tile ------------------------------------------------------------------------------------------------------

// Rows of memory that will be needed next. A tile asks for them one by one while it computes: asking for all at once
// would stop it, because a core can only wait for a dozen cache lines at a time. They may run past the end of a matrix
// (the CPU ignores what is not there), so they are numbers, not pointers.
struct Ahead {
  static constexpr int64_t fetched = 2 * lanes;  // floats, by one fetch
  uintptr_t row, stride;

  Ahead(const float* matrix, int64_t offset, int64_t row_stride)
      : row(reinterpret_cast<uintptr_t>(matrix) + static_cast<uintptr_t>(offset) * sizeof(float)),
        stride(static_cast<uintptr_t>(row_stride) * sizeof(float)) {}

  // What a panel of two vectors has of a row, and on to the next. `write` takes it away from other cores, which is what
  // a store would wait longest for.
  template <int write, int level>
  void fetch() {
    constexpr uintptr_t last = smaller(64, (fetched - 1) * sizeof(float));  // one cache line or two
    __builtin_prefetch(reinterpret_cast<const void*>(row), write, level);
    __builtin_prefetch(reinterpret_cast<const void*>(row + last), write, level);
    row += stride;
  }
};

struct Streams {
  Ahead written, read, also_written;
};

// Rows x (Vectors * lanes) of C = (C0 + A B) * scale. C0 may be C; with c0_stride = 0 it is one row, the bias, for all
// rows. `scale` has rows of max_width; it may be null.
template <int Rows, int Vectors, Layout layout>
static void tile(int64_t K, const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* c,
                 int64_t c_stride, const float* c0, int64_t c0_stride, const float* scale, const Streams& streams) {
  Ahead written = streams.written, read = streams.read, also_written = streams.also_written;
  Vector sum[Rows][Vectors];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) sum[i][v] = load(c0 + i * c0_stride + v * lanes);

  // A pointer for every three rows: with the addresses p, p + stride, p + 2 stride twelve rows need five registers.
  constexpr int groups = (Rows + 2) / 3;
  const float* row[groups];
#pragma GCC unroll 16
  for (int g = 0; g < groups; ++g) row[g] = a + 3 * g * a_stride;

  const auto step = [&]() __attribute__((always_inline)) {
    Vector bk[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) bk[v] = load(b + v * lanes);
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      const float aik = layout == Layout::plain ? row[i / 3][i % 3 * a_stride] : a[i];
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) sum[i][v] += bk[v] * aik;
    }
    b += b_stride;
    a += a_stride;
#pragma GCC unroll 16
    for (int g = 0; g < groups; ++g) ++row[g];
  };
  int64_t k = 0;
  for (; k + steps <= K; k += steps) {
#pragma GCC unroll 8
    for (int u = 0; u < steps; ++u) step();
    written.fetch<1, 3>();
    read.fetch<0, 2>();
    also_written.fetch<1, 3>();
  }
#pragma GCC unroll 1
  for (; k < K; ++k) step();

  if (scale)
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) sum[i][v] *= load(scale + i * max_width + v * lanes);

#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) store(c + i * c_stride + v * lanes, sum[i][v]);
}

using Tile = decltype(&tile<1, 1, Layout::plain>);

template <int Vectors, Layout layout, int... I>
static Tile pick_rows(int64_t rows, std::integer_sequence<int, I...>) {
  static constexpr Tile tiles[] = {tile<I + 1, Vectors, layout>...};
  return tiles[rows - 1];
}

template <Layout layout>
static Tile pick_tile(int64_t rows, int64_t vectors) {
  if (vectors == 1) return pick_rows<1, layout>(rows, std::make_integer_sequence<int, tile_rows>());
  if (vectors == 2) return pick_rows<2, layout>(rows, std::make_integer_sequence<int, tile_rows>());
  return pick_rows<3, layout>(rows, std::make_integer_sequence<int, wide_tile_rows>());
}

// --- packing -------------------------------------------------------------------------------------------------------
// A packed panel holds B(k, j) at panel[k * width + j], where width is `cols` rounded up to whole vectors. What fills
// it up is computed with and never stored, so it may be anything.

// From a plain B. With `with_sums`, adds the sums of the columns to `sums`.
template <int Vectors, bool with_sums>
static void pack_plain(const float* b, int64_t stride, int64_t rows, int64_t cols, float* panel, float* sums) {
  const int64_t last = cols - (Vectors - 1) * lanes;
  constexpr int chains = 4;  // additions wait for each other: four sums hide that
  Vector sum[chains][Vectors] = {};
  for (int64_t k = 0; k < rows; k += chains)
#pragma GCC unroll 4
    for (int u = 0; u < chains; ++u) {
      if (k + u == rows) break;
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) {
        const float* from = b + (k + u) * stride + v * lanes;
        const Vector x = v < Vectors - 1 || last == lanes ? load(from) : load_first(from, last);
        store(panel + ((k + u) * Vectors + v) * lanes, x);
        if (with_sums) sum[u][v] += x;
      }
    }
  if (!with_sums) return;
  for (int v = 0; v < Vectors; ++v) {
    const int64_t count = v < Vectors - 1 ? lanes : last;
    const Vector total = (sum[0][v] + sum[1][v]) + (sum[2][v] + sum[3][v]);
    store_first(sums + v * lanes, load_first(sums + v * lanes, count) + total, count);
  }
}

// From a transposed B: blocks of `lanes` columns and 4 rows go through registers.
static void pack_transposed(const float* b, int64_t stride, int64_t rows, int64_t cols, float* panel, int64_t width) {
  const int64_t whole_rows = rows / 4 * 4;
  const int64_t whole_cols = cols / lanes * lanes;
  for (int64_t j = 0; j < whole_cols; j += lanes)
    for (int64_t k = 0; k < whole_rows; k += 4) {
      Vector v[4];
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) v[r] = load_quads(b + (j + r) * stride + k, 4 * stride);
      transpose_quads(v);
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) store(panel + (k + r) * width + j, v[r]);
    }
  for (int64_t j = 0; j < cols; ++j)
    for (int64_t k = j < whole_cols ? whole_rows : 0; k < rows; ++k) panel[k * width + j] = b[j * stride + k];
}

// `b` is where the panel's part of p.B begins. A plain one's columns are added to `sums` unless that is null.
static void pack_panel(const Product& p, const float* b, int64_t rows, int64_t cols, float* panel, float* sums) {
  constexpr decltype(&pack_plain<1, false>) plain[max_vectors][2] = {
      {pack_plain<1, false>, pack_plain<1, true>},
      {pack_plain<2, false>, pack_plain<2, true>},
      {pack_plain<3, false>, pack_plain<3, true>},
  };
  const int64_t vectors = ceil_div(cols, lanes);
  if (p.B_layout == Layout::plain)
    plain[vectors - 1][sums != nullptr](b, p.B_stride, rows, cols, panel, sums);
  else
    pack_transposed(b, p.B_stride, rows, cols, panel, vectors * lanes);
}

static thread_local Scratch<float> packed_A, packed_B;  // null: packs nothing

// --- one thread's share --------------------------------------------------------------------------------------------

// The cut of C, the same for all threads. Heights of tiles differ by one row at most, and their number is one that
// `shares` divides.
struct Grid {
  int64_t vectors, panel_vectors, panels, tiles, low_rows, high_tiles;

  explicit Grid(const Product& p, int shares = 1) {
    vectors = ceil_div(p.N, lanes);
    panel_vectors = vectors == 3 ? 3 : 2;
    panels = ceil_div(vectors, panel_vectors);
    tiles = larger(1, ceil_div(p.M, vectors == 3 ? wide_tile_rows : tile_rows));  // M = 0: one, for the column sums
    tiles = ceil_div(tiles, shares) * shares;
    low_rows = p.M / tiles;
    high_tiles = p.M % tiles;
  }

  int64_t row_of(int64_t tile) const { return tile * low_rows + smaller(tile, high_tiles); }
};

// A run of tiles in the order of panels, then rows, of which only the rows [low, high) are meant.
struct Share {
  int64_t first_panel, first_tile, last_panel, last_tile;
  int64_t low, high;
};

// Part `t` of all tiles in their order, weighed by their width: even, however few the panels.
static Share share_in_order(const Grid& grid, int64_t t, int64_t threads) {
  Share share = {0, 0, 0, 0, 0, grid.tiles};
  const auto place = [&](int64_t part, int64_t& panel, int64_t& tile) {
    const int64_t cost = grid.tiles * grid.vectors * part / threads;
    panel = cost / (grid.tiles * grid.panel_vectors);
    const int64_t width = larger(1, smaller(grid.panel_vectors, grid.vectors - panel * grid.panel_vectors));
    tile = cost % (grid.tiles * grid.panel_vectors) / width;
  };
  place(t, share.first_panel, share.first_tile);
  place(t + 1, share.last_panel, share.last_tile);
  if (share.last_tile == 0) {  // nothing of that panel, all of the one before
    --share.last_panel;
    share.last_tile = grid.tiles;
  }
  return share;
}

// Part `t` of the rows, all panels of it.
static Share share_of_rows(const Grid& grid, int64_t t, int64_t threads) {
  return {0, 0, grid.panels - 1, grid.tiles, grid.tiles * t / threads, grid.tiles * (t + 1) / threads};
}

// k in [k0, k1), and what of it is packed, or null: A's tiles from `first_tile` on, B's panels from `first_panel` on.
struct Block {
  int64_t k0, k1, first_tile, first_panel;
  const float *A, *B;
};

static void compute_tile(const Product& p, const Grid& grid, const Block& block, int64_t t, int64_t j0, int64_t cols,
                         const float* b, int64_t b_stride, const float* bias, const Streams& streams) {
  const int64_t K = block.k1 - block.k0;
  const int64_t i0 = grid.row_of(t);
  const int64_t rows = grid.row_of(t + 1) - i0;
  if (rows == 0) return;

  const bool plain = p.A_layout == Layout::plain;
  const float* a = plain ? p.A + i0 * p.A_stride + block.k0 : p.A + block.k0 * p.A_stride + i0;
  int64_t a_stride = p.A_stride;
  if (block.A) {
    a = block.A + (t - block.first_tile) * tile_rows * (K + lanes);
    a_stride = plain ? K + lanes : tile_rows;
  }

  const int64_t vectors = ceil_div(cols, lanes);
  const Tile run = plain ? pick_tile<Layout::plain>(rows, vectors) : pick_tile<Layout::transposed>(rows, vectors);
  const bool first = block.k0 == 0, last = block.k1 == p.K;
  alignas(64) float edge[tile_rows * max_width];
  alignas(64) float derivative[tile_rows * max_width];
  float* c = p.C + i0 * p.N + j0;

  // Before the tile, so that it overlaps with the sums instead of waiting for them.
  const float* scale = nullptr;
  if (p.differentiate && last) {
    p.differentiate(p.X + i0 * p.N + j0, p.N, derivative, max_width, rows, cols);
    scale = derivative;
  }
  const Activate activate = last ? p.activate : nullptr;
  const bool consume = p.consume && last;
  if (cols == vectors * lanes && !activate && !consume) {
    run(K, a, a_stride, b, b_stride, c, p.N, first ? bias : c, first ? 0 : p.N, scale, streams);
    return;
  }
  if (!first) copy_rows(c, p.N, edge, max_width, rows, cols);
  run(K, a, a_stride, b, b_stride, edge, max_width, first ? bias : edge, first ? 0 : max_width, scale, streams);
  if (consume) return p.consume(p.context, edge, max_width, i0 * p.N + j0, p.N, rows, cols);
  (activate ? activate : copy_rows)(edge, max_width, c, p.N, rows, cols);
}

// The tiles [first, last) of one panel.
static void compute_panel(const Product& p, const Grid& grid, const Block& block, int64_t panel, int64_t first,
                          int64_t last) {
  alignas(64) float packed[block_k * max_width];
  alignas(64) float bias[max_width] = {};

  const int64_t j0 = panel * grid.panel_vectors * lanes;
  const int64_t cols = smaller(grid.panel_vectors * lanes, p.N - j0);
  const int64_t vectors = ceil_div(cols, lanes);
  const int64_t K = block.k1 - block.k0;
  const bool plain = p.B_layout == Layout::plain;
  const float* from = plain ? p.B + block.k0 * p.B_stride + j0 : p.B + j0 * p.B_stride + block.k0;
  float* sums = p.column_sums && first == 0 ? p.column_sums + j0 : nullptr;

  const float* b = packed;
  int64_t b_stride = vectors * lanes;
  if (block.B) {
    b = block.B + (panel - block.first_panel) * K * grid.panel_vectors * lanes;
  } else if (plain && grid.tiles <= direct_tiles && cols == b_stride && !sums) {
    b = from;
    b_stride = p.B_stride;
  } else {
    pack_panel(p, from, K, cols, packed, sums);
  }
  if (p.bias && block.k0 == 0) copy_rows(p.bias + j0, 0, bias, 0, 1, cols);
  const int64_t asks = block.B || plain ? K : ceil_div(cols * p.B_stride, Ahead::fetched);  // for the next panel of B
  for (int64_t t = first; t < last; ++t) {
    // Next come another tile of C, with its part of X, and, once for all tiles, the next panel of B.
    const bool stay = t + 1 < last;
    const int64_t next = grid.row_of(stay ? t + 1 : first) * p.N + (stay ? j0 : j0 + cols);
    const int64_t done = (t - first) * (K / steps);
    const Ahead next_c(p.C, next, p.N);
    const Ahead next_b = done >= asks ? Ahead(bias, 0, 0)  // all of it has been asked for: what is in L1 anyway
                         : block.B    ? Ahead(b, (K + done) * b_stride, b_stride)
                         : plain      ? Ahead(from, done * p.B_stride + cols, p.B_stride)
                                      : Ahead(from, cols * p.B_stride + done * Ahead::fetched, Ahead::fetched);
    Streams streams = {next_c, next_b, next_c};
    if (p.differentiate) streams.read = Ahead(p.X, next, p.N);
    if (p.consume && block.k1 == p.K)
      streams = {Ahead(p.streams[0], next, p.N), Ahead(p.streams[1], next, p.N), Ahead(p.streams[2], next, p.N)};
    compute_tile(p, grid, block, t, j0, cols, b, b_stride, bias, streams);
  }
}

// Rows of a plain tile follow each other K + lanes apart; of a transposed one, (i, k) is at [i + k * tile_rows].
static const float* pack_A(const Product& p, const Grid& grid, int64_t first, int64_t last, int64_t k0, int64_t k1) {
  const int64_t K = k1 - k0;
  const int64_t tile_size = tile_rows * (K + lanes);
  float* packed = packed_A.get((last - first) * tile_size);
  if (!packed) return nullptr;
  if (p.A_layout == Layout::plain) {
    for (int64_t t = first; t < last; ++t) {
      const int64_t i0 = grid.row_of(t);
      copy_rows(p.A + i0 * p.A_stride + k0, p.A_stride, packed + (t - first) * tile_size, K + lanes,
                grid.row_of(t + 1) - i0, K);
    }
    return packed;
  }
  constexpr int64_t few = 16;  // rows of A at a time: all of them stay in L1 from one tile to the next
  for (int64_t low = 0; low < K; low += few)
    for (int64_t t = first; t < last; ++t) {
      const int64_t i0 = grid.row_of(t), rows = grid.row_of(t + 1) - i0;
      const float* from = p.A + (k0 + low) * p.A_stride + i0;
      float* to = packed + (t - first) * tile_size + low * tile_rows;
      if (rows == tile_rows)  // a constant: a move or two
        for (int64_t k = 0; k < smaller(few, K - low); ++k)
          __builtin_memcpy(to + k * tile_rows, from + k * p.A_stride, tile_rows * sizeof(float));
      else
        copy_rows(from, p.A_stride, to, tile_rows, smaller(few, K - low), rows);
    }
  return packed;
}

// A column of a transposed A touches a page for each k, and rows a multiple of a page apart share a cache set.
static bool worth_packing_A(const Product& p, const Grid& grid) {
  if (grid.panels < 3) return false;
  const bool pages_apart = p.A_stride % 512 == 0;
  return pages_apart || (p.A_layout == Layout::transposed && (grid.panels >= 8 || p.K * p.A_stride >= 1 << 16));
}

// All panels of the share, k in [k0, k1), one after the other. The rows of a plain B are read from end to end.
static const float* pack_B(const Product& p, const Grid& grid, const Share& share, int64_t k0, int64_t k1) {
  const int64_t K = k1 - k0;
  const int64_t width = grid.panel_vectors * lanes;
  float* packed = packed_B.get((share.last_panel + 1 - share.first_panel) * K * width);
  if (!packed) return nullptr;
  const int64_t few = p.B_layout == Layout::plain ? 8 : K;  // rows at a time
  for (int64_t k = 0; k < K; k += few)
    for (int64_t panel = share.first_panel; panel <= share.last_panel; ++panel) {
      const int64_t j0 = panel * width, cols = smaller(width, p.N - j0), vectors = ceil_div(cols, lanes);
      const int64_t offset = p.B_layout == Layout::plain ? (k0 + k) * p.B_stride + j0 : j0 * p.B_stride + k0;
      const bool starts_here = share.low == 0 && (panel > share.first_panel || share.first_tile == 0);
      pack_panel(p, p.B + offset, smaller(few, K - k), cols,
                 packed + (panel - share.first_panel) * K * width + k * vectors * lanes,
                 p.column_sums && starts_here ? p.column_sums + j0 : nullptr);
    }
  return packed;
}

// More of B than L2 holds would come from far away again for every block of rows.
static bool worth_packing_B(const Product& p) { return p.M >= 256 && smaller(p.K, block_k) * p.N >= 1 << 18; }

static void compute_share(const Product& p, const Grid& grid, const Share& share) {
  const int64_t k_blocks = larger(1, ceil_div(p.K, block_k));  // K = 0: one without terms, for the bias
  const int64_t tiles = share.high - share.low;
  const int64_t row_blocks = larger(1, (tiles * tile_rows + block_rows / 2) / block_rows);
  const bool with_A = worth_packing_A(p, grid), with_B = worth_packing_B(p);
  const float* packed = nullptr;
  for (int64_t step = 0; step < row_blocks * k_blocks; ++step) {
    // A packed B is used for all rows; else a block of C had better be finished while it is near.
    const int64_t r = with_B ? step % row_blocks : step / k_blocks, b = with_B ? step / row_blocks : step % k_blocks;
    const int64_t low = share.low + tiles * r / row_blocks, high = share.low + tiles * (r + 1) / row_blocks;
    const int64_t k0 = p.K * b / k_blocks, k1 = p.K * (b + 1) / k_blocks;
    if (with_B && r == 0) packed = pack_B(p, grid, share, k0, k1);
    const Block block = {k0, k1, low, share.first_panel, with_A ? pack_A(p, grid, low, high, k0, k1) : nullptr, packed};
    for (int64_t panel = share.first_panel; panel <= share.last_panel; ++panel) {
      const int64_t first = larger(low, panel == share.first_panel ? share.first_tile : 0);
      const int64_t last = smaller(high, panel == share.last_panel ? share.last_tile : grid.tiles);
      if (first < last) compute_panel(p, grid, block, panel, first, last);
    }
  }
}

// What thread t of `threads` has in a product.
static void compute_share_of(const Product& p, int t, int threads) {
  const Grid grid(p);
  // Shares of whole rows let the next operation find its rows in this core's cache; each thread then packs all of B.
  // But few rows make tiles that are not as high as they could be, if each thread is to have as many.
  const Grid even(p, threads);
  const bool small_B = p.K * p.N <= 1 << 15 && p.M >= 24 * threads && even.tiles == grid.tiles;
  const bool by_rows = small_B || (p.M >= p.N && grid.tiles >= 16 * threads);
  if (!by_rows) return compute_share(p, grid, share_in_order(grid, t, threads));
  compute_share(p, even, share_of_rows(even, t, threads));
}

static void multiply_panels(const Product& p) {
  if (p.N == 0) return;
  if (p.column_sums)
    for (int64_t j = 0; j < p.N; ++j) p.column_sums[j] = 0;
  const int threads = threads_for(flops(p) / flops_per_ns);
  if (is_split_k(p))
    multiply_split_k(p, threads, [](const Product& half, int t, int of, int) { compute_share_of(half, t, of); });
  else
    parallel(threads, [&](int t) { compute_share_of(p, t, threads); });
}

}  // namespace minigen::MINIGEN_ISA
