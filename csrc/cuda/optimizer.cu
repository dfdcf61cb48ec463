// Optimizers over several flat parameter vectors in one launch: minigen/reference/optimizer.py.
//
// Grid: x shares the elements of a vector, y counts the vectors. The table of vectors lies in device memory.
#include "grid.cuh"

#include "../math/adam.hpp"

namespace minigen {

struct AdamVector {
  float* p;
  const float* g;
  float* m;
  float* v;
  const float* lr;
  int64_t n;
};

struct SgdVector {
  float* p;
  const float* g;
  float* velocity;
  const float* lr;
  int64_t n;
};

__device__ __forceinline__ void update(const AdamVector& a, const AdamStep& s, int64_t i) {
  const AdamState next = adam_update(a.p[i], a.g[i], a.m[i], a.v[i], s);
  a.p[i] = next.p;
  a.m[i] = next.m;
  a.v[i] = next.v;
}

__device__ __forceinline__ void update_four(const AdamVector& a, const AdamStep& s, int64_t quad) {
  const float4 g = reinterpret_cast<const float4*>(a.g)[quad];
  float4& p = reinterpret_cast<float4*>(a.p)[quad];
  float4& m = reinterpret_cast<float4*>(a.m)[quad];
  float4& v = reinterpret_cast<float4*>(a.v)[quad];
  const float4 p0 = p, m0 = m, v0 = v;
  const AdamState x = adam_update(p0.x, g.x, m0.x, v0.x, s), y = adam_update(p0.y, g.y, m0.y, v0.y, s);
  const AdamState z = adam_update(p0.z, g.z, m0.z, v0.z, s), w = adam_update(p0.w, g.w, m0.w, v0.w, s);
  p = make_float4(x.p, y.p, z.p, w.p);
  m = make_float4(x.m, y.m, z.m, w.m);
  v = make_float4(x.v, y.v, z.v, w.v);
}

}  // namespace minigen

using namespace minigen;

// AdamW; weight_decay = 0 is Adam. `step` counts the updates done before.
extern "C" __global__ void __launch_bounds__(block_threads)
    adam(const AdamVector* vectors, const uint64_t* step, double beta1, double beta2, double eps, double weight_decay) {
  // Powers in double precision are slow on many cards: one thread of a block takes them for all.
  __shared__ AdamStep s;
  const AdamVector a = vectors[blockIdx.y];
  if (threadIdx.x == 0) s = adam_step({beta1, beta2, eps, weight_decay}, a.lr[0], step[0]);
  __syncthreads();
  const bool wide = aligned(a.p, 16) && aligned(a.g, 16) && aligned(a.m, 16) && aligned(a.v, 16);
  const int64_t quads = wide ? a.n / 4 : 0;
  for (int64_t i = grid_first(); i < quads; i += grid_stride()) update_four(a, s, i);
  for (int64_t i = 4 * quads + grid_first(); i < a.n; i += grid_stride()) update(a, s, i);
}

extern "C" __global__ void __launch_bounds__(block_threads)
    sgd(const SgdVector* vectors, float momentum, float weight_decay) {
  const SgdVector a = vectors[blockIdx.y];
  const float rate = a.lr[0];
  for (int64_t i = grid_first(); i < a.n; i += grid_stride()) {
    const float velocity = momentum * a.velocity[i] + (a.g[i] + weight_decay * a.p[i]);
    a.velocity[i] = velocity;
    a.p[i] -= rate * velocity;
  }
}
