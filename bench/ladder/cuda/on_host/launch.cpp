// A kernel of the ladder, the file KERNEL, with a function that runs its blocks one after the other.
#include "threads.hpp"

#include KERNEL

extern "C" void launch(const float* x, const float* W, const float* b, float* y, int B, int I, int O, int blocks_x,
                       int blocks_y, int threads_x, int threads_y) {
  for (int y_of_block = 0; y_of_block < blocks_y; ++y_of_block)
    for (int x_of_block = 0; x_of_block < blocks_x; ++x_of_block) {
      blockIdx = {x_of_block, y_of_block, 0};
      on_host::run_block([&] { dense(x, W, b, y, B, I, O); }, threads_x, threads_y);
    }
}
