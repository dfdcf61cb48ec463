// Philox4x32-10 and the numbers made from it: minigen/reference/random.py.
#pragma once

#include "elementary.hpp"

namespace minigen {

struct PhiloxBlock {
  uint32_t word0, word1, word2, word3;
};

MINIGEN_FN uint32_t multiply_high(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>((static_cast<uint64_t>(a) * b) >> 32);
}

MINIGEN_FN PhiloxBlock philox(uint32_t seed, uint32_t stream, uint64_t step, uint64_t block) {
  constexpr uint32_t multiplier0 = 0xd2511f53u, multiplier1 = 0xcd9e8d57u;
  constexpr uint32_t weyl0 = 0x9e3779b9u, weyl1 = 0xbb67ae85u;
  uint32_t c0 = static_cast<uint32_t>(step), c1 = static_cast<uint32_t>(step >> 32);
  uint32_t c2 = static_cast<uint32_t>(block), c3 = static_cast<uint32_t>(block >> 32);
#pragma GCC unroll 10
  for (uint32_t round = 0; round < 10; ++round) {
    const uint32_t high0 = multiply_high(multiplier0, c0), low0 = multiplier0 * c0;
    const uint32_t high1 = multiply_high(multiplier1, c2), low1 = multiplier1 * c2;
    c0 = high1 ^ c1 ^ (seed + round * weyl0);
    c1 = low1;
    c2 = high0 ^ c3 ^ (stream + round * weyl1);
    c3 = low0;
  }
  return {c0, c1, c2, c3};
}

// The upper 24 bits as a number in [0, 1).
MINIGEN_FN float unit_interval(uint32_t word) {
  return static_cast<float>(static_cast<int32_t>(word >> 8)) * 5.9604644775390625e-08f;
}

// Two independent standard normals (Box and Muller 1958).
struct NormalPair {
  float first, second;
};

MINIGEN_FN NormalPair box_muller(uint32_t word_a, uint32_t word_b) {
  const float u1 = unit_interval(word_a) + 5.9604644775390625e-08f;  // in (0, 1]
  const float radius = math::square_root(-2.0f * math::log(u1));
  const math::SineCosine angle = math::sine_cosine_of_turn(unit_interval(word_b));
  return {radius * angle.cosine, radius * angle.sine};
}

}  // namespace minigen
