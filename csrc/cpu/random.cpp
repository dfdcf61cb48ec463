#include "../math/philox.hpp"

#include "kernels.hpp"
#include "threads.hpp"

namespace minigen::MINIGEN_ISA {

namespace {

constexpr int64_t group = 16;  // blocks of Philox computed side by side, as many as there are lanes in 512 bits

struct Four {
  float of[4];
};

// Fills out[0, n) in groups of 16 blocks: make(block) gives the four floats of one Philox block.
template <class Make>
void fill(float* out, int64_t n, double work, const Make& make) {
  constexpr int64_t grain = 4 * group;
  parallel_ranges(n, grain, work, [&](int64_t begin, int64_t end) {
    alignas(64) float last[grain];
    for (int64_t start = begin; start < end; start += grain) {
      const bool whole = start + grain <= end;
      float* to = whole ? out + start : last;
#pragma omp simd
      for (int64_t j = 0; j < group; ++j) {
        const Four four = make(static_cast<uint64_t>(start / 4 + j));
        for (int k = 0; k < 4; ++k) to[4 * j + k] = four.of[k];
      }
      if (!whole)
        for (int64_t i = start; i < end; ++i) out[i] = last[i - start];
    }
  });
}

}  // namespace

void random_uniform(float* out, int64_t n, uint32_t seed, uint32_t stream, const uint64_t* step) {
  const uint64_t now = step[0];
  fill(out, n, n * 0.5, [=](uint64_t block) {
    const PhiloxBlock words = philox(seed, stream, now, block);
    return Four{unit_interval(words.word0), unit_interval(words.word1), unit_interval(words.word2),
                unit_interval(words.word3)};
  });
}

void random_normal(float* out, int64_t n, uint32_t seed, uint32_t stream, const uint64_t* step) {
  const uint64_t now = step[0];
  fill(out, n, n * 1.0, [=](uint64_t block) {
    const PhiloxBlock words = philox(seed, stream, now, block);
    const NormalPair a = box_muller(words.word0, words.word1), b = box_muller(words.word2, words.word3);
    return Four{a.first, a.second, b.first, b.second};
  });
}

}  // namespace minigen::MINIGEN_ISA
