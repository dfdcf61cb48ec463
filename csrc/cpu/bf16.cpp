#include "bf16.hpp"

#include <cstdlib>
#include <stdexcept>

#include "dispatch.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

// MINIGEN_BF16_LIST, set by the build: X(avx512bf16) X(amx), or less where the compiler knows less.
namespace minigen {

#define X(name)                        \
  namespace name {                     \
  extern const Bf16Kernels bf16_table; \
  }
MINIGEN_BF16_LIST
#undef X

namespace {

const std::vector<const Bf16Kernels*>& compiled() {
  static const std::vector<const Bf16Kernels*> tables = {
#define X(name) &name::bf16_table,
      MINIGEN_BF16_LIST
#undef X
  };
  return tables;
}

#if defined(__x86_64__)
bool cpuid_bits(unsigned subleaf, unsigned eax_bits, unsigned edx_bits) {
  unsigned eax, ebx, ecx, edx;
  if (!__get_cpuid_count(7, subleaf, &eax, &ebx, &ecx, &edx)) return false;
  return (eax & eax_bits) == eax_bits && (edx & edx_bits) == edx_bits;
}
#endif

// Linux keeps AMX's 8 KiB of registers from a process until it asks, and refuses one with a signal stack too small for
// them; once granted, it refuses such stacks. So nobody asks before bf16 is wanted.
bool system_grants_amx() {
#if defined(__linux__) && defined(__x86_64__)
  constexpr long request_permission = 0x1023, tile_data = 18;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
  return false;
#endif
}

bool cpu_runs(const std::string& name) {
#if defined(__x86_64__)
  if (kernels().isa != std::string("avx512")) return false;  // also where MINIGEN_ISA plays a lesser processor
  if (!cpuid_bits(1, 1u << 5, 0)) return false;              // AVX512_BF16
  if (name == "avx512bf16") return true;
  return name == "amx" && cpuid_bits(0, 0, 1u << 22 | 1u << 24) && system_grants_amx();  // AMX-BF16, AMX-TILE
#else
  (void)name;
  return false;
#endif
}

const Bf16Kernels* choose() {
  const char* wish = std::getenv("MINIGEN_BF16");
  if (wish && !*wish) wish = nullptr;  // set to nothing: not set
  const Bf16Kernels* best = nullptr;
  std::string allowed;
  for (const Bf16Kernels* table : compiled()) {
    if (!cpu_runs(table->name)) continue;
    if (wish && std::string(wish) == table->name) return table;
    best = table;
    allowed += (allowed.empty() ? "" : ", ") + std::string(table->name);
  }
  if (!best)
    throw std::invalid_argument(
        "precision must be ieee on this machine: bf16 needs AVX512-BF16 or AMX-BF16, bf16x6 AMX-BF16, and " +
        (compiled().empty() ? std::string("this build has neither")
                            : "the instruction set in use is " + std::string(kernels().isa)));
  if (wish)
    throw std::invalid_argument("MINIGEN_BF16 must be one of " + allowed + " on this machine, not '" + wish + "'");
  return best;
}

}  // namespace

std::vector<std::string> supported_bf16() {
  std::vector<std::string> names;
  for (const Bf16Kernels* table : compiled())
    if (cpu_runs(table->name)) names.emplace_back(table->name);
  return names;
}

const Bf16Kernels& bf16_kernels() {
  static const Bf16Kernels* const chosen = choose();
  return *chosen;
}

}  // namespace minigen
