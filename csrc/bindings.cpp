// minigen._native: the CPU's kernels for Python.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>

#include "calls.hpp"
#include "cpu/cores.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace minigen::bindings {
namespace {

void require(bool condition, const std::string& message) {
  if (!condition) throw py::value_error(message);
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

// The arguments of every kernel, as C++ declares them.
std::map<std::string, std::string> declared() {
  std::map<std::string, std::string> result;
  for (const auto& [name, kernel] : bindables()) result[name] = kernel.arguments;
  return result;
}

}  // namespace
}  // namespace minigen::bindings

PYBIND11_MODULE(_native, module) {
  using namespace minigen::bindings;
  module.doc() = "CPU kernels of minigen. They check none of their arguments: minigen.ops does.";

  module.def("declared", &declared, "The arguments of every kernel, as C++ declares them.");
  module.def("run", &run, "kernel"_a, "arguments"_a, "precision"_a, "Run one kernel now.");
  py::class_<Program>(module, "Program", "A list of kernel calls that runs without the interpreter.")
      .def(py::init<py::list, std::string>(), "calls"_a, "precision"_a, "Of pairs (kernel, arguments).")
      .def("run", &Program::run, "steps"_a, "Run the calls in order, `steps` times.")
      .def("profile", &Program::profile, "steps"_a, "The same; the seconds of each call, [steps][calls].");

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
  module.def("join_trainings", &minigen::join_trainings,
             "This thread trains beside others: it works alone until it is the last that has joined.");
  module.def("leave_trainings", &minigen::leave_trainings);
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
