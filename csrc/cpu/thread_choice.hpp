// How many threads the steps of a program take, when other programs want the cores too.
#pragma once

#include <cstdint>

namespace minigen {

// A step waits for the slowest of its threads. On a core that another program is using too that one comes late, and the
// step can take longer than with fewer threads. So the steps are timed: now and then a few are tried with half or twice
// as many threads, and the faster number is kept. Trials are rare where nothing has changed, and soon over where they
// are slower.
class ThreadChoice {
 public:
  // Whether it chooses at all, or always takes all.
  static void enable(bool enabled);

  // For the next step, from 1 to `limit`; another limit than before begins anew.
  int threads(int limit);

  // Tell how long the step took that was run with that many.
  void took(double seconds);

 private:
  void begin_trial();
  void end_trial(double pace);

  int limit_ = 0, threads_ = 0, tried_ = 0;  // tried_: the number on trial, or 0
  bool upwards_ = false;                     // where the next trial goes if both ways are open
  double pace_ = 0;                          // seconds a step, in the last stretch with threads_
  double best_ = 0;                          // and in the fastest
  double elapsed_ = 0;                       // in the steps of the stretch under way
  int64_t steps_ = 0;                        // of the stretch under way, not counting the first of a trial
  double until_trial_ = 0, interval_ = 0;    // seconds of steps to the next trial, and what they are set to
};

}  // namespace minigen
