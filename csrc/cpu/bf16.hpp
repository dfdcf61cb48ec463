// The products of the dense layer with operands rounded to bf16, an optional precision on processors that multiply it.
#pragma once

#include <string>
#include <vector>

#include "kernels.hpp"

namespace minigen {

// As those of Kernels.
struct DenseKernels {
  decltype(Kernels::dense_forward) dense_forward;
  decltype(Kernels::dense_dgrad) dense_dgrad;
  decltype(Kernels::dense_wgrad) dense_wgrad;
  decltype(Kernels::dense_wgrad_adam) dense_wgrad_adam;
};

// `bf16`: x, dz and W are rounded to the nearest bf16 (8 bits of mantissa, ties to even). `bf16x6`: each is the sum of
// three that hold all of its bits, and of their nine products the six largest count, so that the result is as good as
// float32's; of a pixel, which is one bf16 from the start, three are all there are. Products are exact and sums
// float32, as are bias, activation and its derivative, and db. Denormal operands count as zero; infinities become NaN
// in bf16x6.
struct Bf16Kernels {
  const char* name;
  const DenseKernels *bf16, *bf16x6;                   // bf16x6: null but for AMX
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
