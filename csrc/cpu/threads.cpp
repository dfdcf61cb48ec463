#include "threads.hpp"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(_OPENMP)
#include <omp.h>
#endif

namespace minigen {
namespace {

std::atomic<bool> threads_started{false};
std::atomic<bool> lost_threads{false};  // we are a forked child, and the parent's OpenMP threads are not here

#if !defined(_OPENMP)
int initial_limit() { return 1; }
#else
#if defined(__linux__)
// CPUs of the affinity mask, hardware threads of one core counted once.
int allowed_cores() {
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof mask, &mask) != 0) return static_cast<int>(std::thread::hardware_concurrency());
  std::set<std::string> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &mask)) continue;
    std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
    std::string siblings;
    if (!std::getline(file, siblings)) siblings = "cpu" + std::to_string(cpu);  // topology unknown: a core of its own
    cores.insert(siblings);
  }
  return static_cast<int>(cores.size());
}

// A container's CPU quota, rounded up: more threads than that only take turns. "max 100000" means no quota.
int quota_cores() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  double quota = 0, period = 0;
  if (!(file >> quota >> period) || quota <= 0 || period <= 0) return max_threads;
  return static_cast<int>((quota + period - 1) / period);
}
#else
int allowed_cores() { return static_cast<int>(std::thread::hardware_concurrency()); }
int quota_cores() { return max_threads; }
#endif

void after_fork_in_child() {
  if (threads_started) lost_threads = true;
}

int initial_limit() {
  pthread_atfork(nullptr, nullptr, after_fork_in_child);
  const bool asked = std::getenv("OMP_NUM_THREADS") != nullptr;
  return std::clamp(asked ? omp_get_max_threads() : std::min(allowed_cores(), quota_cores()), 1, max_threads);
}
#endif

std::atomic<int>& limit() {
  static std::atomic<int> value{initial_limit()};
  return value;
}

}  // namespace

bool has_openmp() {
#if defined(_OPENMP)
  return true;
#else
  return false;
#endif
}

int thread_limit() { return lost_threads ? 1 : limit().load(); }

void set_thread_limit(int threads) {
  if (threads < 1 || threads > max_threads)
    throw std::invalid_argument("threads must be from 1 to " + std::to_string(max_threads) + ", not " +
                                std::to_string(threads));
  if (threads > 1 && !has_openmp())
    throw std::runtime_error("this build of minigen has no OpenMP and runs on one thread");
  if (threads > 1 && lost_threads)
    throw std::runtime_error(
        "this process was forked after minigen's threads had started and can only use one thread; "
        "start it with the multiprocessing method 'spawn' instead");
  limit() = threads;
}

int num_threads() {
  const int threads = thread_limit();
  if (threads > 1) threads_started = true;
  return threads;
}

int threads_for(double work) {
  const int threads = thread_limit();
  // Starting and joining costs microseconds, and a little for each thread; much less where they wait for it.
  const double worth_it = (in_team() ? 2e3 : 8e3) + 200.0 * threads;
  return work < worth_it ? 1 : num_threads();
}

// --- a team ----------------------------------------------------------------------------------------

namespace {

// One thread hands out shares, the others spin on `job`. What is handed out lies in one cache line, and each thread's
// answer in one of its own: a line takes a tenth of a microsecond from core to core.
struct Team {
  struct alignas(64) Answer {
    std::atomic<uint32_t> done{0};  // number of the last job finished
  };

  alignas(64) std::atomic<uint32_t> job{0};  // number of the last job handed out
  int threads = 0;
  void (*share)(const void*, int) = nullptr;  // nullptr: go home
  const void* context = nullptr;
  alignas(64) int size = 1;
  std::vector<Answer> answers;  // of threads 1, 2, ...
};

thread_local Team* team_of_this_thread = nullptr;

// Spin while `waiting`, and after a while let other programs have the core: they may hold up the thread waited for.
template <class Condition>
void spin(const Condition& waiting) {
  constexpr int patience = 1 << 14;
  for (int i = 0; waiting(); ++i) {
    if (i >= patience) {
      std::this_thread::yield();
    } else {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
  }
}

void hand_out(Team& team, int threads, void (*share)(const void*, int), const void* context) {
  team.threads = threads;
  team.share = share;
  team.context = context;
  team.job.fetch_add(1, std::memory_order_release);
}

#if defined(_OPENMP)
void serve(Team& team, int id) {
  for (uint32_t done = 0;;) {
    spin([&] { return team.job.load(std::memory_order_acquire) == done; });
    if (!team.share) return;
    for (int t = id; t < team.threads; t += team.size) team.share(team.context, t);
    team.answers[static_cast<size_t>(id - 1)].done.store(++done, std::memory_order_release);
  }
}
#endif

}  // namespace

bool in_team() { return team_of_this_thread != nullptr; }

void share_with_team(int threads, void (*share)(const void*, int), const void* context) {
  Team& team = *team_of_this_thread;
  hand_out(team, threads, share, context);
  for (int t = 0; t < threads; t += team.size) share(context, t);
  const uint32_t job = team.job.load(std::memory_order_relaxed);
  for (int id = 1; id < team.size; ++id)
    spin([&] { return team.answers[static_cast<size_t>(id - 1)].done.load(std::memory_order_acquire) != job; });
}

void with_team(const std::function<void()>& work) {
  const int threads = in_team() ? 1 : num_threads();
  if (threads == 1) return work();
#if defined(_OPENMP)
  Team team;
  team.answers = std::vector<Team::Answer>(static_cast<size_t>(threads - 1));
  std::exception_ptr error;  // must not leave the parallel region as an exception
#pragma omp parallel num_threads(threads)
  {
    const int id = omp_get_thread_num();
    if (id == 0) {
      team.size = omp_get_num_threads();  // the runtime may have given fewer
      team_of_this_thread = &team;
      try {
        work();
      } catch (...) {
        error = std::current_exception();
      }
      team_of_this_thread = nullptr;
      hand_out(team, 0, nullptr, nullptr);
    } else {
      serve(team, id);
    }
  }
  if (error) std::rethrow_exception(error);
#endif
}

}  // namespace minigen
