#include <stdexcept>

#include "../math/permutation.hpp"

#include "kernels.hpp"
#include "threads.hpp"

namespace minigen::MINIGEN_ISA {

namespace {

// Before any row is copied: an index outside of the data must not become a read outside of it.
void check_indices(const int32_t* indices, int64_t B, int64_t N) {
  bool inside = true;
  for (int64_t r = 0; r < B; ++r) inside &= indices[r] >= 0 && indices[r] < N;
  if (!inside) throw std::invalid_argument("indices must lie in [0, number of rows of data)");
}

template <class T>
void gather_row(const T* from, float* to, int64_t D, float scale, float shift) {
#pragma omp simd
  for (int64_t d = 0; d < D; ++d) to[d] = static_cast<float>(from[d]) * scale + shift;
}

constexpr int64_t group = 32;

// permute() of `count` positions from `first` on, up to a group: all go through the network until the last has met an
// entry of the permutation.
void permute_group(uint32_t first, int64_t count, const Permutation& permutation, int32_t* out) {
  const Permutation p = permutation;  // a copy that no store can change
  uint32_t x[group];
#pragma omp simd
  for (uint32_t l = 0; l < group; ++l) x[l] = feistel(first + l, p);
  for (;;) {
    uint32_t outside = 0;
#pragma omp simd reduction(| : outside)
    for (int64_t l = 0; l < group; ++l) outside |= l < count && x[l] >= p.n ? 1u : 0u;
    if (!outside) break;
#pragma omp simd
    for (int64_t l = 0; l < group; ++l) {
      const uint32_t next = feistel(x[l], p);
      x[l] = x[l] >= p.n ? next : x[l];
    }
  }
  for (int64_t l = 0; l < count; ++l) out[l] = static_cast<int32_t>(x[l]);
}

// Rows lie anywhere in a data set larger than the caches: ask for each some rows ahead of its turn.
template <class T>
void prefetch_row(const T* row, int64_t D) {
  for (int64_t d = 0; d < D; d += static_cast<int64_t>(64 / sizeof(T))) __builtin_prefetch(row + d);
}

template <class T>
void gather(const T* data, int64_t N, const int32_t* indices, float* out, int64_t B, int64_t D, float scale,
            float shift) {
  constexpr int64_t ahead = 4;
  check_indices(indices, B, N);
  parallel_ranges(B, 1, B * D * 0.2, [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end && r < begin + ahead; ++r) prefetch_row(data + indices[r] * D, D);
    for (int64_t r = begin; r < end; ++r) {
      if (r + ahead < end) prefetch_row(data + indices[r + ahead] * D, D);
      gather_row(data + indices[r] * D, out + r * D, D, scale, shift);
    }
  });
}

}  // namespace

void batch_indices(int32_t* indices, int64_t rows, int64_t n, uint32_t seed, uint32_t stream, const uint64_t* step,
                   int64_t batch_size, int64_t steps_per_epoch) {
  const uint64_t epoch = step[0] / static_cast<uint64_t>(steps_per_epoch);
  const int64_t first = static_cast<int64_t>(step[0] % static_cast<uint64_t>(steps_per_epoch)) * batch_size;
  if (first + rows > n) throw std::invalid_argument("the step takes rows past the end of the epoch");
  const Permutation permutation = make_permutation(static_cast<uint32_t>(n), seed, stream, epoch);
  parallel_ranges(rows, group, rows * 6.0, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r += group)
      permute_group(static_cast<uint32_t>(first + r), end - r < group ? end - r : group, permutation, indices + r);
  });
}

void batch_gather_bytes(const uint8_t* data, int64_t N, const int32_t* indices, float* out, int64_t B, int64_t D,
                        float scale, float shift) {
  gather(data, N, indices, out, B, D, scale, shift);
}

void batch_gather_floats(const float* data, int64_t N, const int32_t* indices, float* out, int64_t B, int64_t D,
                         float scale, float shift) {
  gather(data, N, indices, out, B, D, scale, shift);
}

void batch_labels(const int32_t* labels, int64_t N, const int32_t* indices, int32_t* out, int64_t B) {
  check_indices(indices, B, N);
  for (int64_t r = 0; r < B; ++r) out[r] = labels[indices[r]];
}

}  // namespace minigen::MINIGEN_ISA
