// minigen._native: the CPU kernels for Python.
//
// Every operation checks its arguments first (kind, dtype, layout, shape, overlap) and then either runs at once, with
// the interpreter lock released, or appends itself to the Program that it is given (program.hpp).
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "cpu/bf16.hpp"
#include "cpu/dispatch.hpp"
#include "cpu/threads.hpp"
#include "program.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace minigen::bindings {
namespace {

// --- checks ---------------------------------------------------------------------------------------

using Shape = std::vector<py::ssize_t>;
constexpr py::ssize_t any = -1;  // in an expected shape: a dimension that this argument defines

std::string text(const Shape& shape) {
  std::string result = "(";
  for (size_t i = 0; i < shape.size(); ++i)
    result += (i ? ", " : "") + (shape[i] == any ? std::string("*") : std::to_string(shape[i]));
  return result + (shape.size() == 1 ? ",)" : ")");
}

Shape shape_of(const py::array& array) { return Shape(array.shape(), array.shape() + array.ndim()); }

bool agrees(const Shape& shape, const Shape& expected) {
  if (shape.size() != expected.size()) return false;
  for (size_t i = 0; i < shape.size(); ++i)
    if (expected[i] != any && shape[i] != expected[i]) return false;
  return true;
}

std::string text(py::handle value) { return py::str(value).cast<std::string>(); }

template <class T>
py::array checked(const std::string& name, py::handle value, Access access) {
  if (!py::isinstance<py::array>(value))
    throw py::type_error(name + " must be a numpy.ndarray, not " + text(py::type::of(value).attr("__name__")));
  auto array = py::reinterpret_borrow<py::array>(value);
  if (!py::isinstance<py::array_t<T>>(array))
    throw py::type_error(name + " must have dtype " + text(py::dtype::of<T>()) + ", not " + text(array.dtype()));
  if (!(array.flags() & py::array::c_style))
    throw py::value_error(name + " must be C-contiguous, got shape " + text(shape_of(array)) + " with strides " +
                          text(array.attr("strides")));
  if (!(array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_))
    throw py::value_error(name + " must be aligned to its dtype " + text(array.dtype()));
  if (access != Access::read && !array.writeable()) throw py::value_error(name + " must be writeable, got read-only");
  return array;
}

void require(bool condition, const std::string& message) {
  if (!condition) throw py::value_error(message);
}

uint32_t word(const char* name, int64_t value) {
  require(value >= 0 && value < (int64_t{1} << 32),
          std::string(name) + " must be in [0, 2**32), not " + std::to_string(value));
  return static_cast<uint32_t>(value);
}

Activation activation_of(const std::string& name) {
  static const char* const known[] = {"linear", "relu", "leaky_relu", "tanh", "sigmoid", "softplus"};
  for (int i = 0; i < 6; ++i)
    if (name == known[i]) return static_cast<Activation>(i);
  throw py::value_error("activation: unknown '" + name +
                        "', known are linear, relu, leaky_relu, tanh, sigmoid, softplus");
}

GanLoss gan_loss_of(const std::string& name) {
  if (name == "non_saturating") return GanLoss::non_saturating;
  if (name == "minimax") return GanLoss::minimax;
  throw py::value_error("kind: unknown '" + name + "', known are non_saturating, minimax");
}

// The table that has the dense layer's products in this precision: picks `product(table)` from it.
template <class Product>
auto in_precision(const std::string& precision, Product product) {
  if (precision == "ieee") return product(kernels());
  if (precision == "bf16") return product(*bf16_kernels().bf16);
  if (precision == "bf16x6") {
    require(bf16_kernels().bf16x6,
            "precision: 'bf16x6' needs AMX, the instructions in use are " + std::string(bf16_kernels().name));
    return product(*bf16_kernels().bf16x6);
  }
  throw py::value_error("precision: unknown '" + precision + "', known are ieee, bf16x6, bf16");
}

// One call of an operation: collects its checked arguments, then runs or records it.
class Call {
 public:
  Call(const char* operation, py::handle program) : operation_(operation) {
    if (!program.is_none()) program_ = &program.cast<Program&>();
  }

  template <class T = float>
  const T* in(const char* name, py::handle value, const Shape& expected) {
    return static_cast<const T*>(add<T>(name, value, Access::read, &expected).data());
  }
  template <class T = float>
  T* out(const char* name, py::handle value, const Shape& expected) {
    return static_cast<T*>(add<T>(name, value, Access::write, &expected).mutable_data());
  }
  template <class T = float>
  T* update(const char* name, py::handle value, const Shape& expected) {
    return static_cast<T*>(add<T>(name, value, Access::update, &expected).mutable_data());
  }
  // An output of any shape.
  float* out(const char* name, py::handle value) {
    return static_cast<float*>(add<float>(name, value, Access::write, nullptr).mutable_data());
  }
  const float* in(const char* name, py::handle value) {
    return static_cast<const float*>(add<float>(name, value, Access::read, nullptr).data());
  }

  // What a program needs to know of this call to fuse it with another.
  void describe(Detail detail) { detail_ = detail; }

  // Of the argument added last.
  const py::array& last() const { return arguments_.back().array; }
  py::ssize_t last_shape(py::ssize_t axis) const { return last().shape(axis); }

  // Memory that each argument names, read and written; an operation that touches less says so.
  double bytes() const {
    double sum = 0;
    for (const Argument& argument : arguments_)
      sum += static_cast<double>(argument.array.nbytes()) * (argument.access == Access::update ? 2 : 1);
    return sum;
  }

  // `in_place`: the output may be the very same buffer as an input (elementwise operations).
  template <class Body>
  void finish(double flops, Body body, bool in_place = false) {
    finish(flops, bytes(), std::move(body), in_place);
  }
  template <class Body>
  void finish(double flops, double bytes, Body body, bool in_place = false) {
    check_overlap(in_place);
    if (program_) {
      program_->append({operation_, std::move(arguments_), flops, bytes, std::move(body), detail_});
      return;
    }
    py::gil_scoped_release release;
    body();
  }

 private:
  template <class T>
  py::array& add(const char* name, py::handle value, Access access, const Shape* expected) {
    py::array array = checked<T>(name, value, access);
    if (expected && !agrees(shape_of(array), *expected))
      throw py::value_error(std::string(name) + " must have shape " + text(*expected) + ", not " +
                            text(shape_of(array)));
    arguments_.push_back({name, std::move(array), access});
    return arguments_.back().array;
  }

  void check_overlap(bool in_place) const {
    for (const Argument& written : arguments_) {
      if (written.access == Access::read) continue;
      const auto* begin = static_cast<const char*>(written.array.data());
      for (const Argument& other : arguments_) {
        const auto* start = static_cast<const char*>(other.array.data());
        if (&other == &written || begin >= start + other.array.nbytes() || start >= begin + written.array.nbytes())
          continue;
        if (in_place && begin == start) continue;
        throw py::value_error(written.name + " and " + other.name + " must not share memory");
      }
    }
  }

  const char* operation_;
  Program* program_ = nullptr;
  std::vector<Argument> arguments_;
  Detail detail_;
};

// --- operations, in the order of minigen/backend.py -------------------------------------------------

using Value = const py::object&;

void dense_forward(Value x, Value W, Value b, Value y, const std::string& activation, Value program,
                   const std::string& precision) {
  Call call("dense_forward", program);
  const Activation act = activation_of(activation);
  const float* px = call.in("x", x, {any, any});
  const int64_t B = call.last_shape(0), I = call.last_shape(1);
  const float* pW = call.in("W", W, {I, any});
  const int64_t O = call.last_shape(1);
  const float* pb = call.in("b", b, {O});
  float* p_y = call.out("y", y, {B, O});
  const auto kernel = in_precision(precision, [](const auto& table) { return table.dense_forward; });
  const DenseForward forward = {kernel, px, pW, pb, p_y, B, I, O, act};
  call.describe(forward);
  call.finish(2.0 * B * I * O, forward);
}

void dense_dgrad(Value dz, Value W, Value dx, Value x, const std::string& activation, Value program,
                 const std::string& precision) {
  Call call("dense_dgrad", program);
  const Activation act = activation_of(activation);
  const float* pdz = call.in("dz", dz, {any, any});
  const int64_t B = call.last_shape(0), O = call.last_shape(1);
  const float* pW = call.in("W", W, {any, O});
  const int64_t I = call.last_shape(0);
  float* pdx = call.out("dx", dx, {B, I});
  const float* px = nullptr;
  if (act != Activation::linear) {
    require(!x.is_none(), "x: the output of the layer before is needed for activation '" + activation + "', got None");
    px = call.in("x", x, {B, I});
  }
  const auto kernel = in_precision(precision, [](const auto& table) { return table.dense_dgrad; });
  call.describe(InputGradient{pdz, pW, px, pdx, B, I, O, act});
  call.finish(2.0 * B * I * O, [=] { kernel(pdz, pW, px, pdx, B, I, O, act); });
}

void dense_wgrad(Value x, Value dz, Value dW, Value db, Value program, const std::string& precision) {
  Call call("dense_wgrad", program);
  const float* px = call.in("x", x, {any, any});
  const int64_t B = call.last_shape(0), I = call.last_shape(1);
  const float* pdz = call.in("dz", dz, {B, any});
  const int64_t O = call.last_shape(1);
  float* pdW = call.out("dW", dW, {I, O});
  float* pdb = call.out("db", db, {O});
  const auto kernel = in_precision(precision, [](const auto& table) { return table.dense_wgrad; });
  const auto with_adam = in_precision(precision, [](const auto& table) { return table.dense_wgrad_adam; });
  // Elsewhere than in float32 a fused update pays where weights and moments are more than a core's cache holds.
  const bool fuse = precision == "ieee" || I * O >= 1 << 17;
  const WeightGradient gradient = {kernel, fuse ? with_adam : nullptr, px, pdz, pdW, pdb, B, I, O};
  call.describe(gradient);
  call.finish(2.0 * B * I * O + 1.0 * B * O, gradient);
}

void activation_forward(Value z, Value y, const std::string& activation, Value program) {
  Call call("activation_forward", program);
  const Activation act = activation_of(activation);
  const float* pz = call.in("z", z);
  const int64_t n = call.last().size();
  float* p_y = call.out("y", y, shape_of(call.last()));
  const auto kernel = kernels().activation_forward;
  call.finish(1.0 * n, [=] { kernel(pz, p_y, n, act); }, true);
}

void activation_backward(Value dy, Value y, Value dz, const std::string& activation, Value program) {
  Call call("activation_backward", program);
  const Activation act = activation_of(activation);
  const float* pdy = call.in("dy", dy);
  const int64_t n = call.last().size();
  const Shape shape = shape_of(call.last());
  const float* p_y = call.in("y", y, shape);
  float* pdz = call.out("dz", dz, shape);
  const auto kernel = kernels().activation_backward;
  call.finish(2.0 * n, [=] { kernel(pdy, p_y, pdz, n, act); }, true);
}

void gan_loss_discriminator(Value logits, int64_t n_real, Value dlogits, Value loss, Value program) {
  Call call("gan_loss_discriminator", program);
  const float* ps = call.in("logits", logits, {any, 1});
  const int64_t B = call.last_shape(0);
  require(n_real > 0 && n_real < B, "n_real must leave a real and a generated row, 1 to " + std::to_string(B - 1) +
                                        " of " + std::to_string(B) + ", not " + std::to_string(n_real));
  float* pds = call.out("dlogits", dlogits, {B, 1});
  float* ploss = call.out("loss", loss, {1});
  const auto kernel = kernels().gan_loss_discriminator;
  call.describe(GanLossCall{Player::discriminator, ps, pds, ploss, B, n_real});
  call.finish(2.0 * B, [=] { kernel(ps, B, n_real, pds, ploss); });
}

void gan_loss_generator(Value logits, Value dlogits, Value loss, const std::string& kind, Value program) {
  Call call("gan_loss_generator", program);
  const GanLoss which = gan_loss_of(kind);
  const float* ps = call.in("logits", logits, {any, 1});
  const int64_t B = call.last_shape(0);
  require(B > 0, "logits has no rows, the mean loss of nothing is not defined");
  float* pds = call.out("dlogits", dlogits, {B, 1});
  float* ploss = call.out("loss", loss, {1});
  const auto kernel = kernels().gan_loss_generator;
  const Player player = which == GanLoss::minimax ? Player::minimax_generator : Player::generator;
  call.describe(GanLossCall{player, ps, pds, ploss, B, B});
  call.finish(2.0 * B, [=] { kernel(ps, B, which, pds, ploss); });
}

void vae_loss_bernoulli(Value logits, Value x, Value dlogits, Value rows, Value loss, Value program) {
  Call call("vae_loss_bernoulli", program);
  const float* pl = call.in("logits", logits, {any, any});
  const int64_t B = call.last_shape(0), D = call.last_shape(1);
  require(B > 0, "logits has no rows, the mean loss of nothing is not defined");
  const float* px = call.in("x", x, {B, D});
  float* pdl = call.out("dlogits", dlogits, {B, D});
  float* prows = call.out("rows", rows, {B});
  float* ploss = call.out("loss", loss, {1});
  const auto kernel = kernels().vae_loss_bernoulli;
  call.finish(6.0 * B * D, [=] { kernel(pl, px, pdl, prows, ploss, B, D); });
}

void vae_loss_gaussian(Value mean, Value x, Value dmean, Value rows, Value loss, double variance, Value program) {
  Call call("vae_loss_gaussian", program);
  require(variance > 0 && variance < HUGE_VAL, "variance must be positive and finite, not " + std::to_string(variance));
  const float* pmean = call.in("mean", mean, {any, any});
  const int64_t B = call.last_shape(0), D = call.last_shape(1);
  require(B > 0, "mean has no rows, the mean loss of nothing is not defined");
  const float* px = call.in("x", x, {B, D});
  float* pdmean = call.out("dmean", dmean, {B, D});
  float* prows = call.out("rows", rows, {B});
  float* ploss = call.out("loss", loss, {1});
  const auto kernel = kernels().vae_loss_gaussian;
  call.finish(4.0 * B * D, [=] { kernel(pmean, px, pdmean, prows, ploss, B, D, variance); });
}

void latent_forward(Value heads, Value eps, Value z, Value rows, Value loss, Value program) {
  Call call("latent_forward", program);
  const float* peps = call.in("eps", eps, {any, any});
  const int64_t B = call.last_shape(0), L = call.last_shape(1);
  require(B > 0, "eps has no rows, the mean KL of nothing is not defined");
  const float* pheads = call.in("heads", heads, {B, 2 * L});
  float* pz = call.out("z", z, {B, L});
  float* prows = call.out("rows", rows, {B});
  float* ploss = call.out("loss", loss, {1});
  const auto kernel = kernels().latent_forward;
  call.finish(8.0 * B * L, [=] { kernel(pheads, peps, pz, prows, ploss, B, L); });
}

void latent_backward(Value dz, Value heads, Value eps, Value dheads, double beta, Value program) {
  Call call("latent_backward", program);
  const float* pdz = call.in("dz", dz, {any, any});
  const int64_t B = call.last_shape(0), L = call.last_shape(1);
  const float* pheads = call.in("heads", heads, {B, 2 * L});
  const float* peps = call.in("eps", eps, {B, L});
  float* pdheads = call.out("dheads", dheads, {B, 2 * L});
  const auto kernel = kernels().latent_backward;
  call.finish(8.0 * B * L, [=] { kernel(pdz, pheads, peps, pdheads, B, L, beta); });
}

void sgd(Value p, Value g, Value velocity, Value lr, double momentum, double weight_decay, Value program) {
  Call call("sgd", program);
  float* pp = call.update("p", p, {any});
  const int64_t n = call.last_shape(0);
  const float* pg = call.in("g", g, {n});
  float* pvelocity = call.update("velocity", velocity, {n});
  const float* plr = call.in("lr", lr, {1});
  const auto kernel = kernels().sgd;
  call.finish(6.0 * n, [=] { kernel(pp, pg, pvelocity, n, plr, momentum, weight_decay); });
}

void adam_or_adamw(const char* operation, Value p, Value g, Value m, Value v, Value lr, Value step,
                   AdamSettings settings, Value program) {
  Call call(operation, program);
  float* pp = call.update("p", p, {any});
  const int64_t n = call.last_shape(0);
  const float* pg = call.in("g", g, {n});
  float* pm = call.update("m", m, {n});
  float* pv = call.update("v", v, {n});
  const float* plr = call.in("lr", lr, {1});
  const uint64_t* pstep = call.in<uint64_t>("step", step, {1});
  const auto kernel = kernels().adam;
  call.describe(AdamUpdate{{pp, pm, pv}, pg, n, plr, pstep, settings});
  call.finish(14.0 * n, [=] { kernel(pp, pg, pm, pv, n, plr, pstep, settings); });
}

void adam(Value p, Value g, Value m, Value v, Value lr, Value step, double beta1, double beta2, double eps,
          Value program) {
  adam_or_adamw("adam", p, g, m, v, lr, step, {beta1, beta2, eps, 0.0}, program);
}

void adamw(Value p, Value g, Value m, Value v, Value lr, Value step, double beta1, double beta2, double eps,
           double weight_decay, Value program) {
  adam_or_adamw("adamw", p, g, m, v, lr, step, {beta1, beta2, eps, weight_decay}, program);
}

void random_uniform(Value out, int64_t seed, int64_t stream, Value step, Value program) {
  Call call("random_uniform", program);
  const uint32_t key0 = word("seed", seed), key1 = word("stream", stream);
  float* pout = call.out("out", out);
  const int64_t n = call.last().size();
  const uint64_t* pstep = call.in<uint64_t>("step", step, {1});
  const auto kernel = kernels().random_uniform;
  call.finish(1.0 * n, [=] { kernel(pout, n, key0, key1, pstep); });
}

void random_normal(Value out, int64_t seed, int64_t stream, Value step, Value program) {
  Call call("random_normal", program);
  const uint32_t key0 = word("seed", seed), key1 = word("stream", stream);
  float* pout = call.out("out", out);
  const int64_t n = call.last().size();
  const uint64_t* pstep = call.in<uint64_t>("step", step, {1});
  const auto kernel = kernels().random_normal;
  call.finish(25.0 * n, [=] { kernel(pout, n, key0, key1, pstep); });
}

void batch_indices(Value indices, int64_t n, int64_t seed, int64_t stream, Value step, int64_t batch_size,
                   int64_t steps_per_epoch, Value program) {
  Call call("batch_indices", program);
  const uint32_t key0 = word("seed", seed), key1 = word("stream", stream);
  require(n >= 1 && n < (int64_t{1} << 31), "n must be in [1, 2**31), not " + std::to_string(n));
  require(steps_per_epoch >= 1 && steps_per_epoch < (int64_t{1} << 31),
          "steps_per_epoch must be in [1, 2**31), not " + std::to_string(steps_per_epoch));
  int32_t* pindices = call.out<int32_t>("indices", indices, {any});
  const int64_t rows = call.last_shape(0);
  require(batch_size < (int64_t{1} << 31) && rows <= batch_size,
          "batch_size must be at least the " + std::to_string(rows) + " entries of indices and below 2**31, not " +
              std::to_string(batch_size));
  const uint64_t* pstep = call.in<uint64_t>("step", step, {1});
  const auto kernel = kernels().batch_indices;
  call.finish(0.0, [=] { kernel(pindices, rows, n, key0, key1, pstep, batch_size, steps_per_epoch); });
}

// Whether u * scale + shift is a whole number of at most 255, divided by that, for every byte u.
bool are_pixels(float scale, float shift) {
  for (int u = 0; u < 256; ++u) {
    const float value = static_cast<float>(u) * scale + shift, whole = std::nearbyint(255.0f * value);
    if (!(std::abs(whole) <= 255.0f && std::abs(whole / 255.0f - value) <= 0x1p-23f)) return false;
  }
  return true;
}

void batch_gather(Value data, Value indices, Value out, double scale, double shift, Value program) {
  Call call("batch_gather", program);
  const bool bytes = py::isinstance<py::array_t<uint8_t>>(data);
  const void* pdata = bytes ? static_cast<const void*>(call.in<uint8_t>("data", data, {any, any}))
                            : static_cast<const void*>(call.in<float>("data", data, {any, any}));
  const int64_t N = call.last_shape(0), D = call.last_shape(1);
  const int32_t* pindices = call.in<int32_t>("indices", indices, {any});
  const int64_t B = call.last_shape(0);
  float* pout = call.out("out", out, {B, D});
  const double moved = 1.0 * B * D * (bytes ? 5 : 8) + 4.0 * B;
  const float a = static_cast<float>(scale), c = static_cast<float>(shift);
  const Kernels& k = kernels();
  if (bytes && are_pixels(a, c)) call.describe(Pixels{pout, B, D});
  call.finish(2.0 * B * D, moved, [=, &k] {
    if (bytes)
      k.batch_gather_bytes(static_cast<const uint8_t*>(pdata), N, pindices, pout, B, D, a, c);
    else
      k.batch_gather_floats(static_cast<const float*>(pdata), N, pindices, pout, B, D, a, c);
  });
}

void advance(Value step, Value losses, Value history, Value program) {
  Call call("advance", program);
  uint64_t* pstep = call.update<uint64_t>("step", step, {1});
  const float* plosses = call.in("losses", losses, {any});
  const int64_t K = call.last_shape(0);
  float* phistory = call.out("history", history, {any, K});
  const uint64_t H = static_cast<uint64_t>(call.last_shape(0));
  require(H > 0, "history must have at least one row");
  call.finish(0.0, 8.0 * K + 16.0, [=] {
    float* row = phistory + static_cast<int64_t>(pstep[0] % H) * K;
    for (int64_t k = 0; k < K; ++k) row[k] = plosses[k];
    ++pstep[0];
  });
}

double peak_gflops(double (*kernel)(int, double), int threads, double seconds) {
  require(threads >= 1 && threads <= max_threads,
          "threads must be from 1 to " + std::to_string(max_threads) + ", not " + std::to_string(threads));
  require(seconds > 0 && seconds <= 60, "seconds must be in (0, 60], not " + std::to_string(seconds));
  py::gil_scoped_release release;
  return kernel(threads, seconds);
}

double fma_peak_gflops(int threads, double seconds) { return peak_gflops(kernels().fma_peak_gflops, threads, seconds); }

double bf16_peak_gflops(int threads, double seconds) {
  return peak_gflops(bf16_kernels().peak_gflops, threads, seconds);
}

}  // namespace
}  // namespace minigen::bindings

PYBIND11_MODULE(_native, module) {
  using namespace minigen::bindings;
  module.doc() = "CPU kernels of minigen. Operations: see minigen.backend.Backend.";

  py::class_<Program>(module, "Program", "A list of recorded operations that runs without the interpreter.")
      .def(py::init<>())
      .def("close", &Program::close, "End the recording.")
      .def("run", &Program::run, "steps"_a, "Execute the recorded operations in order, `steps` times.")
      .def("profile", &Program::profile, "steps"_a, "Replay; the seconds of each operation, [steps][operations].")
      .def("describe", &Program::describe, "For each operation: its name, shapes, FLOPs, and bytes moved.");

  const auto program = py::arg_v("program", py::none(), "None");
  const auto precision = py::arg_v("precision", "ieee");
  module.def("dense_forward", &dense_forward, "x"_a, "W"_a, "b"_a, "y"_a, "activation"_a = "linear", program,
             precision);
  module.def("dense_dgrad", &dense_dgrad, "dz"_a, "W"_a, "dx"_a, "x"_a = py::none(), "activation"_a = "linear", program,
             precision);
  module.def("dense_wgrad", &dense_wgrad, "x"_a, "dz"_a, "dW"_a, "db"_a, program, precision);
  module.def("activation_forward", &activation_forward, "z"_a, "y"_a, "activation"_a, program);
  module.def("activation_backward", &activation_backward, "dy"_a, "y"_a, "dz"_a, "activation"_a, program);
  module.def("gan_loss_discriminator", &gan_loss_discriminator, "logits"_a, "n_real"_a, "dlogits"_a, "loss"_a, program);
  module.def("gan_loss_generator", &gan_loss_generator, "logits"_a, "dlogits"_a, "loss"_a, "kind"_a = "non_saturating",
             program);
  module.def("vae_loss_bernoulli", &vae_loss_bernoulli, "logits"_a, "x"_a, "dlogits"_a, "rows"_a, "loss"_a, program);
  module.def("vae_loss_gaussian", &vae_loss_gaussian, "mean"_a, "x"_a, "dmean"_a, "rows"_a, "loss"_a,
             "variance"_a = 1.0, program);
  module.def("latent_forward", &latent_forward, "heads"_a, "eps"_a, "z"_a, "rows"_a, "loss"_a, program);
  module.def("latent_backward", &latent_backward, "dz"_a, "heads"_a, "eps"_a, "dheads"_a, "beta"_a = 1.0, program);
  module.def("sgd", &sgd, "p"_a, "g"_a, "velocity"_a, "lr"_a, "momentum"_a = 0.0, "weight_decay"_a = 0.0, program);
  module.def("adam", &adam, "p"_a, "g"_a, "m"_a, "v"_a, "lr"_a, "step"_a, "beta1"_a = 0.9, "beta2"_a = 0.999,
             "eps"_a = 1e-8, program);
  module.def("adamw", &adamw, "p"_a, "g"_a, "m"_a, "v"_a, "lr"_a, "step"_a, "beta1"_a = 0.9, "beta2"_a = 0.999,
             "eps"_a = 1e-8, "weight_decay"_a = 0.01, program);
  module.def("random_uniform", &random_uniform, "out"_a, "seed"_a, "stream"_a, "step"_a, program);
  module.def("random_normal", &random_normal, "out"_a, "seed"_a, "stream"_a, "step"_a, program);
  module.def("batch_indices", &batch_indices, "indices"_a, "n"_a, "seed"_a, "stream"_a, "step"_a, "batch_size"_a,
             "steps_per_epoch"_a, program);
  module.def("batch_gather", &batch_gather, "data"_a, "indices"_a, "out"_a, "scale"_a = 1.0, "shift"_a = 0.0, program);
  module.def("advance", &advance, "step"_a, "losses"_a, "history"_a, program);

  module.def(
      "isa", [] { return minigen::kernels().isa; }, "The instruction set in use; ValueError if MINIGEN_ISA is wrong.");
  module.def("supported_isas", &minigen::supported_isas, "The instruction sets that MINIGEN_ISA may name here.");
  module.def(
      "bf16", [] { return minigen::bf16_kernels().name; },
      "The instructions that precision bf16 uses; ValueError where there are none or MINIGEN_BF16 is wrong.");
  module.def("supported_bf16", &minigen::supported_bf16, "The instructions that MINIGEN_BF16 may name here.");
  module.def("get_num_threads", &minigen::thread_limit);
  module.def("set_num_threads", &minigen::set_thread_limit, "threads"_a, "beyond_cores"_a = false,
             "More than the cores only with beyond_cores, for tests.");
  module.def("usable_cores", &minigen::usable_cores, "Cores that this process may use.");
  module.def("quota_cores", &minigen::quota_cores, "root"_a = "",
             "Cores that the control groups leave, 1024 without a limit; /proc and /sys are looked for in root.");
  module.def("choose_threads", &minigen::ThreadChoice::enable, "enabled"_a,
             "Whether programs choose how many threads their steps take (as at first), or take all.");
  py::class_<minigen::ThreadChoice>(module, "ThreadChoice",
                                    "How many threads the steps of a program take, from how long they took.")
      .def(py::init<>())
      .def("threads", &minigen::ThreadChoice::threads, "limit"_a, "For the next step.")
      .def("took", &minigen::ThreadChoice::took, "seconds"_a, "Tell how long it took.");
  module.def("fma_peak_gflops", &fma_peak_gflops, "threads"_a, "seconds"_a = 0.2,
             "Measured arithmetic peak of the instruction set in use, GFLOP/s.");
  module.def("bf16_peak_gflops", &bf16_peak_gflops, "threads"_a, "seconds"_a = 0.2,
             "The same of products in bf16; ValueError where there are none.");
}
