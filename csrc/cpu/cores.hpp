// How many cores this process may use.
#pragma once

#include <string>

namespace minigen {

constexpr int max_threads = 1024;

// The cores that this process may run on: those of its affinity mask as it is now, hardware threads of one core counted
// once, but no more than the CPU quota of its control groups, rounded up, as it was at the start. From 1 to
// max_threads.
int usable_cores();

// The cores that the control groups (versions 1 and 2, all that this process is nested in) leave it; max_threads where
// they set no limit. `root` is where /proc and /sys are looked for.
int quota_cores(const std::string& root = "");

}  // namespace minigen
