// The tensor cores on the host, in place of CUDA's header of this name.
//
// Each thread holds whole fragments and computes the same as the others of its warp: right for whatever way the
// hardware deals a fragment out to the threads, which a kernel must not know.
#pragma once

#include <cstdint>
#include <cstring>

namespace nvcuda::wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
namespace precision {
struct tf32;
}
enum layout_t { mem_row_major };

template <int rows, int columns>
struct Matrix {
  static constexpr int num_elements = rows * columns;
  float x[num_elements];
};

// Of a product of M x K and K x N.
template <class Use, int M, int N, int K, class Type, class Layout = void>
struct fragment;
template <int M, int N, int K, class Type, class Layout>
struct fragment<matrix_a, M, N, K, Type, Layout> : Matrix<M, K> {};
template <int M, int N, int K, class Type, class Layout>
struct fragment<matrix_b, M, N, K, Type, Layout> : Matrix<K, N> {};
template <int M, int N, int K, class Type>
struct fragment<accumulator, M, N, K, Type> : Matrix<M, N> {};

// The nearest number with 11 significant bits.
inline float __float_to_tf32(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits = (bits + 0x1000) & 0xffffe000;
  std::memcpy(&value, &bits, sizeof bits);
  return value;
}

// What a factor is to the hardware, which does not look at the other bits.
inline float seen(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits &= 0xffffe000;
  std::memcpy(&value, &bits, sizeof bits);
  return value;
}

template <int rows, int columns>
void fill_fragment(Matrix<rows, columns>& m, float value) {
  for (float& element : m.x) element = value;
}

template <int rows, int columns>
void load_matrix_sync(Matrix<rows, columns>& m, const float* from, int stride) {
  for (int e = 0; e < rows * columns; ++e) m.x[e] = from[e / columns * stride + e % columns];
}

template <int rows, int columns>
void store_matrix_sync(float* to, const Matrix<rows, columns>& m, int stride, layout_t) {
  for (int e = 0; e < rows * columns; ++e) to[e / columns * stride + e % columns] = m.x[e];
}

template <int M, int N, int K>
void mma_sync(Matrix<M, N>& d, const Matrix<M, K>& a, const Matrix<K, N>& b, const Matrix<M, N>& c) {
  Matrix<M, N> sum = c;
  for (int m = 0; m < M; ++m)
    for (int k = 0; k < K; ++k)
      for (int n = 0; n < N; ++n) sum.x[m * N + n] += seen(a.x[m * K + k]) * seen(b.x[k * N + n]);
  d = sum;
}

}  // namespace nvcuda::wmma
