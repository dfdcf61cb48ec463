// How many threads an operation uses, and how its work is cut.
//
// Results have the same bits for any number of threads: work is cut at places that depend on the shape alone (multiples
// of a fixed grain), and no sum is ever carried across a cut by whichever thread comes first.
//
// The threads are a team of our own and not OpenMP's, which wait by spinning where other programs could use the core,
// and which a forked child waits for in vain. A share that no thread of the team has begun when the one that hands them
// out is done with its own, that one takes back: it waits for no thread that has no core to run on.
#pragma once

#include <cstdint>

#include "float_mode.hpp"

namespace minigen {

// The number of threads that operations may use: usable_cores(), or fewer where OMP_NUM_THREADS or set_thread_limit
// says so.
int thread_limit();

// Throws std::invalid_argument unless 1 <= threads <= max_threads. More than usable_cores() count as so many, unless
// `beyond_cores`: for tests of what does not depend on the number of threads, on machines with few cores.
void set_thread_limit(int threads, bool beyond_cores = false);

// Trainings at once, each on a thread of its own that has called join_trainings: while there are several, each works
// alone, a core each; the last one left has all cores.
void join_trainings();
void leave_trainings();

// For kernels: the threads that should share some work, `work` in rough nanoseconds on one core.
int threads_for(double work);

// Run `work` on this thread with the others at hand: until it returns they wait for shares of the operations in it, at
// first awake, so that a share starts within a fraction of the microseconds that it takes to wake them. Where another
// thread has them already, this one works alone. Rethrows what `work` throws.
void with_team(void (*work)(const void* context), const void* context);

template <class Work>
static inline void with_team(const Work& work) {
  with_team([](const void* context) { (*static_cast<const Work*>(context))(); }, &work);
}

// In with_team: how many threads there are, and how many of them the operations to come use, from 1 to that.
int team_size();
void use_threads(int threads);

// For `parallel`: share(context, t) for t in [0, threads), by the team or, if another thread has it, by this one.
void hand_out(int threads, void (*share)(const void* context, int t), const void* context);

// The same, each t on a thread of its own, begun for it, and all at once.
void on_own_threads(int threads, void (*share)(const void* context, int t), const void* context);

// Run body(t) for t in [0, threads). Which thread runs it, and after which other, is not said: it may wait for none.
template <class Body>
static inline void parallel(int threads, const Body& body) {
  const auto share = [](const void* context, int t) {
    const FlushDenormals flush;
    (*static_cast<const Body*>(context))(t);
  };
  if (threads == 1) return share(&body, 0);
  hand_out(threads, share, &body);
}

// The same, each t on a thread of its own, so that all run at once: to measure what that number of threads can do.
template <class Body>
static inline void all_at_once(int threads, const Body& body) {
  on_own_threads(threads, [](const void* context, int t) { (*static_cast<const Body*>(context))(t); }, &body);
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
