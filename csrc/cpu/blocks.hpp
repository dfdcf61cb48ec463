// Blocks of columns: a number where a block has one column, a label where it has more.
#pragma once

#include <cstdint>

namespace minigen::MINIGEN_ISA {

// Calls numbers(begin, end) for neighbouring blocks of one column together, and label(begin, end) for each wider block.
// Block g ends before column ends[g], and begins where the one before it ends.
template <class Numbers, class Label>
static inline void for_blocks(const int32_t* ends, int64_t G, const Numbers& numbers, const Label& label) {
  int64_t begin = 0;
  for (int64_t g = 0; g < G;) {
    if (ends[g] - begin == 1) {
      int64_t end = begin;
      while (g < G && ends[g] - end == 1) end = ends[g++];
      numbers(begin, end);
      begin = end;
    } else {
      label(begin, static_cast<int64_t>(ends[g]));
      begin = ends[g++];
    }
  }
}

}  // namespace minigen::MINIGEN_ISA
