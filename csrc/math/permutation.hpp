// The keyed permutation of 0..n-1 that orders an epoch, computed, not stored: minigen/reference/batch.py.
#pragma once

#include "philox.hpp"

namespace minigen {

struct Permutation {
  uint32_t n, low_bits, high_mask, low_mask;
  uint32_t keys[8];
};

MINIGEN_FN Permutation make_permutation(uint32_t n, uint32_t seed, uint32_t stream, uint64_t epoch) {
  uint32_t bits = 2;
  while (bits < 31 && ((n - 1u) >> bits) != 0) ++bits;
  const uint32_t high_bits = bits / 2, low_bits = bits - high_bits;
  const PhiloxBlock a = philox(seed, stream, epoch, 0), b = philox(seed, stream, epoch, 1);
  return {n,
          low_bits,
          (1u << high_bits) - 1u,
          (1u << low_bits) - 1u,
          {a.word0, a.word1, a.word2, a.word3, b.word0, b.word1, b.word2, b.word3}};
}

// The finalizer of MurmurHash3 (Appleby 2011).
MINIGEN_FN uint32_t fmix32(uint32_t h) {
  h ^= h >> 16;
  h *= 0x85ebca6bu;
  h ^= h >> 13;
  h *= 0xc2b2ae35u;
  return h ^ (h >> 16);
}

// One pass through the Feistel network: a bijection of 0..2^bits-1.
MINIGEN_FN uint32_t feistel(uint32_t x, const Permutation& permutation) {
  uint32_t high = x >> permutation.low_bits, low = x & permutation.low_mask;
#pragma GCC unroll 4
  for (int round = 0; round < 8; round += 2) {
    high ^= fmix32(low ^ permutation.keys[round]) & permutation.high_mask;
    low ^= fmix32(high ^ permutation.keys[round + 1]) & permutation.low_mask;
  }
  return (high << permutation.low_bits) | low;
}

// Entry `position` of the permutation, position < n.
MINIGEN_FN uint32_t permute(uint32_t position, const Permutation& permutation) {
  uint32_t x = feistel(position, permutation);
  while (x >= permutation.n) x = feistel(x, permutation);
  return x;
}

}  // namespace minigen
