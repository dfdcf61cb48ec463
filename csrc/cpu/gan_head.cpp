// The discriminator's last layer with the loss behind it: logits, loss, and all gradients, in one pass over the rows of
// its input while they are near. dense.cpp and gan_loss.cpp have the same one operation at a time;
// minigen/reference/dense.py and gan_loss.py derive it.
#include "gan_terms.hpp"
#include "split_k.hpp"
#include "kernels.hpp"
#include "small_n.hpp"

namespace minigen::MINIGEN_ISA {

namespace {

// So many rows make one partial sum of the weights' gradient, whoever has them.
constexpr int64_t group = 32;

thread_local Scratch<float> head_scratch;

struct Head {
  const float *x, *W, *b;
  int64_t B, I, n_real;  // rows whose term is the first: the discriminator's real ones, all of the generator's
  float *logits, *dlogits, *dx, *dW;
};

template <class Term>
void differentiate_loss(const Head& h, int64_t begin, int64_t end, float scale, float* losses, const Term& term) {
  const float* logits = h.logits;
  float* dlogits = h.dlogits;
#pragma omp simd
  for (int64_t r = begin; r < end; ++r) {
    const LossTerm of = term(logits[r]);
    dlogits[r] = of.gradient * scale;
    losses[r] = of.loss;
  }
}

// A loss by pointers, so that what surrounds it is compiled once and not for each loss and activation.
struct Loss {
  const void *first, *second;  // its terms: of the rows below n_real, and of the others
  void (*differentiate)(const Loss&, const Head&, int64_t begin, int64_t end, float* losses);
};

template <class First, class Second>
Loss loss_of(const First& first, const Second& second) {
  const auto differentiate = [](const Loss& of, const Head& h, int64_t begin, int64_t end, float* losses) {
    const int64_t middle = smaller(end, larger(begin, h.n_real));
    differentiate_loss(h, begin, middle, 1.0f / static_cast<float>(h.n_real), losses,
                       *static_cast<const First*>(of.first));
    if (middle < end)
      differentiate_loss(h, middle, end, 1.0f / static_cast<float>(h.B - h.n_real), losses,
                         *static_cast<const Second*>(of.second));
  };
  return {&first, &second, differentiate};
}

// dW of the rows [begin, end).
void weight_gradient(const Head& h, int64_t begin, int64_t end, float* sums) {
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

void head(const Head& h, Activation activation, const Loss& of, float* loss, float* db) {
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
  const auto dgrad = with_activation(activation, [](auto known) { return outer_product<known.value>; });
  parallel_ranges(h.B, group, 0.2 * static_cast<double>(h.B * h.I), [&](int64_t from, int64_t to) {
    for (int64_t begin = from; begin < to; begin += group) {
      const int64_t end = smaller(begin + group, to);
      multiply_rows(forward, begin, end);
      of.differentiate(of, h, begin, end, losses);
      dgrad(h.dlogits, h.W, h.x, h.dx, begin, end, h.I);
      if (h.dW) weight_gradient(h, begin, end, partial + begin / group * h.I);
    }
  });
  double total = sum(losses, 0, h.n_real) / static_cast<double>(h.n_real);
  if (h.n_real < h.B) total += sum(losses, h.n_real, h.B) / static_cast<double>(h.B - h.n_real);
  loss[0] = static_cast<float>(total);
  if (!h.dW) return;
  for (int64_t i = 0; i < h.I; ++i) h.dW[i] = 0;
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t i = 0; i < h.I; ++i) h.dW[i] += partial[g * h.I + i];
  db[0] = static_cast<float>(sum(h.dlogits, 0, h.B));
}

}  // namespace

void gan_head(Player player, GanLoss kind, float smoothing, const float* x, const float* head_w, const float* head_b,
              Activation activation, int64_t B, int64_t I, int64_t n_real, float* logits, float* dlogits, float* loss,
              float* dx, float* dW, float* db) {
  const bool generators = player == Player::generator;
  const Head h = {x, head_w, head_b, B, I, generators ? B : n_real, logits, dlogits, dx, dW};
  with_game(kind, smoothing, [&](const auto& real, const auto& fake, const auto& generator) {
    head(h, activation, generators ? loss_of(generator, generator) : loss_of(real, fake), loss, db);
  });
}

}  // namespace minigen::MINIGEN_ISA
