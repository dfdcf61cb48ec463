// The discriminator's last layer with the loss behind it: logits, loss, and all gradients, in one pass over the rows of
// its input while they are near. dense.cpp and gan_loss.cpp have the same one operation at a time;
// minigen/reference/dense.py and gan_loss.py derive it.
#include "halves.hpp"
#include "kernels.hpp"
#include "narrow.hpp"

namespace minigen::MINIGEN_ISA {

namespace {

// So many rows make one partial sum of the weights' gradient, whoever has them.
constexpr int64_t group = 32;

thread_local Scratch<float> head_scratch;

template <class Term>
void differentiate_loss(const GanHead& h, int64_t begin, int64_t end, float scale, float* losses, const Term& term) {
  const float* logits = h.logits;
  float* dlogits = h.dlogits;
#pragma omp simd
  for (int64_t r = begin; r < end; ++r) {
    const LossTerm of = term(logits[r]);
    dlogits[r] = of.gradient * scale;
    losses[r] = of.loss;
  }
}

// The rows [begin, end), of which those below n_real are called real.
void differentiate_loss(const GanHead& h, int64_t begin, int64_t end, float* losses) {
  if (h.player == Player::minimax_generator)
    return differentiate_loss(h, begin, end, -1.0f / static_cast<float>(h.B), losses, [](float s) {
      const LossTerm of = call_fake(s);
      return LossTerm{-of.loss, of.gradient};
    });
  const int64_t middle = smaller(end, larger(begin, h.n_real));
  const float of_real = 1.0f / static_cast<float>(h.n_real), of_fake = 1.0f / static_cast<float>(h.B - h.n_real);
  differentiate_loss(h, begin, middle, of_real, losses, [](float s) { return call_real(s); });
  differentiate_loss(h, middle, end, of_fake, losses, [](float s) { return call_fake(s); });
}

// dW of the rows [begin, end).
void weight_gradient(const GanHead& h, int64_t begin, int64_t end, float* sums) {
  const int64_t I = h.I;
  for (int64_t i = 0; i < I; ++i) sums[i] = 0;
  for (int64_t r = begin; r < end; ++r) {
    const float* x = h.x + r * I;
    const float dz = h.dlogits[r];
#pragma omp simd
    for (int64_t i = 0; i < I; ++i) sums[i] += x[i] * dz;
  }
}

double sum(const float* x, int64_t begin, int64_t end) {
  double total = 0;
  for (int64_t i = begin; i < end; ++i) total += x[i];
  return total;
}

}  // namespace

void gan_head(const GanHead& h) {
  const int64_t groups = ceil_div(h.B, group);
  float* const losses = head_scratch.get(h.B + groups * h.I);
  if (!losses) throw std::bad_alloc();
  float* const partial = losses + h.B;
  const Product forward = {.M = h.B,
                           .N = 1,
                           .K = h.I,
                           .A = h.x,
                           .A_stride = h.I,
                           .A_layout = Layout::plain,
                           .B = h.W,
                           .B_stride = h.I,
                           .B_layout = Layout::transposed,
                           .C = h.logits,
                           .bias = h.b};
  with_activation(h.activation, [&](auto known) {
    parallel_ranges(h.B, group, 0.2 * static_cast<double>(h.B * h.I), [&](int64_t first, int64_t last) {
      for (int64_t begin = first; begin < last; begin += group) {
        const int64_t end = smaller(begin + group, last);
        multiply_rows(forward, begin, end);
        differentiate_loss(h, begin, end, losses);
        outer_product<known.value>(h.dlogits, h.W, h.x, h.dx, begin, end, h.I);
        if (h.dW) weight_gradient(h, begin, end, partial + begin / group * h.I);
      }
    });
  });
  const int64_t n_real = h.player == Player::discriminator ? h.n_real : h.B;
  double loss = sum(losses, 0, n_real) / static_cast<double>(n_real);
  if (n_real < h.B) loss += sum(losses, n_real, h.B) / static_cast<double>(h.B - n_real);
  h.loss[0] = static_cast<float>(loss);
  if (!h.dW) return;
  for (int64_t i = 0; i < h.I; ++i) h.dW[i] = 0;
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t i = 0; i < h.I; ++i) h.dW[i] += partial[g * h.I + i];
  h.db[0] = static_cast<float>(sum(h.dlogits, 0, h.B));
}

}  // namespace minigen::MINIGEN_ISA
