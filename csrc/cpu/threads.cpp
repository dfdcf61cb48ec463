#include "threads.hpp"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "cores.hpp"

namespace minigen {
namespace {

// --- how many --------------------------------------------------------------------------------------

// The first number of OMP_NUM_THREADS (it may be a list, one for each level of nesting), or max_threads.
int initial_limit() {
  const char* asked = std::getenv("OMP_NUM_THREADS");
  const long threads = asked ? std::strtol(asked, nullptr, 10) : 0;
  return threads > 0 ? static_cast<int>(std::min<long>(threads, max_threads)) : max_threads;
}

// Made when the module is loaded, like all that is global here: were it made at its first use, another thread could be
// at it while this one forks.
struct Limit {
  std::atomic<int> threads{initial_limit()};
  std::atomic<bool> beyond_cores{false};
} limit;

std::atomic<int> trainings{0};  // threads that have joined
thread_local bool joined = false;

// --- the team --------------------------------------------------------------------------------------

using Share = void (*)(const void* context, int t);

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Wait until `good(state)`, and give its value: awake for the microseconds in which the next share mostly comes, then
// asleep, so that another program has the core.
template <class Condition>
uint32_t wait_until(const std::atomic<uint32_t>& state, const Condition& good) {
  constexpr int patience = 1 << 11;
  for (int i = 0; i < patience; ++i) {
    const uint32_t now = state.load(std::memory_order_acquire);
    if (good(now)) return now;
    pause();
  }
  for (;;) {
    const uint32_t now = state.load();
    if (good(now)) return now;
    state.wait(now);
  }
}

// Where a thread of the team gets its shares, in a cache line of its own: that takes a tenth of a microsecond from core
// to core. `state` counts the shares, times four, and says in the last two bits how far the present one is. Its stores
// are sequentially consistent, since what notify_one does first is to look whether anybody sleeps.
struct alignas(64) Seat {
  enum : uint32_t { finished = 0, offered = 1, begun = 2, mask = 3 };

  std::atomic<uint32_t> state{finished};
  Share share = nullptr;
  const void* context = nullptr;

  // For the thread that hands out.
  void offer(Share what, const void* with) {
    share = what;
    context = with;
    state.store((state.load(std::memory_order_relaxed) & ~mask) + mask + 1 + offered);
    state.notify_one();
  }
  bool take_back() {
    uint32_t now = state.load(std::memory_order_relaxed);
    return (now & mask) == offered && state.compare_exchange_strong(now, now & ~mask);
  }
  void wait() const {
    wait_until(state, [](uint32_t now) { return (now & mask) == finished; });
  }

  // For the thread whose seat this is, number t.
  [[noreturn]] void serve(int t) {
    for (;;) {
      uint32_t now = wait_until(state, [](uint32_t state) { return (state & mask) == offered; });
      if (!state.compare_exchange_strong(now, (now & ~mask) + begun)) continue;  // taken back
      share(context, t);
      state.store(now & ~mask);
      state.notify_one();
    }
  }
};

// The threads beside the one that hands out. Never destroyed: they may be waiting when the process ends, and a forked
// child, where they are not, must not wait for them.
struct Team {
  Seat seats[max_threads];  // the first is that of whoever hands out, and not used
  int size = 1;             // seats whose threads there are, with the first
  int in_use = 1;           // seats that the operations under way use
};

Team* team = nullptr;
std::atomic<bool> team_taken{false};
thread_local bool has_team = false;

void forget_team() {
  team = nullptr;
  team_taken = false;
  has_team = false;
  trainings = joined ? 1 : 0;
}

[[maybe_unused]] const int at_fork = pthread_atfork(nullptr, nullptr, forget_team);

// Start threads until there are `size` with the calling one, or as many as the system gives. They take no signals:
// those are for the threads that have something to do with them.
void grow(Team& team, int size) {
  sigset_t all, before;
  sigfillset(&all);
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP}) sigdelset(&all, fault);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    for (; team.size < size; ++team.size) std::thread(&Seat::serve, &team.seats[team.size], team.size).detach();
  } catch (const std::system_error&) {  // no more threads for this user or process: with fewer it takes longer
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

// Take the team, with at least `threads` threads if they can be had; false if another thread has it.
bool take_team(int threads) {
  if (team_taken.exchange(true)) return false;
  if (!team) team = new Team;
  if (team->size < threads) grow(*team, threads);
  team->in_use = std::min(threads, team->size);
  return has_team = true;
}

void leave_team() {
  has_team = false;
  team_taken = false;
}

struct OnLeaving {
  ~OnLeaving() { leave_team(); }
};

void share_out(int threads, Share share, const void* context) {
  const int seated = std::min(threads, team->size);
  for (int t = 1; t < seated; ++t) team->seats[t].offer(share, context);
  share(context, 0);
  for (int t = 1; t < seated; ++t)
    if (team->seats[t].take_back()) share(context, t);
  for (int t = seated; t < threads; ++t) share(context, t);
  for (int t = 1; t < seated; ++t) team->seats[t].wait();
}

}  // namespace

int thread_limit() {
  if (joined && trainings > 1) return 1;
  const int threads = limit.threads;
  return threads == 1 || limit.beyond_cores ? threads : std::min(threads, usable_cores());
}

void set_thread_limit(int threads, bool beyond_cores) {
  if (threads < 1 || threads > max_threads)
    throw std::invalid_argument("threads must be from 1 to " + std::to_string(max_threads) + ", not " +
                                std::to_string(threads));
  limit.threads = threads;
  limit.beyond_cores = beyond_cores;
}

void join_trainings() {
  if (!joined) ++trainings;
  joined = true;
}

void leave_trainings() {
  if (joined) --trainings;
  joined = false;
}

int threads_for(double work) {
  if (has_team) return work < 2e3 + 200.0 * team->in_use ? 1 : team->in_use;
  // To wake a thread takes microseconds.
  if (work < 8e3) return 1;
  const int threads = thread_limit();
  return work < 8e3 + 200.0 * threads ? 1 : threads;
}

void with_team(void (*work)(const void* context), const void* context) {
  const int threads = has_team ? 1 : thread_limit();
  if (threads == 1 || !take_team(threads)) return work(context);
  const OnLeaving leave;
  work(context);
}

int team_size() { return has_team ? std::min(team->size, thread_limit()) : 1; }

void use_threads(int threads) {
  if (has_team) team->in_use = std::clamp(threads, 1, team->size);
}

void hand_out(int threads, Share share, const void* context) {
  if (has_team) return share_out(threads, share, context);
  if (!take_team(threads)) {
    for (int t = 0; t < threads; ++t) share(context, t);
    return;
  }
  const OnLeaving leave;
  share_out(threads, share, context);
}

void on_own_threads(int threads, Share share, const void* context) {
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(share, context, t);
  share(context, 0);
  for (std::thread& other : others) other.join();
}

}  // namespace minigen
