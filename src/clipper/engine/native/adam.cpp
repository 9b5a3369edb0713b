// A gradient in, one step of Adam out (Kingma and Ba 2015, arXiv 1412.6980, algorithm 1).
#include "kernels.hpp"
#include "lanes.hpp"

namespace clipper::CLIPPER_VARIANT {

// In a fixed order: lanes of four sums, blocks of 4096 numbers in double.
double squared_norm(const float* x, int64_t size) {
  constexpr int64_t kBlock = 4096;
  double total = 0;
  for (int64_t start = 0; start < size; start += kBlock) {
    const int64_t end = size - start < kBlock ? size : start + kBlock;
    Vec sum[4] = {};
    int64_t i = start;
    for (; i + 4 * kLanes <= end; i += 4 * kLanes)
      for (int j = 0; j < 4; ++j) {
        const Vec v = load(x + i + j * kLanes);
        sum[j] = fma(v, v, sum[j]);
      }
    total += sum_of((sum[0] + sum[1]) + (sum[2] + sum[3]));
    for (; i < end; ++i) total += x[i] * x[i];
  }
  return total;
}

namespace {

struct Moments {
  Vec m, v, params;
};

inline Moments moved(const AdamStep& s, Vec raw, Vec m, Vec v, Vec params) {
  const Vec grad = raw * s.grad_scale;
  m = fma(fill(s.one_minus_beta1), grad - m, m);     // m <- beta1 m + (1 - beta1) g
  v = fma(grad * grad, fill(s.one_minus_beta2), v * s.beta2);  // v <- beta2 v + (1 - beta2) g^2
  // theta <- theta - lr m^ / (sqrt(v^) + eps)
  return {m, v, params - s.step * m / (root(v) * s.root_scale + s.eps)};
}

}  // namespace

void adam(const AdamStep& step, const float* grad, float* m, float* v, float* params,
          int64_t size) {
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    const Moments next =
        moved(step, load(grad + i), load(m + i), load(v + i), load(params + i));
    store(m + i, next.m);
    store(v + i, next.v);
    store(params + i, next.params);
  }
  if (i == size) return;
  float rest[4][kLanes] = {};
  const size_t bytes = sizeof(float) * static_cast<size_t>(size - i);
  const float* from[4] = {grad + i, m + i, v + i, params + i};
  for (int j = 0; j < 4; ++j) memcpy(rest[j], from[j], bytes);
  const Moments next = moved(step, load(rest[0]), load(rest[1]), load(rest[2]), load(rest[3]));
  store(rest[1], next.m);
  store(rest[2], next.v);
  store(rest[3], next.params);
  memcpy(m + i, rest[1], bytes);
  memcpy(v + i, rest[2], bytes);
  memcpy(params + i, rest[3], bytes);
}

}  // namespace clipper::CLIPPER_VARIANT
