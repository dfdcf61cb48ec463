// Enough of CUDA to run the ladder's kernels on the host.
//
// The threads of a block are coroutines: each runs until the barrier, then the next one, and after the last of them all
// go on from there. Blocks run one after the other, so their shared memory may be static.
#pragma once

#include <ucontext.h>

#include <memory>
#include <vector>

#define __global__
#define __device__
#define __shared__ static

struct Three {
  int x, y, z;
};
inline Three threadIdx, blockIdx;

namespace on_host {

inline ucontext_t scheduler;
inline ucontext_t* running;  // null once it has ended

template <class Kernel>
void run_block(const Kernel& kernel, int threads_x, int threads_y) {
  constexpr int stack_size = 1 << 16;
  static const Kernel* entered;
  static std::vector<std::unique_ptr<char[]>> stacks;
  const int threads = threads_x * threads_y;
  while (static_cast<int>(stacks.size()) < threads) stacks.emplace_back(new char[stack_size]);
  std::vector<ucontext_t> contexts(threads);
  entered = &kernel;
  for (int t = 0; t < threads; ++t) {
    getcontext(&contexts[t]);
    contexts[t].uc_stack.ss_sp = stacks[t].get();
    contexts[t].uc_stack.ss_size = stack_size;
    makecontext(&contexts[t], +[] { (*entered)(), running = nullptr, setcontext(&scheduler); }, 0);
  }
  std::vector<bool> ended(threads);
  for (int left = threads; left > 0;)
    for (int t = 0; t < threads; ++t) {
      if (ended[t]) continue;
      threadIdx = {t % threads_x, t / threads_x, 0};
      running = &contexts[t];
      swapcontext(&scheduler, running);
      if (!running) ended[t] = true, --left;
    }
}

}  // namespace on_host

inline void __syncthreads() { swapcontext(on_host::running, &on_host::scheduler); }
