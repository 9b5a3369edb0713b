// Two distributions of the same rows in; the exact KL(old || new) and its gradient out.
//
// The old one is what `outputs` kept of the policy before the updates: the log-probabilities of a
// categorical head, the log-odds of a Bernoulli one, the means of a Gaussian one. The same formulas as
// in policies/distributions.py.
#include "kernels.hpp"
#include "lanes.hpp"

namespace clipper::CLIPPER_VARIANT {

namespace {

// ln(1 + e^x)
inline Vec softplus(Vec x) { return at_least(x, Vec{}) + log1p_exp_minus_abs(x); }

// KL = sum p_old (ln p_old - ln p) over all choices; d/dl_k = p_k - p_old,k
void categorical(const Head& head, const Workspace& ws, int row) {
  Vec kl{};
  for (int k = 0; k < head.num_outputs; ++k) {
    const int64_t cell = int64_t{k} * kChunk + row;
    const Vec log_old = load(ws.old_params + cell), old = exp(log_old);
    kl += old * (log_old - load(ws.log_p + cell));
    store(ws.kl_slope + cell, load(ws.prob + cell) - old);
  }
  store(ws.kl + row, kl);
}

// KL = sum p_old (l_old - l) + ln(1 + e^l) - ln(1 + e^l_old); d/dl = p - p_old
void bernoulli(const Head& head, const Workspace& ws, int row) {
  Vec kl{};
  for (int k = 0; k < head.num_outputs; ++k) {
    const int64_t cell = int64_t{k} * kChunk + row;
    const Vec l = load(ws.params + cell), l_old = load(ws.old_params + cell);
    const Vec old = sigmoid(l_old);
    kl += old * (l_old - l) + (softplus(l) - softplus(l_old));
    store(ws.kl_slope + cell, load(ws.prob + cell) - old);
  }
  store(ws.kl + row, kl);
}

// KL = sum ln(sigma / sigma_old) + (sigma_old^2 + (mu - mu_old)^2) / (2 sigma^2) - 1/2;
// d/dmu = (mu - mu_old) / sigma^2, d/dln sigma = 1 - (sigma_old^2 + (mu - mu_old)^2) / sigma^2
void gaussian(const Head& head, const Workspace& ws, const float* old_log_std, int row) {
  Vec kl{};
  for (int k = 0; k < head.num_outputs; ++k) {
    const int64_t cell = int64_t{k} * kChunk + row;
    const Vec log_std = fill(head.log_std[k]), log_old = fill(old_log_std[k]);
    const Vec precision = exp(-2.0f * log_std);
    const Vec off = load(ws.params + cell) - load(ws.old_params + cell);
    const Vec spread = (exp(2.0f * log_old) + off * off) * precision;
    kl += (log_std - log_old) + 0.5f * (spread - 1.0f);
    store(ws.kl_slope + cell, off * precision);
    store(ws.kl_std_slope + cell, 1.0f - spread);
  }
  store(ws.kl + row, kl);
}

// Rows of normalised observations through the actor, a chunk at a time.
int forward_chunk(const Network& net, const float* packed, const Workspace& ws, const float* obs,
                  int64_t start, int64_t rows) {
  const int size = static_cast<int>(rows - start < kChunk ? rows - start : kChunk);
  const int64_t width = net.obs_width;
  memcpy(ws.obs, obs + start * width, sizeof(float) * static_cast<size_t>(size * width));
  forward(net, packed, ws, size, true, false, false);
  read_head(net, ws, size);
  log_prob_and_entropy(net, ws, size);
  return size;
}

}  // namespace

void divergence(const Network& net, const Workspace& ws, const Batch& batch, const int64_t* order,
                int rows) {
  const Head& head = net.head;
  for (int row = 0; row < rows; ++row) {
    const float* from = batch.old_params + order[row] * head.num_outputs;
    for (int k = 0; k < head.num_outputs; ++k) ws.old_params[k * kChunk + row] = from[k];
  }
  for (int row = 0; row < rows; row += kLanes) switch (head.kind) {
      case HeadKind::categorical: categorical(head, ws, row); break;
      case HeadKind::bernoulli: bernoulli(head, ws, row); break;
      case HeadKind::gaussian: gaussian(head, ws, batch.old_log_std, row); break;
    }
}

void outputs(const Network& net, const float* packed, const Workspace& ws, const float* obs,
             int64_t rows, float* out) {
  const int count = net.head.num_outputs;
  const float* from = net.head.kind == HeadKind::categorical ? ws.log_p : ws.params;
  for (int64_t start = 0; start < rows; start += kChunk) {
    const int size = forward_chunk(net, packed, ws, obs, start, rows);
    for (int row = 0; row < size; ++row)
      for (int k = 0; k < count; ++k) out[(start + row) * count + k] = from[k * kChunk + row];
  }
}

// Over the first `rows` rows of a batch.
double kl_sum(const Network& net, const float* packed, const Workspace& ws, const Batch& batch,
              int64_t rows) {
  double total = 0;
  int64_t order[kChunk];
  for (int64_t start = 0; start < rows; start += kChunk) {
    const int size = forward_chunk(net, packed, ws, batch.obs, start, rows);
    for (int row = 0; row < size; ++row) order[row] = start + row;
    divergence(net, ws, batch, order, size);
    for (int row = 0; row < size; ++row) total += ws.kl[row];
  }
  return total;
}

}  // namespace clipper::CLIPPER_VARIANT
