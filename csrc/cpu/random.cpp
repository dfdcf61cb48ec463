#include "../math/philox.hpp"

#include "kernels.hpp"
#include "threads.hpp"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace minigen::MINIGEN_ISA {

namespace {

#if defined(__AVX512F__)
constexpr int lanes = 8;
#elif defined(__AVX2__)
constexpr int lanes = 4;
#else
constexpr int lanes = 2;
#endif

// A counter word of several blocks, each in the lower half of 64 bits: the upper halves hold anything. So a product of
// two words needs one instruction, and both its halves are used where they lie. (Left to itself, the compiler keeps
// words in 32-bit lanes, and splits and joins products with twice as many instructions.)
using Words = uint64_t __attribute__((vector_size(lanes * 8)));
using Narrow = uint32_t __attribute__((vector_size(lanes * 4)));

inline __attribute__((always_inline)) Words multiply(Words a, Words b) {
#if defined(__AVX512F__)
  return (Words)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (Words)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
  return (Words)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
  return (a & 0xffffffffu) * b;
#endif
}

inline __attribute__((always_inline)) Words all(uint64_t value) { return value - Words{}; }

constexpr int group = 16;  // blocks computed side by side

struct Key {
  uint32_t seed, stream;
  uint64_t step;
};

// words[w][j] = word w of block first + j: `philox` of math/philox.hpp, two vectors interleaved to hide the latency of
// the multiplications.
void philox_group(Key key, uint64_t first, uint32_t words[4][group]) {
  constexpr uint32_t weyl0 = 0x9e3779b9u, weyl1 = 0xbb67ae85u;
  const Words multiplier0 = all(0xd2511f53u), multiplier1 = all(0xcd9e8d57u);
  Words iota;
  for (int i = 0; i < lanes; ++i) iota[i] = static_cast<uint64_t>(i);
  for (int j = 0; j < group; j += 2 * lanes) {
    Words c0[2], c1[2], c2[2], c3[2];
    for (int i = 0; i < 2; ++i) {
      c0[i] = all(key.step);
      c1[i] = all(key.step >> 32);
      c2[i] = all(first + static_cast<uint64_t>(j + i * lanes)) + iota;
      c3[i] = c2[i] >> 32;
    }
#pragma GCC unroll 10
    for (uint32_t round = 0; round < 10; ++round) {
      const Words key0 = all(key.seed + round * weyl0), key1 = all(key.stream + round * weyl1);
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        const Words product0 = multiply(multiplier0, c0[i]), product1 = multiply(multiplier1, c2[i]);
        c0[i] = (product1 >> 32) ^ c1[i] ^ key0;
        c1[i] = product1;
        c2[i] = (product0 >> 32) ^ c3[i] ^ key1;
        c3[i] = product0;
      }
    }
    for (int i = 0; i < 2; ++i) {
      const Words* const counter[4] = {&c0[i], &c1[i], &c2[i], &c3[i]};
      for (int w = 0; w < 4; ++w) {
        const Narrow narrow = __builtin_convertvector(*counter[w], Narrow);
        __builtin_memcpy(&words[w][j + i * lanes], &narrow, sizeof narrow);
      }
    }
  }
}

void uniform_group(const uint32_t words[4][group], float* to) {
#pragma omp simd
  for (int j = 0; j < group; ++j) {
    to[4 * j] = unit_interval(words[0][j]);
    to[4 * j + 1] = unit_interval(words[1][j]);
    to[4 * j + 2] = unit_interval(words[2][j]);
    to[4 * j + 3] = unit_interval(words[3][j]);
  }
}

void normal_group(const uint32_t words[4][group], float* to) {
#pragma omp simd
  for (int j = 0; j < group; ++j) {
    const NormalPair a = box_muller(words[0][j], words[1][j]), b = box_muller(words[2][j], words[3][j]);
    to[4 * j] = a.first;
    to[4 * j + 1] = a.second;
    to[4 * j + 2] = b.first;
    to[4 * j + 3] = b.second;
  }
}

// Fills out[0, n): `make` turns the words of 16 blocks into 64 floats.
template <class Make>
void fill(float* out, int64_t n, Key key, double work, const Make& make) {
  constexpr int64_t grain = 4 * group;
  parallel_ranges(n, grain, work, [=](int64_t begin, int64_t end) {
    alignas(64) uint32_t words[4][group];
    alignas(64) float last[grain];
    for (int64_t start = begin; start < end; start += grain) {
      philox_group(key, static_cast<uint64_t>(start / 4), words);
      const bool whole = start + grain <= end;
      make(words, whole ? out + start : last);
      if (!whole)
        for (int64_t i = start; i < end; ++i) out[i] = last[i - start];
    }
  });
}

// mask[4 j + w]: `scale` where the uniform of word w of block j is at least threshold / 2^24, else 0.
void mask_group(const uint32_t words[4][group], uint32_t threshold, float scale, float* mask) {
#pragma omp simd
  for (int j = 0; j < group; ++j)
    for (int w = 0; w < 4; ++w) mask[4 * j + w] = words[w][j] >> 8 >= threshold ? scale : 0.0f;
}

}  // namespace

void random_uniform(float* out, int64_t n, uint32_t seed, uint32_t stream, const uint64_t* step) {
  fill(out, n, {seed, stream, step[0]}, n * 0.5, uniform_group);
}

void random_normal(float* out, int64_t n, uint32_t seed, uint32_t stream, const uint64_t* step) {
  fill(out, n, {seed, stream, step[0]}, n * 0.8, normal_group);
}

void add_noise(const float* x, const float* noise, const uint64_t* step, float* out, int64_t n, double std,
               int64_t steps) {
  const double left = static_cast<double>(steps) - static_cast<double>(step[0]);
  const float scale = static_cast<float>(steps == 0 ? std : left > 0 ? std * (left / static_cast<double>(steps)) : 0.0);
  parallel_ranges(n, 1024, n * 0.2, [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) out[i] = x[i] + scale * noise[i];
  });
}

void dropout(const float* x, float* y, int64_t n, uint32_t seed, uint32_t stream, const uint64_t* step, int64_t first,
             double rate) {
  constexpr int64_t elements = 4 * group;
  const Key key{seed, stream, step[0]};
  const uint32_t threshold = static_cast<uint32_t>(__builtin_ceil(rate * 16777216.0));
  const float scale = static_cast<float>(1.0 / (1.0 - rate));
  parallel_ranges(n, elements, n * 0.6, [=](int64_t begin, int64_t end) {
    alignas(64) uint32_t words[4][group];
    alignas(64) float mask[elements];
    for (int64_t start = begin; start < end;) {
      const int64_t skipped = (first + start) % elements;  // of this group of blocks, those before `start`
      philox_group(key, static_cast<uint64_t>((first + start - skipped) / 4), words);
      mask_group(words, threshold, scale, mask);
      const int64_t count = end - start < elements - skipped ? end - start : elements - skipped;
#pragma omp simd
      for (int64_t i = 0; i < count; ++i) y[start + i] = x[start + i] * mask[skipped + i];
      start += count;
    }
  });
}

}  // namespace minigen::MINIGEN_ISA
