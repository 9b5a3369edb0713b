// A minibatch in; the gradient of -L^{CLIP+VF+S} (arXiv 1707.06347, eq. 9) and its numbers out.
#include "kernels.hpp"
#include "lanes.hpp"

namespace clipper::CLIPPER_VARIANT {

namespace {

struct Sums {
  double objective = 0, value = 0, entropy = 0, kl = 0, clipped = 0;
  float ratio_error = 0;
};

struct Scale {
  float mean = 0, divisor = 1;
};

// (A - mean) / (std + 1e-8) over the minibatch, sample standard deviation
Scale advantage_scale(const Batch& batch, const int64_t* order, int64_t rows) {
  double total = 0, squares = 0;
  for (int64_t i = 0; i < rows; ++i) total += batch.advantages[order[i]];
  const double mean = total / static_cast<double>(rows);
  for (int64_t i = 0; i < rows; ++i) {
    const double off = batch.advantages[order[i]] - mean;
    squares += off * off;
  }
  const double std = __builtin_sqrt(squares / static_cast<double>(rows - 1));
  return {static_cast<float>(mean), static_cast<float>(std + 1e-8)};
}

// (e^x - 1) - x = x^2 (1/2 + x/6 + x^2/24 + ...), without cancellation near 0
inline Vec expm1_minus(Vec x, Vec exp_x) {
  Vec p = fill(1.0f / 40320.0f);
  p = fma(p, x, fill(1.0f / 5040.0f));
  p = fma(p, x, fill(1.0f / 720.0f));
  p = fma(p, x, fill(1.0f / 120.0f));
  p = fma(p, x, fill(1.0f / 24.0f));
  p = fma(p, x, fill(1.0f / 6.0f));
  p = fma(p, x, fill(0.5f));
  return magnitude(x) < 0.5f ? x * x * p : exp_x - 1.0f - x;
}

// Fills ws.grad_log_prob of a chunk, and adds its numbers up.
void policy_losses(const Workspace& ws, int rows, int64_t minibatch, const Objective& objective,
                   Sums& sums) {
  const Vec low = fill(static_cast<float>(1.0 - objective.clip_range));
  const Vec high = fill(static_cast<float>(1.0 + objective.clip_range));
  const Vec range = fill(static_cast<float>(objective.clip_range));
  const float per_row = static_cast<float>(1.0 / static_cast<double>(minibatch));
  for (int row = 0; row < rows; row += kLanes) {
    const Vec log_ratio = load(ws.log_prob + row) - load(ws.old_log_prob + row);
    const Vec ratio = exp(log_ratio), advantage = load(ws.advantage + row);
    // min(rho A, clip(rho, 1 - eps, 1 + eps) A)
    const Vec plain = ratio * advantage;
    const Vec clipped = at_least(at_most(ratio, high), low) * advantage;
    const Vec smaller = clipped < plain ? clipped : plain;
    // its derivative by log pi is rho A, and 0 exactly where A > 0, rho > 1 + eps or A < 0,
    // rho < 1 - eps
    const Vec slope = advantage > 0.0f ? (ratio > high ? Vec{} : plain)
                                       : (ratio < low ? Vec{} : plain);
    store(ws.grad_log_prob + row, -per_row * slope);
    const Vec k3 = expm1_minus(log_ratio, ratio), error = magnitude(ratio - 1.0f);
    const int count = rows - row < kLanes ? rows - row : kLanes;
    for (int i = 0; i < count; ++i) {
      sums.objective += smaller[i];
      sums.entropy += ws.entropy[row + i];
      sums.kl += k3[i];
      sums.clipped += error[i] > range[i] ? 1.0 : 0.0;
      sums.ratio_error = error[i] <= sums.ratio_error ? sums.ratio_error : error[i];
    }
  }
}

// Fills ws.grad_value of a chunk, and adds its numbers up.
void value_losses(const Workspace& ws, int rows, int64_t minibatch, const Objective& objective,
                  Sums& sums) {
  const Vec clip_value = fill(static_cast<float>(objective.clip_value));
  const float per_row = static_cast<float>(1.0 / static_cast<double>(minibatch));
  const Vec value_weight = fill(static_cast<float>(objective.vf_coef) * per_row);
  for (int row = 0; row < rows; row += kLanes) {
    const Vec value = load(ws.value + row), target = load(ws.target + row);
    const Vec off = value - target;
    Vec square = off * off, grad = off;  // d/dV of (V - target)^2 / 2
    if (objective.clip_value >= 0) {
      // max((V - target)^2, (V_old + clip(V - V_old, -c, c) - target)^2) / 2
      const Vec moved = value - load(ws.old_value + row);
      const Vec near = load(ws.old_value + row) + at_least(at_most(moved, clip_value), -clip_value);
      const Vec near_square = (near - target) * (near - target);
      const Vec inside = magnitude(moved) <= clip_value ? off : Vec{};
      grad = square >= near_square ? off : inside;
      square = square >= near_square ? square : near_square;
    }
    store(ws.grad_value + row, value_weight * grad);
    const int count = rows - row < kLanes ? rows - row : kLanes;
    for (int i = 0; i < count; ++i) sums.value += square[i];
  }
}

void gather(const Network& net, const Workspace& ws, const Batch& batch, const int64_t* order,
            int rows, Scale scale) {
  const int width = net.obs_width;
  for (int row = 0; row < rows; ++row) {
    const int64_t from = order[row];
    memcpy(ws.obs + int64_t{row} * width, batch.obs + from * width, sizeof(float) * width);
    ws.old_log_prob[row] = batch.log_probs[from];
    ws.old_value[row] = batch.values[from];
    ws.advantage[row] = (batch.advantages[from] - scale.mean) / scale.divisor;
    ws.target[row] = batch.value_targets[from];
  }
  load_actions(net, ws, rows, order, batch.float_actions, batch.int_actions);
}

void clear(const Network& net, float* sums, Parts parts) {
  for (int chain = 0; chain < kNumChains; ++chain)
    for (int i = 0; is_of(Chain(chain), parts) && i < net.depth[chain]; ++i) {
      const Layer& layer = net.layers[chain][i];
      const int64_t size = layer.grad_on_side ? int64_t{layer.inputs} * layer.out_width
                                              : int64_t{layer.outputs} * layer.in_width;
      memset(sums + layer.grad, 0, sizeof(float) * size);
      memset(sums + layer.grad_shift, 0, sizeof(float) * layer.out_width);
    }
  if (is_of(kActor, parts))
    memset(sums + net.head.log_std_grad, 0, sizeof(float) * padded(net.head.action_size));
}

}  // namespace

void gradient(const Network& net, const float* packed, const Workspace& ws, const Batch& batch,
              const int64_t* order, int64_t rows, const Objective& objective, float* sums,
              double* report, Parts parts) {
  const bool actor = is_of(kActor, parts), critic = is_of(kCritic, parts);
  clear(net, sums, parts);
  Scale scale;
  if (actor && objective.normalize_advantage && rows > 1)
    scale = advantage_scale(batch, order, rows);
  const double count = static_cast<double>(rows);
  const float grad_entropy = static_cast<float>(-objective.ent_coef / count);
  const bool has_torso = net.depth[kTorso] > 0;
  const int value_width = net.layers[kCritic][net.depth[kCritic] - 1].out_width;
  Sums totals;
  for (int64_t start = 0; start < rows; start += kChunk) {
    const int size = static_cast<int>(rows - start < kChunk ? rows - start : kChunk);
    gather(net, ws, batch, order + start, size, scale);
    forward(net, packed, ws, size, actor, critic, true);
    if (actor) {
      read_head(net, ws, size);
      log_prob_and_entropy(net, ws, size);
      policy_losses(ws, size, rows, objective, totals);
      head_gradient(net, ws, size, grad_entropy, ws.delta[0], sums);
      backward(net, packed, ws, size, kActor, has_torso, sums);
    }
    if (critic) {
      read_values(net, ws, size);
      value_losses(ws, size, rows, objective, totals);
      for (int row = 0; row < size; ++row)
        ws.delta[0][int64_t{row} * value_width] = ws.grad_value[row];
      backward(net, packed, ws, size, kCritic, has_torso, sums);
    }
    if (has_torso) backward(net, packed, ws, size, kTorso, false, sums);
  }
  if (actor) {
    report[kPolicyLoss] = -totals.objective / count;
    report[kEntropy] = totals.entropy / count;
    report[kApproxKl] = totals.kl / count;
    report[kClipFraction] = totals.clipped / count;
    report[kRatioError] = totals.ratio_error;
  }
  if (critic) report[kValueLoss] = 0.5 * totals.value / count;
}

}  // namespace clipper::CLIPPER_VARIANT
