// The products of the dense layer with operands rounded to bf16, an optional precision on processors that multiply it.
#pragma once

#include <string>
#include <vector>

#include "kernels.hpp"

namespace minigen {

// As those of Kernels. x, dz and W are rounded to the nearest bf16 (8 bits of mantissa, ties to even); products are
// exact and sums float32, as are bias, activation and its derivative, and db. Denormal operands count as zero.
struct Bf16Kernels {
  const char* name;
  decltype(Kernels::dense_forward) dense_forward;
  decltype(Kernels::dense_dgrad) dense_dgrad;
  decltype(Kernels::dense_wgrad) dense_wgrad;
  double (*peak_gflops)(int threads, double seconds);  // what fma_peak_gflops is for float32
};

#ifdef MINIGEN_ISA
namespace MINIGEN_ISA {
double bf16_peak_gflops(int threads, double seconds);
}
#endif

// Names that this build contains and this processor and system can run, from the plainest to the fastest: avx512bf16
// (dot products of pairs in vector registers), amx (products of tiles). Asks Linux for AMX's registers.
std::vector<std::string> supported_bf16();

// The table named by the environment variable MINIGEN_BF16, or else the fastest supported. Decided at the first call.
// Throws std::invalid_argument where there is none, and where MINIGEN_BF16 names none of them.
const Bf16Kernels& bf16_kernels();

}  // namespace minigen
