// Which instruction set runs: the best one that this CPU has, or the one that MINIGEN_ISA names.
#pragma once

#include <string>
#include <vector>

#include "kernels.hpp"

namespace minigen {

// Names that this build contains and this CPU can run, from the plainest to the fastest.
std::vector<std::string> supported_isas();

// The table picked by the environment variable MINIGEN_ISA, or else the fastest supported. Decided at the first call.
// Throws std::invalid_argument, which lists the allowed names, if MINIGEN_ISA names anything else.
const Kernels& kernels();

}  // namespace minigen
