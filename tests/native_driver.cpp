// Runs every CPU kernel on awkward shapes, on one thread and on three, in buffers of exactly the right size.
//
// Built by CMake with -DMINIGEN_DRIVER=ON and run by tests/test_native.py: under AddressSanitizer and
// UndefinedBehaviorSanitizer, which see any access outside of a buffer, and plainly, where it counts allocations: a
// kernel may not allocate on each of its runs. MINIGEN_ISA picks the instruction set, MINIGEN_BF16 what multiplies
// bf16. Exits with 1 and says what is wrong.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <random>
#include <thread>
#include <string>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include "cpu/bf16.hpp"
#include "cpu/dispatch.hpp"
#include "cpu/threads.hpp"

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define COUNTS_ALLOCATIONS 1
#else
#define COUNTS_ALLOCATIONS 0
#endif

static long allocations = 0;

#if COUNTS_ALLOCATIONS
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);

static void count() { __atomic_fetch_add(&allocations, 1, __ATOMIC_RELAXED); }

void* malloc(size_t size) { return count(), __libc_malloc(size); }
void* calloc(size_t n, size_t size) { return count(), __libc_calloc(n, size); }
void* realloc(void* p, size_t size) { return count(), __libc_realloc(p, size); }
void* aligned_alloc(size_t alignment, size_t size) { return count(), __libc_memalign(alignment, size); }
int posix_memalign(void** p, size_t alignment, size_t size) {
  count();
  *p = __libc_memalign(alignment, size);
  return *p ? 0 : 12;
}
}
#endif

namespace {

using namespace minigen;

std::mt19937 generator;

// Memory of exactly n elements, so that a sanitizer sees the first byte past it.
template <class T>
std::shared_ptr<T[]> buffer(int64_t n) {
  return std::shared_ptr<T[]>(new T[static_cast<size_t>(n)]());
}

std::shared_ptr<float[]> normals(int64_t n) {
  auto result = buffer<float>(n);
  std::normal_distribution<float> normal;
  for (int64_t i = 0; i < n; ++i) result[i] = normal(generator);
  return result;
}

struct Case {
  std::string name;
  std::function<void()> run;
  std::shared_ptr<float[]> output;  // must be finite afterwards
  int64_t size;
};

std::vector<Case> cases;

// The dense layer's products of a table, Kernels or DenseKernels.
template <class Table>
void add_dense(const Table& k, const std::string& precision, int64_t B, int64_t I, int64_t O) {
  const std::string shape = precision + " " + std::to_string(B) + "x" + std::to_string(I) + "x" + std::to_string(O);
  const auto x = normals(B * I), W = normals(I * O), b = normals(O), dz = normals(B * O);
  for (int a = 0; a < 7; ++a) {
    const auto activation = static_cast<Activation>(a);
    const auto y = buffer<float>(B * O), dx = buffer<float>(B * I);
    const int64_t pixels = a * B / 5;  // none, some, all
    cases.push_back({"dense_forward" + shape,
                     [=, &k] { k.dense_forward(x.get(), W.get(), b.get(), y.get(), B, I, O, activation, pixels); }, y,
                     B * O});
    cases.push_back({"dense_dgrad" + shape,
                     [=, &k] { k.dense_dgrad(dz.get(), W.get(), x.get(), dx.get(), B, I, O, activation); }, dx, B * I});
  }
  const auto dW = buffer<float>(I * O), db = buffer<float>(O);
  for (const int64_t pixels : {int64_t{0}, B / 2, B})
    cases.push_back({"dense_wgrad" + shape,
                     [=, &k] { k.dense_wgrad(x.get(), dz.get(), dW.get(), db.get(), B, I, O, pixels, false); }, dW,
                     I * O});
  cases.push_back({"dense_wgrad, accumulated" + shape,
                   [=, &k] { k.dense_wgrad(x.get(), dz.get(), dW.get(), db.get(), B, I, O, 0, true); }, dW, I * O});
}

// From the same parameters and moments each time it runs.
template <class Table>
void add_wgrad_adam(const Table& k, const std::string& precision, int64_t B, int64_t I, int64_t O) {
  const auto x = normals(B * I), dz = normals(B * O), W = normals(I * O), b = normals(O);
  const auto dW = buffer<float>(I * O), db = buffer<float>(O), lr = normals(1);
  const auto p = buffer<float>(I * O), m = buffer<float>(I * O), v = buffer<float>(I * O);
  const auto bp = buffer<float>(O), bm = buffer<float>(O), bv = buffer<float>(O);
  const auto step = buffer<uint64_t>(1);
  step.get()[0] = 3;
  const auto run = [=, &k] {
    std::copy_n(W.get(), I * O, p.get());
    std::copy_n(b.get(), O, bp.get());
    for (float* moment : {m.get(), v.get()}) std::fill_n(moment, I * O, 0.0f);
    for (float* moment : {bm.get(), bv.get()}) std::fill_n(moment, O, 0.0f);
    k.dense_wgrad_adam(x.get(), dz.get(), dW.get(), db.get(), B, I, O, {p.get(), m.get(), v.get()},
                       {bp.get(), bm.get(), bv.get()}, lr.get(), step.get(), {0.9, 0.999, 1e-8, 0.01}, B / 2);
  };
  const std::string shape = precision + " " + std::to_string(B) + "x" + std::to_string(I) + "x" + std::to_string(O);
  cases.push_back({"dense_wgrad_adam" + shape, run, p, I * O});
}

template <class Table>
void add_products(const Table& k, const std::string& precision, const std::vector<int64_t>& shape) {
  add_dense(k, precision, shape[0], shape[1], shape[2]);
  add_wgrad_adam(k, precision, shape[0], shape[1], shape[2]);
}

void add_elementwise(int64_t n) {
  const Kernels& k = kernels();
  const std::string size = " " + std::to_string(n);
  const auto z = normals(n), g = normals(n);
  for (int a = 0; a < 7; ++a) {
    const auto activation = static_cast<Activation>(a);
    const auto y = buffer<float>(n), dz = buffer<float>(n);
    cases.push_back(
        {"activation_forward" + size, [=, &k] { k.activation_forward(z.get(), y.get(), n, activation); }, y, n});
    cases.push_back({"activation_backward" + size,
                     [=, &k] { k.activation_backward(g.get(), z.get(), dz.get(), n, activation); }, dz, n});
    cases.push_back({"activation_curvature" + size,
                     [=, &k] { k.activation_curvature(g.get(), z.get(), z.get(), dz.get(), n, activation, false); }, dz,
                     n});
  }
  const auto p = normals(n), m = buffer<float>(n), v = buffer<float>(n), lr = buffer<float>(1);
  lr[0] = 1e-3f;
  const auto step = buffer<uint64_t>(1);
  cases.push_back(
      {"adam" + size,
       [=, &k] { k.adam(p.get(), g.get(), m.get(), v.get(), n, lr.get(), step.get(), {0.9, 0.999, 1e-8, 0.01}); }, p,
       n});
  const auto q = normals(n), velocity = buffer<float>(n);
  cases.push_back({"rmsprop" + size,
                   [=, &k] { k.rmsprop(p.get(), g.get(), m.get(), v.get(), n, lr.get(), 0.9, 1e-8, 0.9, 0.01); }, p,
                   n});
  cases.push_back({"lion" + size, [=, &k] { k.lion(p.get(), g.get(), m.get(), n, lr.get(), 0.9, 0.99, 0.01); }, p, n});
  const auto clipped = normals(n), norm = buffer<float>(1);
  cases.push_back({"clip_norm" + size, [=, &k] { k.clip_norm(clipped.get(), norm.get(), n, 0.5); }, clipped, n});
  cases.push_back({"average" + size, [=, &k] { k.average(q.get(), g.get(), n, step.get(), 0.9); }, q, n});
  cases.push_back({"sgd" + size, [=, &k] { k.sgd(q.get(), g.get(), velocity.get(), n, lr.get(), 0.9, 0.01); }, q, n});
  const auto bounded = normals(n), noisy = buffer<float>(n);
  cases.push_back({"clip" + size, [=, &k] { k.clip(bounded.get(), n, 0.5f); }, bounded, n});
  cases.push_back(
      {"add_noise" + size, [=, &k] { k.add_noise(p.get(), g.get(), step.get(), noisy.get(), n, 0.3, 9); }, noisy, n});
  const auto uniform = buffer<float>(n), normal = buffer<float>(n);
  cases.push_back({"random_uniform" + size, [=, &k] { k.random_uniform(uniform.get(), n, 0xffffffffu, 3, step.get()); },
                   uniform, n});
  cases.push_back({"random_normal" + size, [=, &k] { k.random_normal(normal.get(), n, 1, 2, step.get()); }, normal, n});
}

// What lies between dense layers, on G batches of R rows with O columns, or one of G R rows; G pieces.
void add_between(int64_t G, int64_t R, int64_t O) {
  const Kernels& k = kernels();
  const std::string shape = " " + std::to_string(G) + "x" + std::to_string(R) + "x" + std::to_string(O);
  const int64_t n = G * R * O, B = G * R;
  const auto x = normals(n), dz = normals(n), t = normals(n), gamma = normals(O), beta = normals(O);
  const auto mean = normals(B * O), inv_std = normals(B * O), running_mean = normals(O), y = buffer<float>(n);
  const auto running_var = buffer<float>(O), made_mean = buffer<float>(B * O), made_std = buffer<float>(B * O);
  const auto dgamma = buffer<float>(O), dbeta = buffer<float>(O);
  const auto step = buffer<uint64_t>(1);
  const auto add = [&](const char* name, std::function<void()> run, std::shared_ptr<float[]> output, int64_t size) {
    cases.push_back({name + shape, std::move(run), std::move(output), size});
  };
  add(
      "batch_norm_forward",
      [=, &k] {
        k.batch_norm_forward(x.get(), gamma.get(), beta.get(), y.get(), made_mean.get(), made_std.get(),
                             running_mean.get(), running_var.get(), G, R, O, 0.1, 1e-3, Activation::elu);
      },
      y, n);
  add(
      "batch_norm_infer",
      [=, &k] {
        k.batch_norm_infer(x.get(), gamma.get(), beta.get(), running_mean.get(), running_var.get(), y.get(), B, O, 1e-3,
                           Activation::tanh);
      },
      y, n);
  add(
      "batch_norm_dgrad",
      [=, &k] { k.batch_norm_dgrad(dz.get(), x.get(), gamma.get(), mean.get(), inv_std.get(), y.get(), G, R, O); }, y,
      n);
  add(
      "batch_norm_wgrad",
      [=, &k] { k.batch_norm_wgrad(dz.get(), x.get(), mean.get(), inv_std.get(), dgamma.get(), dbeta.get(), G, R, O); },
      dgamma, O);
  add(
      "layer_norm_forward",
      [=, &k] {
        k.layer_norm_forward(x.get(), gamma.get(), beta.get(), y.get(), made_mean.get(), made_std.get(), B, O, 1e-3,
                             Activation::linear);
      },
      y, n);
  add(
      "layer_norm_dgrad",
      [=, &k] { k.layer_norm_dgrad(dz.get(), x.get(), gamma.get(), mean.get(), inv_std.get(), y.get(), B, O); }, y, n);
  add(
      "layer_norm_wgrad",
      [=, &k] {
        k.layer_norm_wgrad(dz.get(), x.get(), mean.get(), inv_std.get(), dgamma.get(), dbeta.get(), B, O, false);
      },
      dbeta, O);
  add(
      "layer_norm_tangent",
      [=, &k] { k.layer_norm_tangent(t.get(), x.get(), gamma.get(), mean.get(), inv_std.get(), y.get(), B, O); }, y, n);
  add(
      "layer_norm_tangent_wgrad",
      [=, &k] {
        k.layer_norm_tangent_wgrad(dz.get(), t.get(), x.get(), mean.get(), inv_std.get(), dgamma.get(), B, O);
      },
      dgamma, O);
  add(
      "layer_norm_curvature",
      [=, &k] {
        k.layer_norm_curvature(dz.get(), t.get(), x.get(), gamma.get(), mean.get(), inv_std.get(), y.get(), B, O,
                               false);
      },
      y, n);
  for (const SelfGated kind : {SelfGated::gelu, SelfGated::silu}) {
    add("self_gated_forward", [=, &k] { k.self_gated_forward(x.get(), y.get(), n, kind); }, y, n);
    add("self_gated_backward", [=, &k] { k.self_gated_backward(dz.get(), x.get(), y.get(), n, kind); }, y, n);
    add(
        "self_gated_curvature",
        [=, &k] { k.self_gated_curvature(dz.get(), t.get(), x.get(), y.get(), n, kind, false); }, y, n);
  }
  add("dropout", [=, &k] { k.dropout(x.get(), y.get(), n, 7, 5, step.get(), 61, 0.3); }, y, n);
  const auto outputs = buffer<float>(R * O);
  add("maxout_forward", [=, &k] { k.maxout_forward(x.get(), outputs.get(), R, G, O); }, outputs, R * O);
  add("maxout_tangent", [=, &k] { k.maxout_tangent(t.get(), x.get(), outputs.get(), R, G, O); }, outputs, R * O);
  add("maxout_backward", [=, &k] { k.maxout_backward(dz.get(), x.get(), y.get(), R, G, O); }, y, n);
  const auto u = normals(O), v = buffer<float>(B), sigma = buffer<float>(1), normalized = buffer<float>(n);
  add(
      "spectral_norm",
      [=, &k] {
        k.spectral_norm(x.get(), u.get(), v.get(), sigma.get(), normalized.get(), B, O, true);
        k.spectral_norm_backward(dz.get(), normalized.get(), u.get(), v.get(), sigma.get(), y.get(), B, O, false);
      },
      y, n);
}

void add_losses(int64_t B, int64_t D) {
  const Kernels& k = kernels();
  const std::string shape = " " + std::to_string(B) + "x" + std::to_string(D);
  const auto logits = normals(B * D), x = normals(B * D), gradient = buffer<float>(B * D), rows = buffer<float>(B),
             loss = buffer<float>(1);
  for (const Likelihood likelihood : {Likelihood::bernoulli, Likelihood::gaussian, Likelihood::continuous_bernoulli})
    cases.push_back(
        {"vae_loss" + shape,
         [=, &k] { k.vae_loss(logits.get(), x.get(), gradient.get(), rows.get(), loss.get(), B, D, likelihood, 0.5); },
         gradient, B * D});
  const auto logvar = normals(D), dlogvar = buffer<float>(D);
  for (const int64_t V : {int64_t{1}, D}) {
    cases.push_back({"gaussian_loss" + shape,
                     [=, &k] {
                       k.gaussian_loss(logits.get(), x.get(), logvar.get(), gradient.get(), rows.get(), loss.get(), B,
                                       D, V);
                     },
                     gradient, B * D});
    cases.push_back({"gaussian_logvar_gradient" + shape,
                     [=, &k] {
                       k.gaussian_logvar_gradient(logits.get(), x.get(), logits.get(), logvar.get(), dlogvar.get(), B,
                                                  D, V);
                     },
                     dlogvar, V});
  }
  const auto ends = buffer<int32_t>(2);
  ends.get()[0] = static_cast<int32_t>((D + 1) / 2);
  ends.get()[1] = static_cast<int32_t>(D);
  cases.push_back({"categorical_loss" + shape,
                   [=, &k] {
                     k.categorical_loss(logits.get(), x.get(), ends.get(), gradient.get(), rows.get(), loss.get(), B, D,
                                        D > 1 ? 2 : 1);
                   },
                   gradient, B * D});
  cases.push_back({"mixed_loss" + shape,
                   [=, &k] {
                     k.mixed_loss(logits.get(), x.get(), ends.get(), logvar.get(), gradient.get(), rows.get(),
                                  loss.get(), B, D, D > 1 ? 2 : 1, D);
                   },
                   gradient, B * D});
  cases.push_back({"mixed_logvar_gradient" + shape,
                   [=, &k] {
                     k.mixed_logvar_gradient(logits.get(), x.get(), logits.get(), ends.get(), logvar.get(),
                                             dlogvar.get(), B, D, D > 1 ? 2 : 1, D);
                   },
                   dlogvar, D});
  cases.push_back({"gumbel_softmax_forward" + shape,
                   [=, &k] {
                     k.gumbel_softmax_forward(logits.get(), nullptr, ends.get(), gradient.get(), B, D, D > 1 ? 2 : 1,
                                              Activation::tanh, 0.2);
                   },
                   gradient, B * D});
  cases.push_back({"gumbel_softmax_backward" + shape,
                   [=, &k] {
                     k.gumbel_softmax_backward(x.get(), logits.get(), ends.get(), gradient.get(), B, D, D > 1 ? 2 : 1,
                                               Activation::tanh, 0.2);
                   },
                   gradient, B * D});
  const auto heads = normals(B * 2 * D), z = buffer<float>(B * D), dheads = buffer<float>(B * 2 * D);
  cases.push_back({"latent_forward" + shape,
                   [=, &k] { k.latent_forward(heads.get(), x.get(), z.get(), rows.get(), loss.get(), B, D); }, z,
                   B * D});
  cases.push_back({"latent_backward" + shape,
                   [=, &k] { k.latent_backward(logits.get(), heads.get(), x.get(), logvar.get(), dheads.get(), B, D); },
                   dheads, B * 2 * D});
  const auto weights = buffer<float>(D), one = normals(1);
  cases.push_back({"kl_weights" + shape,
                   [=, &k] { k.kl_weights(heads.get(), one.get(), weights.get(), loss.get(), B, D, 0.1); }, weights,
                   D});
  const int64_t R = 3 * B;
  const auto draws = normals(R * D), of_draws = buffer<float>(R * D), ratios = buffer<float>(R), shares = normals(R);
  cases.push_back(
      {"repeat_rows" + shape, [=, &k] { k.repeat_rows(x.get(), of_draws.get(), B, R, D); }, of_draws, R * D});
  cases.push_back(
      {"importance_sample" + shape,
       [=, &k] { k.importance_sample(heads.get(), draws.get(), of_draws.get(), ratios.get(), loss.get(), B, R, D); },
       of_draws, R * D});
  const auto balanced = buffer<float>(R);
  cases.push_back({"importance_weights" + shape,
                   [=, &k] { k.importance_weights(shares.get(), shares.get(), balanced.get(), loss.get(), R, 3); },
                   balanced, R});
  cases.push_back({"importance_backward" + shape,
                   [=, &k] {
                     k.importance_backward(draws.get(), draws.get(), heads.get(), draws.get(), shares.get(),
                                           dheads.get(), B, R, D);
                   },
                   dheads, B * 2 * D});
  const auto v = buffer<float>(B * D), share = normals(B);
  for (const Penalty kind : {Penalty::r1, Penalty::two_sided})
    cases.push_back({"gradient_penalty" + shape,
                     [=, &k] { k.gradient_penalty(x.get(), v.get(), rows.get(), loss.get(), B, D, kind, 10.0); }, v,
                     B * D});
  const auto mixed = buffer<float>(B * D);
  cases.push_back({"interpolate" + shape,
                   [=, &k] { k.interpolate(x.get(), logits.get(), share.get(), mixed.get(), B, D); }, mixed, B * D});
  const auto column = normals(B), dcolumn = buffer<float>(B);
  const auto W = normals(D), b = normals(1), dx = buffer<float>(B * D), dW = buffer<float>(D), db = buffer<float>(1);
#define GAME(name, real, fake, generator) GanLoss::name,
  for (const GanLoss kind : {MINIGEN_GAN_LOSSES(GAME)}) {
#undef GAME
    for (const Player player : {Player::discriminator, Player::generator}) {
      const bool of_D = player == Player::discriminator;
      if (of_D && B == 1) continue;
      const int64_t n_real = of_D ? B / 2 : 0;
      cases.push_back({"gan_loss" + shape,
                       [=, &k] { k.gan_loss(column.get(), B, n_real, player, kind, 0.1f, dcolumn.get(), loss.get()); },
                       dcolumn, B});
      cases.push_back({"gan_head" + shape,
                       [=, &k, keep = std::vector{dW}] {
                         k.gan_head(player, kind, 0.1f, x.get(), W.get(), b.get(), Activation::leaky_relu, B, D, n_real,
                                    rows.get(), dcolumn.get(), loss.get(), dx.get(), of_D ? dW.get() : nullptr,
                                    db.get());
                       },
                       dx, B * D});
    }
  }
}

void add_batch(int64_t N, int64_t B, int64_t D) {
  const Kernels& k = kernels();
  const std::string shape = " " + std::to_string(B) + "x" + std::to_string(D) + " of " + std::to_string(N);
  const auto indices = buffer<int32_t>(B);
  const auto step = buffer<uint64_t>(1);
  const auto bytes = buffer<uint8_t>(N * D);
  const auto floats = normals(N * D), out = buffer<float>(B * D);
  cases.push_back({"batch_gather" + shape,
                   [=, &k] {
                     k.batch_indices(indices.get(), B, N, 7, 1, step.get(), B, 1);
                     k.batch_gather_floats(floats.get(), N, indices.get(), out.get(), B, D, 2.0f, -1.0f);
                     k.batch_gather_bytes(bytes.get(), N, indices.get(), out.get(), B, D, 2.0f, -1.0f);
                   },
                   out, B * D});
}

bool all_finite(const Case& one) {
  for (int64_t i = 0; i < one.size; ++i)
    if (!std::isfinite(one.output[i])) return false;
  return true;
}

// Which thread takes which share differs from run to run, and each has scratch memory of its own, which grows to the
// largest share that it ever takes. So a run may still allocate, but not each of many.
constexpr int repeats = 50;

bool stops_allocating(const Case& one) {
  for (int run = 0; run < repeats; ++run) {
    const long before = allocations;
    one.run();
    if (allocations == before) return true;
  }
  return false;
}

bool run_all(int threads) {
  set_thread_limit(threads, true);
  bool good = true;
  for (const Case& one : cases) one.run();
  for (const Case& one : cases) {
    if (!stops_allocating(one)) {
      std::printf("%s still allocates on its %dth run with %d threads\n", one.name.c_str(), 1 + repeats, threads);
      good = false;
    }
    if (!all_finite(one)) {
      std::printf("%s gives a number that is not finite with %d threads\n", one.name.c_str(), threads);
      good = false;
    }
  }
  return good;
}

// Threads that want the team at the same time: one has it, the other works alone; and all of it again in a forked
// child.
bool share_the_team() {
  set_thread_limit(3, true);
  const auto add = [](std::vector<int>& numbers) {
    for (int turn = 0; turn < 2000; ++turn)
      parallel_ranges(static_cast<int64_t>(numbers.size()), 16, 1e9, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) ++numbers[static_cast<size_t>(i)];
      });
  };
  std::vector<int> one(100), other(100), third(100);
  std::thread beside(add, std::ref(one));
  with_team([&] {
    add(other);
    use_threads(2);
    add(other);
  });
  add(third);
  beside.join();
  const auto all = [](const std::vector<int>& numbers, int value) {
    return std::all_of(numbers.begin(), numbers.end(), [=](int n) { return n == value; });
  };
  return all(one, 2000) && all(other, 4000) && all(third, 2000);
}

bool fork_and_share_the_team() {
  if (!share_the_team()) return false;
  const pid_t child = fork();
  if (child == 0) _exit(share_the_team() ? 0 : 1);
  int status = 1;
  return waitpid(child, &status, 0) == child && status == 0;
}

}  // namespace

int main() {
  for (const auto& shape : {std::vector<int64_t>{1, 1, 1},
                            {2, 3, 5},
                            {13, 17, 33},
                            {128, 100, 129},
                            {129, 785, 1},
                            {1, 300, 65},
                            {37, 1, 31},
                            {25, 257, 97},
                            {70, 40, 1100}}) {
    add_products(kernels(), "", shape);
    if (supported_bf16().empty()) continue;
    add_products(*bf16_kernels().bf16, " in bf16", shape);
    if (bf16_kernels().bf16x6) add_products(*bf16_kernels().bf16x6, " in bf16x6", shape);
  }
  for (const int64_t n : {0, 1, 3, 15, 16, 17, 63, 64, 65, 127, 1000, 40001}) add_elementwise(n);
  for (const auto& shape : {std::vector<int64_t>{1, 1, 1}, {2, 3, 33}, {3, 5, 31}, {2, 64, 129}, {1, 300, 7}})
    add_between(shape[0], shape[1], shape[2]);
  for (const auto& shape : {std::vector<int64_t>{1, 1}, {2, 15}, {3, 16}, {5, 17}, {7, 33}, {129, 785}})
    add_losses(shape[0], shape[1]);
  for (const auto& shape : {std::vector<int64_t>{1, 1, 1}, {2, 2, 3}, {300, 299, 5}, {70, 65, 785}, {1000, 131, 16}})
    add_batch(shape[0], shape[1], shape[2]);
  bool good = run_all(1) && run_all(3);
  with_team([&] { good = good && run_all(3); });
  if (!fork_and_share_the_team()) {
    std::printf("the team did not do all its work once\n");
    good = false;
  }
  const std::string bf16 = supported_bf16().empty() ? "" : std::string(", bf16 on ") + bf16_kernels().name;
  std::printf("%s: %zu kernels run%s%s\n", kernels().isa, cases.size(),
              COUNTS_ALLOCATIONS ? ", allocations counted" : "", bf16.c_str());
  return good ? 0 : 1;
}
