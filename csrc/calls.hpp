// Calls of kernels bound to arguments that Python gives, and lists of them that run without the interpreter.
//
// Nothing here checks an argument: minigen/ops.py does, once for every device. What a kernel is called and what its
// arguments are called is what cpu/operations.inc says.
#pragma once

#include <pybind11/numpy.h>

#include <chrono>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "cpu/bf16.hpp"
#include "cpu/dispatch.hpp"
#include "cpu/thread_choice.hpp"
#include "cpu/threads.hpp"

namespace minigen::bindings {

namespace py = pybind11;

using Call = std::function<void()>;

// --- from Python's values to a kernel's arguments -------------------------------------------------------------------

template <class T>
struct From {
  static T python(py::handle value) { return value.cast<T>(); }
};

template <class T>
struct From<T*> {  // an array, or None
  static T* python(py::handle value) {
    if (value.is_none()) return nullptr;
    const auto array = py::reinterpret_borrow<py::array>(value);
    return static_cast<T*>(const_cast<void*>(array.data()));
  }
};

template <>
struct From<AdamSlots> {
  static AdamSlots python(py::handle value) {
    const auto slots = py::reinterpret_borrow<py::tuple>(value);
    return {From<float*>::python(slots[0]), From<float*>::python(slots[1]), From<float*>::python(slots[2])};
  }
};

template <>
struct From<AdamSettings> {
  static AdamSettings python(py::handle value) {
    const auto [beta1, beta2, eps, weight_decay] = value.cast<std::tuple<double, double, double, double>>();
    return {beta1, beta2, eps, weight_decay};
  }
};

template <class Enum>
Enum named(py::handle value, const std::vector<const char*>& names) {
  const auto name = value.cast<std::string>();
  for (size_t i = 0; i < names.size(); ++i)
    if (name == names[i]) return static_cast<Enum>(i);
  throw py::value_error("the CPU's kernels know no " + name);
}

template <>
struct From<Activation> {
  static Activation python(py::handle value) {
    return named<Activation>(value, {"linear", "relu", "leaky_relu", "elu", "tanh", "sigmoid", "softplus"});
  }
};

template <>
struct From<SelfGated> {
  static SelfGated python(py::handle value) { return named<SelfGated>(value, {"gelu", "silu"}); }
};

template <>
struct From<Player> {
  static Player python(py::handle value) { return named<Player>(value, {"discriminator", "generator"}); }
};

template <>
struct From<Schedule> {
  static Schedule python(py::handle value) { return named<Schedule>(value, {"constant", "cosine", "step", "linear"}); }
};

template <>
struct From<GanLoss> {
  static GanLoss python(py::handle value) {
#define GAME(name, real, fake, generator) #name,
    return named<GanLoss>(value, {MINIGEN_GAN_LOSSES(GAME)});
#undef GAME
  }
};

template <>
struct From<Likelihood> {
  static Likelihood python(py::handle value) {
#define LIKELIHOOD(name, has_variance) #name,
    return named<Likelihood>(value, {MINIGEN_LIKELIHOODS(LIKELIHOOD)});
#undef LIKELIHOOD
  }
};

// --- kernels --------------------------------------------------------------------------------------------------------

template <class R, class... A, size_t... i>
Call with_arguments(R (*kernel)(A...), const py::tuple& values, std::index_sequence<i...>) {
  return [kernel, arguments = std::tuple<A...>(From<A>::python(values[i])...)] { std::apply(kernel, arguments); };
}

template <class R, class... A>
Call with_arguments(R (*kernel)(A...), const py::tuple& values) {
  if (values.size() != sizeof...(A)) throw py::value_error("a kernel got the wrong number of arguments");
  return with_arguments(kernel, values, std::index_sequence_for<A...>());
}

// `kernel(table)` is a member of the table that has the dense layer's products in this precision.
template <class Kernel>
auto in_precision(const std::string& precision, const Kernel& kernel) {
  if (precision == "ieee") return kernel(kernels());
  return kernel(precision == "bf16" ? *bf16_kernels().bf16 : *bf16_kernels().bf16x6);
}

struct Bindable {
  const char* arguments;  // as C++ declares them
  Call (*bind)(const py::tuple& values, const std::string& precision);
};

// Every kernel by its name.
inline const std::map<std::string, Bindable>& bindables() {
  static const std::map<std::string, Bindable> known = [] {
    std::map<std::string, Bindable> table;
#define OPERATION(result, name, arguments)                                                \
  table[#name] = {#arguments, [](const py::tuple& values, const std::string& precision) { \
                    const auto kernel = [](const auto& table) {                           \
                      if constexpr (requires { table.name; })                             \
                        return table.name;                                                \
                      else                                                                \
                        return kernels().name;                                            \
                    };                                                                    \
                    return with_arguments(in_precision(precision, kernel), values);       \
                  }};
#include "cpu/operations.inc"
#undef OPERATION
    return table;
  }();
  return known;
}

inline Call bound(const std::string& name, const py::tuple& values, const std::string& precision) {
  const auto found = bindables().find(name);
  if (found == bindables().end()) throw py::value_error("there is no kernel " + name);
  return found->second.bind(values, precision);
}

// Runs one kernel now, without the interpreter lock.
inline void run(const std::string& name, const py::tuple& values, const std::string& precision) {
  const Call call = bound(name, values, precision);
  py::gil_scoped_release release;
  call();
}

// --- a step ---------------------------------------------------------------------------------------------------------

class Program {
 public:
  // `calls` are pairs of a kernel's name and its arguments, which the program keeps alive.
  Program(py::list calls, const std::string& precision) : kept_(std::move(calls)) {
    for (const py::handle call : kept_) {
      const auto [name, values] = call.cast<std::pair<std::string, py::tuple>>();
      calls_.push_back(bound(name, values, precision));
    }
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
          calls_[i]();
          const Clock::time_point after = Clock::now();
          of_step[i] = std::chrono::duration<double>(after - before).count();
          before = after;
        }
    });
    return seconds;
  }

 private:
  using Clock = std::chrono::steady_clock;

  // One step, on as many threads of the team as serve best.
  void run_and_time_step() const {
    const bool choose = team_size() > 1;
    if (choose) use_threads(choice_.threads(team_size()));
    const Clock::time_point before = Clock::now();
    for (const Call& call : calls_) call();
    if (choose) choice_.took(std::chrono::duration<double>(Clock::now() - before).count());
  }

  static void check(int64_t steps) {
    if (steps < 0) throw std::invalid_argument("steps must be at least 0, not " + std::to_string(steps));
  }

  py::list kept_;
  std::vector<Call> calls_;
  mutable ThreadChoice choice_;  // used by the thread that has the team, and by no other
};

}  // namespace minigen::bindings
