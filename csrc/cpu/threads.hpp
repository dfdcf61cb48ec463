// How many threads an operation uses, and how its work is cut.
//
// Results have the same bits for any number of threads: work is cut at places that depend on the shape alone (multiples
// of a fixed grain), and no sum is ever carried across a cut by whichever thread comes first.
#pragma once

#include <cstdint>
#include <functional>

#include "float_mode.hpp"

namespace minigen {

// Whether this build has OpenMP. Without it everything runs on one thread.
bool has_openmp();

// The number of threads that operations may use. At the start: OMP_NUM_THREADS if set, else the physical cores that
// this process may run on (affinity mask, cgroup quota).
int thread_limit();

// Throws std::invalid_argument unless 1 <= threads <= max_threads, and std::runtime_error where more than one thread
// cannot be had: in a build without OpenMP, or in a process forked from one whose threads had started.
void set_thread_limit(int threads);

constexpr int max_threads = 1024;

// For kernels: the threads to start now, 1 in a child forked after the parent's threads had started (OpenMP's threads
// do not survive a fork, and waiting for them would hang). Call it only when about to start them.
int num_threads();

// For kernels: num_threads(), or 1 for work too small to share, `work` in rough nanoseconds on one core. Not between:
// GCC's OpenMP ends the threads that a smaller team leaves over, and starting them again takes longer than such work.
int threads_for(double work);

// Run `work` on this thread with the others at hand: until it returns they wait for shares of the operations in it, so
// that a share starts within a fraction of the microseconds that a team of OpenMP's takes. Rethrows what `work` throws.
void with_team(const std::function<void()>& work);

// For `parallel`: whether this thread is inside with_team, and share(context, t) for t in [0, threads) on its threads.
bool in_team();
void share_with_team(int threads, void (*share)(const void* context, int t), const void* context);

// Run body(t) for t in [0, threads), each on a thread of its own.
template <class Body>
static inline void parallel(int threads, const Body& body) {
  const auto share = [](const void* context, int t) {
    const FlushDenormals flush;
    (*static_cast<const Body*>(context))(t);
  };
  if (threads == 1) return share(&body, 0);
  if (in_team()) return share_with_team(threads, share, &body);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int t = 0; t < threads; ++t) share(&body, t);
}

// Run body(begin, end) over [0, n), cut at multiples of `grain`, one range for each thread.
template <class Body>
static inline void parallel_ranges(int64_t n, int64_t grain, double work, const Body& body) {
  const int threads = threads_for(work);
  const int64_t grains = (n + grain - 1) / grain;
  parallel(threads, [&](int t) {
    const int64_t begin = grains * t / threads * grain;
    const int64_t end = grains * (t + 1) / threads * grain;
    if (begin < end) body(begin, end < n ? end : n);
  });
}

}  // namespace minigen
