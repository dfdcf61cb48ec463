#include "cores.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace minigen {
namespace {

#if defined(__linux__)
// CPUs of the mask, hardware threads of one core counted once.
int cores_of(const cpu_set_t& mask) {
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

// The mask may change at any time; what it means is read from files again only then.
int allowed_cores() {
  thread_local cpu_set_t known;  // not shared: a lock could be held in another thread while this one forks
  thread_local int cores = 0;
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof mask, &mask) != 0) return static_cast<int>(std::thread::hardware_concurrency());
  if (cores == 0 || !CPU_EQUAL(&mask, &known)) {
    known = mask;
    cores = cores_of(mask);
  }
  return cores;
}
#else
int allowed_cores() { return static_cast<int>(std::thread::hardware_concurrency()); }
#endif

int at_least(double quota, double period) {
  const bool limited = quota > 0 && period > 0;
  return limited ? std::clamp(static_cast<int>(std::ceil(quota / period)), 1, max_threads) : max_threads;
}

// Version 2: one file, "150000 100000", or "max 100000" for no quota.
int quota_in_v2(const std::string& folder) {
  std::ifstream file(folder + "/cpu.max");
  double quota = 0, period = 0;
  return file >> quota >> period ? at_least(quota, period) : max_threads;
}

// Version 1: two files, a quota of -1 for none.
int quota_in_v1(const std::string& folder) {
  std::ifstream quota_file(folder + "/cpu.cfs_quota_us"), period_file(folder + "/cpu.cfs_period_us");
  double quota = 0, period = 0;
  return quota_file >> quota && period_file >> period ? at_least(quota, period) : max_threads;
}

// The least quota of the group at `path` below `mount` and of all groups that it is in. A container may see its own
// group as the mount, and the path as it is outside: folders that are not there set no limit.
template <class Quota>
int nested(const std::string& mount, std::string path, const Quota& quota_in) {
  int least = quota_in(mount);
  while (!path.empty() && path != "/") {
    least = std::min(least, quota_in(mount + path));
    path.erase(path.rfind('/'));
  }
  return least;
}

bool lists_cpu(const std::string& controllers) {
  std::istringstream names(controllers);
  for (std::string name; std::getline(names, name, ',');)
    if (name == "cpu") return true;
  return false;
}

const int quota = quota_cores();  // read when the module is loaded

}  // namespace

int quota_cores(const std::string& root) {
  const std::string groups = root + "/sys/fs/cgroup";
  std::ifstream file(root + "/proc/self/cgroup");
  int least = max_threads;
  for (std::string line; std::getline(file, line);) {  // "4:cpu,cpuacct:/path" of version 1, "0::/path" of version 2
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
    if (!path.empty() && path[0] != '/') continue;
    if (controllers.empty()) {
      least = std::min({least, nested(groups, path, quota_in_v2), nested(groups + "/unified", path, quota_in_v2)});
    } else if (lists_cpu(controllers)) {
      least = std::min(
          {least, nested(groups + "/cpu", path, quota_in_v1), nested(groups + "/" + controllers, path, quota_in_v1)});
    }
  }
  return least;
}

int usable_cores() { return std::clamp(std::min(allowed_cores(), quota), 1, max_threads); }

}  // namespace minigen
