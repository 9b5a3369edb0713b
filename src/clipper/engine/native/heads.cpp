// Outputs of the policy head in; actions, log-probabilities, entropies and their gradients out.
//
// The head's few outputs are turned on their side, [C][P] -> [P][C], so that a vector holds the same
// output of neighbouring rows and the arithmetic of a row never depends on its neighbours. The same
// formulas as in policies/distributions.py.
#include "kernels.hpp"
#include "lanes.hpp"

namespace clipper::CLIPPER_VARIANT {

namespace {

constexpr float kHalfLog2Pi = 0.91893853320467274f;

void turn(const float* from, int width, int rows, int columns, float* to) {
  for (int k = 0; k < columns; ++k)
    for (int row = 0; row < rows; ++row) to[k * kChunk + row] = from[int64_t{row} * width + k];
}

int out_width(const Network& net, Chain chain) {
  return net.layers[chain][net.depth[chain] - 1].out_width;
}

// p_k = e^(l_k - max) and the sum of all; the caller divides
Vec softmax_terms(const float* logits, int size, float* terms, Vec* highest) {
  Vec high = load(logits);
  for (int k = 1; k < size; ++k) {
    const Vec l = load(logits + k * kChunk);
    high = l > high ? l : high;
  }
  Vec total{};
  for (int k = 0; k < size; ++k) {
    const Vec term = exp(load(logits + k * kChunk) - high);
    store(terms + k * kChunk, term);
    total += term;
  }
  *highest = high;
  return total;
}

void categorical(const Head& head, const Workspace& ws, int row) {
  Vec log_prob{}, entropy{};
  int first = 0;
  for (int choice = 0; choice < head.num_choices; first += head.sizes[choice++]) {
    const int64_t at = int64_t{first} * kChunk + row;
    const int size = head.sizes[choice];
    Vec high;
    const Vec total = softmax_terms(ws.params + at, size, ws.prob + at, &high);
    const Vec log_total = log(total);  // log p_k = l_k - max - ln sum_j e^(l_j - max)
    const Vec chosen = load(ws.action + choice * kChunk + row);
    Vec sum{};
    for (int k = 0; k < size; ++k) {
      const int64_t cell = at + int64_t{k} * kChunk;
      const Vec p = load(ws.prob + cell) / total;
      const Vec log_p = load(ws.params + cell) - high - log_total;
      store(ws.prob + cell, p);
      store(ws.log_p + cell, log_p);
      log_prob = chosen == (float)k ? log_prob + log_p : log_prob;
      sum += p * log_p;
    }
    entropy -= sum;  // H = -sum p log p
  }
  store(ws.log_prob + row, log_prob);
  store(ws.entropy + row, entropy);
}

// d/dl_k of g log p(a) + h H:  g ([a = k] - p_k) - h p_k (log p_k + H), H of its own choice
void categorical_gradient(const Head& head, const Workspace& ws, int row, Vec grad_entropy) {
  const Vec g = load(ws.grad_log_prob + row);
  int first = 0;
  for (int choice = 0; choice < head.num_choices; first += head.sizes[choice++]) {
    const int64_t at = int64_t{first} * kChunk + row;
    const int size = head.sizes[choice];
    const Vec chosen = load(ws.action + choice * kChunk + row);
    Vec negative_entropy{};
    for (int k = 0; k < size; ++k)
      negative_entropy += load(ws.prob + at + k * kChunk) * load(ws.log_p + at + k * kChunk);
    for (int k = 0; k < size; ++k) {
      const int64_t cell = at + int64_t{k} * kChunk;
      const Vec p = load(ws.prob + cell), log_p = load(ws.log_p + cell);
      const Vec hit = chosen == (float)k ? fill(1.0f) : Vec{};
      store(ws.params + cell, g * (hit - p) - grad_entropy * (p * (log_p - negative_entropy)));
    }
  }
}

void bernoulli(const Head& head, const Workspace& ws, int row) {
  Vec log_prob{}, entropy{};
  for (int k = 0; k < head.action_size; ++k) {
    const int64_t cell = int64_t{k} * kChunk + row;
    const Vec l = load(ws.params + cell), p = sigmoid(l), rest = log1p_exp_minus_abs(l);
    const Vec z = load(ws.action + cell) > 0.5f ? l : -l;
    log_prob += at_most(z, Vec{}) - rest;               // ln s(z) = min(z, 0) - ln(1 + e^-|z|)
    entropy += (at_least(l, Vec{}) + rest) - l * p;     // H = ln(1 + e^l) - l p
    store(ws.prob + cell, p);
  }
  store(ws.log_prob + row, log_prob);
  store(ws.entropy + row, entropy);
}

// d/dl of g log p(a) + h H:  g (a - p) - h l p (1 - p)
void bernoulli_gradient(const Head& head, const Workspace& ws, int row, Vec grad_entropy) {
  const Vec g = load(ws.grad_log_prob + row);
  for (int k = 0; k < head.action_size; ++k) {
    const int64_t cell = int64_t{k} * kChunk + row;
    const Vec l = load(ws.params + cell), p = load(ws.prob + cell);
    const Vec bit = load(ws.action + cell);
    store(ws.params + cell, g * (bit - p) - grad_entropy * (l * p * (1.0f - p)));
  }
}

void gaussian(const Head& head, const Workspace& ws, int row) {
  Vec log_prob{}, entropy{};
  for (int k = 0; k < head.action_size; ++k) {
    const int64_t cell = int64_t{k} * kChunk + row;
    const Vec log_std = fill(head.log_std[k]);
    const Vec z = (load(ws.action + cell) - load(ws.params + cell)) * exp(-log_std);
    store(ws.prob + cell, z);
    log_prob += -0.5f * z * z - log_std;  // -z^2 / 2 - ln sigma - ln(2 pi) / 2
    entropy += log_std;                   // ln sigma + ln(2 pi e) / 2
  }
  const float size = (float)head.action_size;
  store(ws.log_prob + row, log_prob - kHalfLog2Pi * size);
  store(ws.entropy + row, entropy + (0.5f + kHalfLog2Pi) * size);
}

// of g log p(a): d/dmu = g z / sigma, d/dln sigma = g (z^2 - 1), left in log_p for each row
void gaussian_gradient(const Head& head, const Workspace& ws, int row) {
  const Vec g = load(ws.grad_log_prob + row);
  for (int k = 0; k < head.action_size; ++k) {
    const int64_t cell = int64_t{k} * kChunk + row;
    const Vec z = load(ws.prob + cell);
    store(ws.params + cell, g * z * exp(fill(-head.log_std[k])));
    store(ws.log_p + cell, g * (z * z - 1.0f));
  }
}

void add_slopes(const float* slope, float weight, int64_t size, float* to) {
  for (int64_t i = 0; i < size; i += kLanes)
    store(to + i, load(to + i) + weight * load(slope + i));
}

}  // namespace

void read_head(const Network& net, const Workspace& ws, int rows) {
  turn(output(net, ws, kActor), out_width(net, kActor), rows, net.head.num_outputs, ws.params);
}

void read_values(const Network& net, const Workspace& ws, int rows) {
  turn(output(net, ws, kCritic), out_width(net, kCritic), rows, 1, ws.value);
}

// Rows `order[0 .. rows)` of the actions, or the first `rows` without an order, [C][A] -> [A][C].
void load_actions(const Network& net, const Workspace& ws, int rows, const int64_t* order,
                  const float* float_actions, const int64_t* int_actions) {
  const int size = net.head.action_size;
  for (int row = 0; row < rows; ++row) {
    const int64_t at = (order ? order[row] : row) * size;
    for (int k = 0; k < size; ++k)
      ws.action[k * kChunk + row] =
          float_actions ? float_actions[at + k] : static_cast<float>(int_actions[at + k]);
  }
}

void log_prob_and_entropy(const Network& net, const Workspace& ws, int rows) {
  for (int row = 0; row < rows; row += kLanes) switch (net.head.kind) {
      case HeadKind::categorical: categorical(net.head, ws, row); break;
      case HeadKind::bernoulli: bernoulli(net.head, ws, row); break;
      case HeadKind::gaussian: gaussian(net.head, ws, row); break;
    }
}

// Takes ws.grad_log_prob and dL/dH and dL/dKL, the same for every row; leaves the gradient of the
// head's outputs in `delta` [rows][width], and adds that of the log standard deviations to `sums`
// (begin = Start::add) or sets it (Start::zero).
void head_gradient(const Network& net, const Workspace& ws, int rows, float grad_entropy,
                   float grad_kl, float* delta, Start begin, float* sums) {
  const Head& head = net.head;
  const Vec h = fill(grad_entropy);
  for (int row = 0; row < rows; row += kLanes) switch (head.kind) {
      case HeadKind::categorical: categorical_gradient(head, ws, row, h); break;
      case HeadKind::bernoulli: bernoulli_gradient(head, ws, row, h); break;
      case HeadKind::gaussian: gaussian_gradient(head, ws, row); break;
    }
  if (grad_kl != 0.0f) {
    const int64_t size = int64_t{head.num_outputs} * kChunk;
    add_slopes(ws.kl_slope, grad_kl, size, ws.params);
    if (head.log_std_param >= 0) add_slopes(ws.kl_std_slope, grad_kl, size, ws.log_p);
  }
  const int width = out_width(net, kActor);
  for (int row = 0; row < rows; ++row)
    for (int k = 0; k < head.num_outputs; ++k)
      delta[int64_t{row} * width + k] = ws.params[k * kChunk + row];
  if (head.log_std_param < 0) return;
  for (int k = 0; k < head.action_size; ++k) {
    float total = begin == Start::add ? sums[head.log_std_grad + k] : 0.0f;
    for (int row = 0; row < rows; ++row) total += ws.log_p[k * kChunk + row] + grad_entropy;
    sums[head.log_std_grad + k] = total;
  }
}

// Draws an action from each row's noise, or without noise takes the most likely one; ws.action too.
void sample(const Network& net, const Workspace& ws, int rows, const float* noise,
            float* float_actions, int64_t* int_actions) {
  const Head& head = net.head;
  const int size = head.action_size;
  int first = 0;
  for (int k = 0; k < size; ++k) {
    const float* params = ws.params + int64_t{first} * kChunk;
    const int categories = head.kind == HeadKind::categorical ? head.sizes[k] : 1;
    for (int row = 0; row < rows; row += kLanes) {
      const int count = rows - row < kLanes ? rows - row : kLanes;
      float drawn[kLanes] = {};
      for (int i = 0; i < count && noise; ++i) drawn[i] = noise[int64_t{row + i} * size + k];
      const Vec u = load(drawn), l = load(params + row);
      Vec action;
      if (head.kind == HeadKind::gaussian) {
        action = noise ? l + exp(fill(head.log_std[k])) * u : l;  // mu + sigma noise
      } else if (head.kind == HeadKind::bernoulli) {
        action = (noise ? u < sigmoid(l) : l > 0.0f) ? fill(1.0f) : Vec{};
      } else if (noise) {  // how many cumulative probabilities the noise reaches
        float* const terms = ws.prob + int64_t{first} * kChunk + row;
        Vec high;
        const Vec reach = u * softmax_terms(params + row, categories, terms, &high);
        Vec cumulative{};
        action = Vec{};
        for (int j = 0; j + 1 < categories; ++j) {
          cumulative += load(terms + j * kChunk);
          action += reach >= cumulative ? fill(1.0f) : Vec{};
        }
      } else {
        Vec high = l;
        action = Vec{};
        for (int j = 1; j < categories; ++j) {
          const Vec next = load(params + row + j * kChunk);
          action = next > high ? fill((float)j) : action;
          high = next > high ? next : high;
        }
      }
      store(ws.action + k * kChunk + row, action);
      for (int i = 0; i < count; ++i) {
        const int64_t at = int64_t{row + i} * size + k;
        if (float_actions) float_actions[at] = action[i];
        else int_actions[at] = static_cast<int64_t>(action[i]);
      }
    }
    first += categories;
  }
}

}  // namespace clipper::CLIPPER_VARIANT
