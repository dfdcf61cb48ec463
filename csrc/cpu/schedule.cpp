#include <cmath>

#include "kernels.hpp"

namespace minigen::MINIGEN_ISA {

namespace {

// What the rate is of the base rate at step t of `horizon`.
double part(Schedule schedule, int64_t t, int64_t warmup, int64_t horizon) {
  if (t < warmup) return static_cast<double>(t + 1) / static_cast<double>(warmup);
  const double left = static_cast<double>(horizon - t) / static_cast<double>(horizon - warmup);
  switch (schedule) {
    case Schedule::linear:
      return left;
    case Schedule::cosine: {
      const double sine = std::sin(1.5707963267948966 * left);
      return sine * sine;
    }
    case Schedule::step:
      return 10 * t >= 9 * horizon ? 0.1 : 1.0;
    case Schedule::constant:
      break;
  }
  return 1.0;
}

}  // namespace

void scheduled_rate(float* lr, const float* base, const uint64_t* step, Schedule schedule, int64_t warmup,
                    int64_t horizon) {
  const bool past = step[0] >= static_cast<uint64_t>(horizon);
  const int64_t t = past ? horizon - 1 : static_cast<int64_t>(step[0]);
  lr[0] = static_cast<float>(static_cast<double>(base[0]) * part(schedule, t, warmup, horizon));
}

}  // namespace minigen::MINIGEN_ISA
