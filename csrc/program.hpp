// Program: a list of kernel calls that runs without Python.
#pragma once

#include <pybind11/numpy.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "cpu/dispatch.hpp"
#include "cpu/thread_choice.hpp"
#include "cpu/threads.hpp"

namespace minigen::bindings {

namespace py = pybind11;
using namespace py::literals;

enum class Access { read, write, update };

struct Bytes {
  const char *begin, *end;

  bool overlaps(Bytes other) const { return begin < other.end && other.begin < end; }
  bool contains(Bytes other) const { return begin <= other.begin && other.end <= end; }
};

inline Bytes floats(const float* p, int64_t n) {
  return {reinterpret_cast<const char*>(p), reinterpret_cast<const char*>(p + n)};
}

// One argument of a recorded call. `array` keeps the memory alive as long as the program.
struct Argument {
  std::string name;
  py::array array;
  Access access;

  Bytes bytes() const {
    const auto* begin = static_cast<const char*>(array.data());
    return {begin, begin + array.nbytes()};
  }
};

// The calls that a program knows how to fuse or to simplify.
struct DenseForward {
  decltype(Kernels::dense_forward) kernel;
  const float *x, *W, *b;
  float* y;
  int64_t B, I, O;
  Activation activation;
  int64_t pixels = 0;

  void operator()() const { kernel(x, W, b, y, B, I, O, activation, pixels); }
};
struct WeightGradient {
  decltype(Kernels::dense_wgrad) kernel;
  decltype(Kernels::dense_wgrad_adam) with_adam;  // null: Adam had better be a call of its own
  const float *x, *dz;
  float *dW, *db;
  int64_t B, I, O;
  int64_t pixels = 0;

  void operator()() const { kernel(x, dz, dW, db, B, I, O, pixels); }

  Bytes x_bytes() const { return floats(x, B * I); }
  Bytes dz_bytes() const { return floats(dz, B * O); }
  Bytes dW_bytes() const { return floats(dW, I * O); }
  Bytes db_bytes() const { return floats(db, O); }
};
struct AdamUpdate {
  AdamSlots slots;
  const float* g;
  int64_t n;
  const float* lr;
  const uint64_t* step;
  AdamSettings settings;

  // Where the parameters of this part of the gradient lie, and their moments.
  AdamSlots slots_of(const float* part) const {
    const ptrdiff_t offset = part - g;
    return {slots.p + offset, slots.m + offset, slots.v + offset};
  }
};
struct InputGradient {
  const float *dz, *W, *x;
  float* dx;
  int64_t B, I, O;
  Activation activation;
};
struct GanLossCall {
  Player player;
  const float* logits;
  float *dlogits, *loss;
  int64_t B, n_real;
};
// Rows of bytes as floats, u / 255 or, centred, (2 u - 255) / 255.
struct Pixels {
  const float* out;
  int64_t B, D;

  Bytes bytes() const { return floats(out, B * D); }
};
using Detail =
    std::variant<std::monostate, DenseForward, WeightGradient, InputGradient, GanLossCall, AdamUpdate, Pixels>;

struct Recorded {
  std::string operation;
  std::vector<Argument> arguments;
  double flops, bytes;
  std::function<void()> run;
  Detail detail;
  int64_t pixels = 0;  // rows of the input that the kernel was told are pixels
};

class Program {
 public:
  void append(Recorded call) {
    if (closed_) throw std::runtime_error("program: already closed, it takes no more calls");
    calls_.push_back(std::move(call));
  }

  void close() {
    for (size_t i = 0; !closed_ && i < calls_.size(); ++i) mark_pixels(i);
    for (size_t i = 0; !closed_ && i < calls_.size(); ++i) fuse_head(i);
    for (size_t i = 0; !closed_ && i < calls_.size(); ++i) fuse_update(i);
    closed_ = true;
  }

  void run(int64_t steps) const {
    check(steps);
    py::gil_scoped_release release;
    with_team([&] {
      for (int64_t step = 0; step < steps; ++step) run_and_time_step();
    });
  }

  // The same; returns the seconds of each call in each step, [steps][calls].
  std::vector<std::vector<double>> profile(int64_t steps) const {
    check(steps);
    std::vector<std::vector<double>> seconds(static_cast<size_t>(steps), std::vector<double>(calls_.size()));
    py::gil_scoped_release release;
    with_team([&] {
      Clock::time_point before = Clock::now();
      for (std::vector<double>& of_step : seconds)
        for (size_t i = 0; i < calls_.size(); ++i) {
          calls_[i].run();
          const Clock::time_point after = Clock::now();
          of_step[i] = std::chrono::duration<double>(after - before).count();
          before = after;
        }
    });
    return seconds;
  }

  py::list describe() const {
    py::list result;
    for (const Recorded& call : calls_) {
      py::dict shapes;
      for (const Argument& argument : call.arguments) shapes[py::str(argument.name)] = argument.array.attr("shape");
      py::dict described("operation"_a = call.operation, "shapes"_a = shapes, "flops"_a = call.flops,
                         "bytes"_a = call.bytes);
      if (call.pixels) described["pixels"] = call.pixels;
      result.append(described);
    }
    return result;
  }

 private:
  using Clock = std::chrono::steady_clock;

  // One step, on as many threads of the team as serve best.
  void run_and_time_step() const {
    const bool choose = team_size() > 1;
    if (choose) use_threads(choice_.threads(team_size()));
    const Clock::time_point before = Clock::now();
    for (const Recorded& call : calls_) call.run();
    if (choose) choice_.took(std::chrono::duration<double>(Clock::now() - before).count());
  }

  void check(int64_t steps) const {
    if (steps < 0) throw std::invalid_argument("steps must be at least 0, not " + std::to_string(steps));
    if (!closed_) throw std::runtime_error("program: still recording, close it before it runs");
  }

  // If call `at` reads rows that begin with pixels of this step, it is told how many.
  void mark_pixels(size_t at) {
    const auto tell = [&](auto& call) {
      calls_[at].pixels = call.pixels = pixels_before(at, call.x, call.B, call.I);
      calls_[at].run = call;
    };
    if (auto* forward = std::get_if<DenseForward>(&calls_[at].detail)) tell(*forward);
    if (auto* gradient = std::get_if<WeightGradient>(&calls_[at].detail)) tell(*gradient);
  }

  // How many of the first rows of x[B,I] are pixels when call `at` reads them.
  int64_t pixels_before(size_t at, const float* x, int64_t B, int64_t I) const {
    for (size_t i = at; i-- > 0;) {
      const auto* pixels = std::get_if<Pixels>(&calls_[i].detail);
      if (!pixels || pixels->out != x || pixels->D != I) continue;
      for (size_t between = i + 1; between < at; ++between)
        for (Bytes written : written_by(calls_[between]))
          if (written.overlaps(pixels->bytes())) return 0;
      return std::min(B, pixels->B);
    }
    return 0;
  }

  // A detail of call `at`; null if there is no such call or it has none of that kind.
  template <class T>
  const T* detail(size_t at) const {
    return at < calls_.size() ? std::get_if<T>(&calls_[at].detail) : nullptr;
  }

  // If call `at` is a layer of one output, and then come a GAN's loss of its logits, the layer's weight gradient or
  // not, and its input gradient, they become one call that leaves the same in all their buffers, but for rounding.
  void fuse_head(size_t at) {
    const auto* layer = detail<DenseForward>(at);
    const auto* loss = detail<GanLossCall>(at + 1);
    const auto* weights = detail<WeightGradient>(at + 2);
    const size_t end = at + (weights ? 4 : 3);
    const auto* input = detail<InputGradient>(end - 1);
    if (!layer || !loss || !input || layer->O != 1 || layer->activation != Activation::linear ||
        layer->y != loss->logits || loss->dlogits != input->dz || layer->W != input->W || layer->B != loss->B ||
        (input->activation != Activation::linear && input->x != layer->x))
      return;
    if (weights && (weights->x != layer->x || weights->dz != loss->dlogits)) return;
    for (size_t i = at; i < end; ++i)  // nothing that one reads is written by another, but logits and their gradient
      for (Bytes written : written_by(calls_[i]))
        for (size_t j = at; j < end; ++j)
          for (const Argument& argument : calls_[j].arguments)
            if (j != i && argument.bytes().overlaps(written) && argument.array.data() != layer->y &&
                argument.array.data() != loss->dlogits)
              return;

    const GanHead head = {loss->player,
                          layer->x,
                          layer->W,
                          layer->b,
                          input->activation,
                          layer->B,
                          layer->I,
                          loss->n_real,
                          layer->y,
                          loss->dlogits,
                          loss->loss,
                          input->dx,
                          weights ? weights->dW : nullptr,
                          weights ? weights->db : nullptr};
    const auto kernel = kernels().gan_head;
    Recorded fused = {"gan_head", {}, 0, 0, [=] { kernel(head); }, {}};
    for (size_t i = at; i < end; ++i) {
      fused.arguments.insert(fused.arguments.end(), calls_[i].arguments.begin(), calls_[i].arguments.end());
      fused.flops += calls_[i].flops;
      fused.bytes += calls_[i].bytes;
    }
    // The layer's input is read once, not by each.
    fused.bytes -= sizeof(float) * static_cast<double>((end - at - 2) * static_cast<size_t>(layer->B * layer->I));
    calls_[at] = std::move(fused);
    calls_.erase(calls_.begin() + static_cast<ptrdiff_t>(at) + 1, calls_.begin() + static_cast<ptrdiff_t>(end));
  }

  // If call `at` is an Adam whose gradient is made by weight gradients of this program and read by nobody else, these
  // move to its place and each updates its own layer, part by part: the gradient never goes through memory. What lies
  // between the layers (padding, or layers for which that does not pay) is updated as before. The results have the same
  // bits; only the buffer of the gradient is left with whatever was in it.
  void fuse_update(size_t& at) {
    const auto* adam = std::get_if<AdamUpdate>(&calls_[at].detail);
    if (!adam) return;
    const std::vector<size_t> layers = layers_of(at);
    std::vector<Bytes> parts = parts_of(layers);
    if (layers.empty() || overlap(parts)) return;

    std::vector<Recorded> fused;
    for (size_t layer : layers) fused.push_back(wgrad_with_update(calls_[layer], calls_[at]));
    int64_t done = 0;
    for (Bytes part : parts) {
      const int64_t begin = reinterpret_cast<const float*>(part.begin) - adam->g;
      if (done < begin) fused.push_back(update_of(calls_[at], done, begin));
      done = reinterpret_cast<const float*>(part.end) - adam->g;
    }
    if (done < adam->n) fused.push_back(update_of(calls_[at], done, adam->n));

    const auto position = [&](size_t i) { return calls_.begin() + static_cast<ptrdiff_t>(i); };
    calls_.erase(position(at));
    for (size_t i = layers.size(); i-- > 0;) calls_.erase(position(layers[i]));
    at -= layers.size();
    calls_.insert(position(at), fused.begin(), fused.end());
    at += fused.size() - 1;
  }

  // The weight gradients that make parts of the gradient of the Adam `at` and may wait until then, in order; none if
  // it may not be fused.
  std::vector<size_t> layers_of(size_t at) const {
    const auto& adam = std::get<AdamUpdate>(calls_[at].detail);
    const Bytes gradient = floats(adam.g, adam.n);
    std::vector<Bytes> written;  // from a layer to the update, by calls that do not move
    std::vector<size_t> layers, others;
    for (size_t i = calls_.size(); i-- > 0;) {
      const auto* layer = std::get_if<WeightGradient>(&calls_[i].detail);
      if (i < at && layer && layer->with_adam && gradient.contains(layer->dW_bytes()) &&
          gradient.contains(layer->db_bytes())) {
        for (Bytes bytes : written)
          if (bytes.overlaps(layer->x_bytes()) || bytes.overlaps(layer->dz_bytes())) return {};
        layers.insert(layers.begin(), i);
        continue;
      }
      if (i != at) others.push_back(i);
      if (i > at) continue;
      const std::vector<Bytes> more = written_by(calls_[i]);
      written.insert(written.end(), more.begin(), more.end());
    }
    for (size_t i : others)
      for (Bytes part : parts_of(layers))
        for (const Argument& argument : calls_[i].arguments)
          if (argument.bytes().overlaps(part)) return {};
    return layers;
  }

  static std::vector<Bytes> written_by(const Recorded& call) {
    std::vector<Bytes> written;
    for (const Argument& argument : call.arguments)
      if (argument.access != Access::read) written.push_back(argument.bytes());
    return written;
  }

  // What these layers fill of their gradient, by address.
  std::vector<Bytes> parts_of(const std::vector<size_t>& layers) const {
    std::vector<Bytes> parts;
    for (size_t i : layers) {
      const auto& layer = std::get<WeightGradient>(calls_[i].detail);
      parts.push_back(layer.dW_bytes());
      parts.push_back(layer.db_bytes());
    }
    std::sort(parts.begin(), parts.end(), [](Bytes a, Bytes b) { return a.begin < b.begin; });
    return parts;
  }

  static bool overlap(const std::vector<Bytes>& sorted) {
    for (size_t i = 1; i < sorted.size(); ++i)
      if (sorted[i - 1].overlaps(sorted[i])) return true;
    return false;
  }

  static Recorded wgrad_with_update(const Recorded& wgrad, const Recorded& update) {
    const auto layer = std::get<WeightGradient>(wgrad.detail);
    const auto adam = std::get<AdamUpdate>(update.detail);
    const AdamSlots W = adam.slots_of(layer.dW), b = adam.slots_of(layer.db);
    const auto run = [=] {
      layer.with_adam(layer.x, layer.dz, layer.dW, layer.db, layer.B, layer.I, layer.O, W, b, adam.lr, adam.step,
                      adam.settings, layer.pixels);
    };
    std::vector<Argument> arguments = wgrad.arguments;
    arguments.insert(arguments.end(), update.arguments.begin(), update.arguments.end());
    const double parameters = static_cast<double>(layer.I * layer.O + layer.O);
    const double flops = wgrad.flops + update.flops / static_cast<double>(adam.n) * parameters;
    const double bytes = sizeof(float) * (static_cast<double>(layer.B * (layer.I + layer.O)) + 6 * parameters);
    return {"dense_wgrad_" + update.operation, std::move(arguments), flops, bytes, run, {}, layer.pixels};
  }

  // The elements [begin, end) of an update.
  static Recorded update_of(const Recorded& update, int64_t begin, int64_t end) {
    const auto adam = std::get<AdamUpdate>(update.detail);
    const auto kernel = kernels().adam;
    const AdamSlots slots = adam.slots_of(adam.g + begin);
    const float* g = adam.g + begin;
    const auto run = [=] { kernel(slots.p, g, slots.m, slots.v, end - begin, adam.lr, adam.step, adam.settings); };
    const double share = static_cast<double>(end - begin) / static_cast<double>(adam.n);
    return {update.operation, update.arguments, share * update.flops, share * update.bytes, run, {}};
  }

  std::vector<Recorded> calls_;
  bool closed_ = false;
  mutable ThreadChoice choice_;  // used by the thread that has the team, and by no other
};

}  // namespace minigen::bindings
