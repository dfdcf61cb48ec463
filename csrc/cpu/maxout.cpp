#include "kernels.hpp"
#include "row_losses.hpp"

namespace minigen::MINIGEN_ISA {

namespace {

constexpr int64_t block = 64;  // columns at once

// The largest of the pieces x[k O + j] in `largest`, and which it is, the first of equal ones, in `piece`. NaN is
// larger than any number.
void largest_piece(const float* x, int64_t K, int64_t O, int64_t width, float* largest, int32_t* piece) {
  for (int64_t j = 0; j < width; ++j) {
    largest[j] = x[j];
    piece[j] = 0;
  }
  for (int64_t k = 1; k < K; ++k) {
    const float* candidate = x + k * O;
    const int32_t number = static_cast<int32_t>(k);
#pragma omp simd
    for (int64_t j = 0; j < width; ++j) {
      const float best = largest[j], value = candidate[j];
      const bool larger = value > best || (value != value && best == best);
      largest[j] = larger ? value : best;
      piece[j] = larger ? number : piece[j];
    }
  }
}

// Run body(row, first column, width) for every row and every block of its columns.
template <class Body>
void for_blocks(int64_t B, int64_t K, int64_t O, const Body& body) {
  for_rows(B, B * K * O * 0.3, [&](int64_t r) {
    for (int64_t j = 0; j < O; j += block) body(r, j, O - j < block ? O - j : block);
  });
}

}  // namespace

void maxout_forward(const float* x, float* y, int64_t B, int64_t K, int64_t O) {
  for_blocks(B, K, O, [=](int64_t r, int64_t first, int64_t width) {
    int32_t piece[block];
    largest_piece(x + r * K * O + first, K, O, width, y + r * O + first, piece);
  });
}

void maxout_tangent(const float* x_tangent, const float* x, float* y_tangent, int64_t B, int64_t K, int64_t O) {
  for_blocks(B, K, O, [=](int64_t r, int64_t first, int64_t width) {
    float largest[block];
    int32_t piece[block];
    largest_piece(x + r * K * O + first, K, O, width, largest, piece);
    for (int64_t j = 0; j < width; ++j) y_tangent[r * O + first + j] = x_tangent[(r * K + piece[j]) * O + first + j];
  });
}

void maxout_backward(const float* dy, const float* x, float* dx, int64_t B, int64_t K, int64_t O) {
  for_blocks(B, K, O, [=](int64_t r, int64_t first, int64_t width) {
    float largest[block];
    int32_t piece[block];
    largest_piece(x + r * K * O + first, K, O, width, largest, piece);
    const float* gradient = dy + r * O + first;
    for (int64_t k = 0; k < K; ++k) {
      float* out = dx + (r * K + k) * O + first;
      const int32_t number = static_cast<int32_t>(k);
#pragma omp simd
      for (int64_t j = 0; j < width; ++j) out[j] = piece[j] == number ? gradient[j] : 0.0f;
    }
  });
}

}  // namespace minigen::MINIGEN_ISA
