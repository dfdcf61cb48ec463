// The table of this instruction set's kernels.
#include "kernels.hpp"

#define MINIGEN_STRING(text) #text
#define MINIGEN_NAME(text) MINIGEN_STRING(text)

namespace minigen::MINIGEN_ISA {

extern const Kernels kernels = {
    MINIGEN_NAME(MINIGEN_ISA),
#define OPERATION(result, name, arguments) name,
#include "operations.inc"
#undef OPERATION
};

}  // namespace minigen::MINIGEN_ISA
