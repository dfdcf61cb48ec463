#include "thread_choice.hpp"

#include <algorithm>
#include <atomic>

namespace minigen {
namespace {

constexpr double stretch = 0.1;          // seconds over which a pace is measured: many time slices of a scheduler
constexpr double soon = 0.1, late = 10;  // seconds between trials: the least, the most
constexpr double late_below = 2;         // the most where fewer threads than allowed are in use, or it has been faster
constexpr double slower = 1.15;          // than the best by this much: something has changed
constexpr double faster = 0.95;          // than before by this much: a trial has won
constexpr double hopeless = 1.3;         // a trial that is slower than before by this much ends early

std::atomic<int> last_choice{0};  // of any program: where a new one begins
std::atomic<bool> enabled{true};

}  // namespace

void ThreadChoice::enable(bool on) { enabled = on; }

int ThreadChoice::threads(int limit) {
  if (!enabled) return limit;
  if (limit != limit_) {
    const int last = last_choice;
    *this = ThreadChoice();
    limit_ = limit;
    threads_ = last > 0 && last < limit ? last : limit;
    interval_ = soon;
  }
  return tried_ ? tried_ : threads_;
}

void ThreadChoice::took(double seconds) {
  if (!enabled || limit_ == 1) return;
  until_trial_ -= seconds;
  if (tried_ && steps_ < 0) {  // the first step of a trial wakes threads and fills their caches; fewer need no waking
    steps_ = 0;
    if (tried_ < threads_ && seconds > stretch / 4 && seconds > hopeless * pace_) return end_trial(seconds);
    if (seconds < stretch) return;
  }
  elapsed_ += seconds;
  ++steps_;
  const double pace = elapsed_ / static_cast<double>(steps_);
  if (tried_ && elapsed_ < stretch && pace > hopeless * pace_ && elapsed_ > stretch / 4) return end_trial(pace);
  if (elapsed_ < stretch) return;
  if (tried_) return end_trial(pace);
  if (best_ > 0 && pace > slower * best_ && pace_ <= slower * best_) {
    interval_ = soon;
    until_trial_ = 0;
  }
  pace_ = pace;
  best_ = best_ > 0 ? std::min(best_, pace) : pace;
  elapsed_ = 0;
  steps_ = 0;
  if (until_trial_ <= 0) begin_trial();
}

void ThreadChoice::begin_trial() {
  const bool up = threads_ == 1 || (threads_ < limit_ && upwards_);
  upwards_ = !upwards_;
  tried_ = up ? std::min(2 * threads_, limit_) : threads_ / 2;
  steps_ = -1;
  elapsed_ = 0;
}

void ThreadChoice::end_trial(double pace) {
  if (pace < faster * pace_) {
    threads_ = tried_;
    last_choice = threads_;
    pace_ = best_ = pace;
    interval_ = soon;
  } else {
    const double longer = pace > hopeless * pace_ ? 4 : 2;
    interval_ = std::min(longer * interval_, threads_ < limit_ || pace_ > slower * best_ ? late_below : late);
  }
  until_trial_ = interval_;
  tried_ = 0;
  elapsed_ = 0;
  steps_ = 0;
}

}  // namespace minigen
