// The kernels of the CPU backend as a table of function pointers, one table for each instruction set.
//
// Every operation's file is compiled once for each instruction set with -DMINIGEN_ISA=<name>, and puts its functions in
// namespace minigen::<name>; dispatch.cpp picks the table at run time. Whatever such a file includes must have internal
// linkage (static) or live in that namespace. Otherwise the linker keeps one copy of, say, an inline function, possibly
// the one with AVX-512 code in it, and the program dies on a machine without AVX-512.
#pragma once

#include <cstdint>

#include "../math/activations.hpp"
#include "../math/adam.hpp"
#include "../math/losses.hpp"

namespace minigen {

// Where a tensor's parameters and their moments lie.
struct AdamSlots {
  float *p, *m, *v;
};

enum class Player : int { discriminator, generator };

enum class Schedule : int { constant, cosine, step, linear };

struct Kernels {
  const char* isa;
#define OPERATION(result, name, arguments) result(*name) arguments;
#include "operations.inc"
#undef OPERATION
};

#ifdef MINIGEN_ISA
namespace MINIGEN_ISA {
#define OPERATION(result, name, arguments) result name arguments;
#include "operations.inc"
#undef OPERATION
extern const Kernels kernels;
}  // namespace MINIGEN_ISA
#endif

}  // namespace minigen
