// Philox uniforms and normals: minigen/reference/random.py. One thread computes one block of four elements.
#include "grid.cuh"

#include "../math/philox.hpp"

namespace minigen {

__device__ __forceinline__ void store_block(float* out, int64_t n, int64_t block, float4 four) {
  const int64_t i = 4 * block;
  if (i + 4 <= n && aligned(out, 16)) {
    reinterpret_cast<float4*>(out)[block] = four;
    return;
  }
  out[i] = four.x;
  if (i + 1 < n) out[i + 1] = four.y;
  if (i + 2 < n) out[i + 2] = four.z;
  if (i + 3 < n) out[i + 3] = four.w;
}

}  // namespace minigen

using namespace minigen;

extern "C" __global__ void __launch_bounds__(block_threads)
    random_uniform(float* out, int64_t n, uint32_t seed, uint32_t stream, const uint64_t* step) {
  const uint64_t now = step[0];
  for (int64_t block = grid_first(); 4 * block < n; block += grid_stride()) {
    const PhiloxBlock words = philox(seed, stream, now, static_cast<uint64_t>(block));
    store_block(out, n, block,
                make_float4(unit_interval(words.word0), unit_interval(words.word1), unit_interval(words.word2),
                            unit_interval(words.word3)));
  }
}

extern "C" __global__ void __launch_bounds__(block_threads)
    random_normal(float* out, int64_t n, uint32_t seed, uint32_t stream, const uint64_t* step) {
  const uint64_t now = step[0];
  for (int64_t block = grid_first(); 4 * block < n; block += grid_stride()) {
    const PhiloxBlock words = philox(seed, stream, now, static_cast<uint64_t>(block));
    const NormalPair a = box_muller(words.word0, words.word1), b = box_muller(words.word2, words.word3);
    store_block(out, n, block, make_float4(a.first, a.second, b.first, b.second));
  }
}
