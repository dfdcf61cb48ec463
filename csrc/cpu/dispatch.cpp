#include "dispatch.hpp"

#include <cstdlib>
#include <stdexcept>

// MINIGEN_ISA_LIST, set by the build: X(baseline) X(avx2) ... for every instruction set that was compiled.
namespace minigen {

#define X(isa)                  \
  namespace isa {               \
  extern const Kernels kernels; \
  }
MINIGEN_ISA_LIST
#undef X

namespace {

const Kernels* const compiled[] = {
#define X(isa) &isa::kernels,
    MINIGEN_ISA_LIST
#undef X
};

bool cpu_runs(const std::string& isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (isa == "avx2") return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (isa == "avx512")
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
#endif
  return isa == "baseline" || isa == "neon";  // part of the architecture that the build targets
}

const Kernels* choose() {
  const char* wish = std::getenv("MINIGEN_ISA");
  if (wish && !*wish) wish = nullptr;  // set to nothing: not set
  const Kernels* best = nullptr;
  std::string allowed;
  for (const Kernels* table : compiled) {
    if (!cpu_runs(table->isa)) continue;
    if (wish && std::string(wish) == table->isa) return table;
    best = table;
    allowed += (allowed.empty() ? "" : ", ") + std::string(table->isa);
  }
  if (!wish) return best;
  throw std::invalid_argument("MINIGEN_ISA must be one of " + allowed + " on this machine, not '" + wish + "'");
}

}  // namespace

std::vector<std::string> supported_isas() {
  std::vector<std::string> names;
  for (const Kernels* table : compiled)
    if (cpu_runs(table->isa)) names.emplace_back(table->isa);
  return names;
}

const Kernels& kernels() {
  static const Kernels* const chosen = choose();
  return *chosen;
}

}  // namespace minigen
