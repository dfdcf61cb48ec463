// y[B,O] = x[B,I] W[I,O] + b[O]: a thread an output, each with its own sum over i.
//
// Neighbouring threads have neighbouring columns, so the 32 threads of a warp read 32 neighbours in a row of W, and all
// of them the same number of x. But every warp reads all that it needs from far away: of two loads comes one
// multiply-add.
extern "C" __global__ void dense(const float* x, const float* W, const float* b, float* y, int B, int I, int O) {
  const int o = blockIdx.x * 16 + threadIdx.x, r = blockIdx.y * 16 + threadIdx.y;
  if (r >= B || o >= O) return;
  float sum = b[o];
  for (int i = 0; i < I; ++i) sum += x[r * I + i] * W[i * O + o];
  y[r * O + o] = sum;
}
