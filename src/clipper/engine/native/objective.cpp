// A minibatch in; the gradient of the loss (arXiv 1707.06347, eq. 9) and its numbers out.
//
// The same formulas as in losses.py.
#include "kernels.hpp"
#include "lanes.hpp"

namespace clipper::CLIPPER_VARIANT {

namespace {

struct Sums {
  double objective = 0, value = 0, entropy = 0, kl = 0, clipped = 0, divergence = 0;
  float ratio_error = 0;
};

struct Scale {
  float mean = 0, divisor = 1;
};

bool is_counted(const Batch& batch, int64_t row) {
  return batch.counted == nullptr || batch.counted[row];
}

// (A - mean) / (std + 1e-8) over the minibatch's rows that count, sample standard deviation
Scale advantage_scale(const Batch& batch, const int64_t* order, int64_t rows) {
  double total = 0, squares = 0;
  int64_t count = 0;
  for (int64_t i = 0; i < rows; ++i)
    if (is_counted(batch, order[i])) {
      total += batch.advantages[order[i]];
      ++count;
    }
  if (count < 2) return {};
  const double mean = total / static_cast<double>(count);
  for (int64_t i = 0; i < rows; ++i)
    if (is_counted(batch, order[i])) {
      const double off = batch.advantages[order[i]] - mean;
      squares += off * off;
    }
  const double std = __builtin_sqrt(squares / static_cast<double>(count - 1));
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

struct Edges {
  Vec low, high, range, dual;
};

// What a row adds to the objective, and its derivative by log pi.
struct Term {
  Vec value, slope;
};

template <Surrogate surrogate>
inline Term term_of(const Edges& edges, Vec ratio, Vec log_prob, Vec advantage) {
  if (surrogate == Surrogate::pg) return {log_prob * advantage, advantage};  // log pi A
  const Vec plain = ratio * advantage;
  if (surrogate == Surrogate::cpi || surrogate == Surrogate::kl_penalty) return {plain, plain};
  if (surrogate == Surrogate::spo) {  // rho A - |A| (rho - 1)^2 / (2 eps)
    const Vec off = ratio - 1.0f, pull = magnitude(advantage) * off / edges.range;
    return {plain - 0.5f * pull * off, plain - pull * ratio};
  }
  // min(rho A, clip(rho, 1 - eps, 1 + eps) A)
  const Vec clipped = at_least(at_most(ratio, edges.high), edges.low) * advantage;
  const Vec smaller = clipped < plain ? clipped : plain;
  // its derivative by log pi is rho A, and 0 exactly where A > 0, rho > 1 + eps or A < 0,
  // rho < 1 - eps
  const Vec slope = advantage > 0.0f ? (ratio > edges.high ? Vec{} : plain)
                                     : (ratio < edges.low ? Vec{} : plain);
  if (surrogate == Surrogate::clip) return {smaller, slope};
  // and where A < 0 not below c A
  const Vec floor = advantage < 0.0f ? edges.dual * advantage : smaller;
  return {smaller < floor ? floor : smaller, smaller < floor ? Vec{} : slope};
}

// Fills ws.grad_log_prob of a chunk, and adds its numbers up.
template <Surrogate surrogate>
void policy_losses(const Workspace& ws, int rows, int64_t minibatch, const Objective& objective,
                   Sums& sums) {
  const Edges edges{fill(static_cast<float>(1.0 - objective.clip_range)),
                    fill(static_cast<float>(1.0 + objective.clip_range)),
                    fill(static_cast<float>(objective.clip_range)),
                    fill(static_cast<float>(objective.dual_clip))};
  const float per_row = static_cast<float>(1.0 / static_cast<double>(minibatch));
  for (int row = 0; row < rows; row += kLanes) {
    const Vec log_ratio = load(ws.log_prob + row) - load(ws.old_log_prob + row);
    const Vec ratio = exp(log_ratio), advantage = load(ws.advantage + row);
    const Term term = term_of<surrogate>(edges, ratio, load(ws.log_prob + row), advantage);
    store(ws.grad_log_prob + row, -per_row * term.slope);
    const Vec k3 = expm1_minus(log_ratio, ratio), error = magnitude(ratio - 1.0f);
    const int count = rows - row < kLanes ? rows - row : kLanes;
    for (int i = 0; i < count; ++i) {
      sums.objective += term.value[i];
      sums.entropy += ws.entropy[row + i];
      sums.kl += k3[i];
      sums.clipped += error[i] > edges.range[i] ? 1.0 : 0.0;
      sums.ratio_error = error[i] <= sums.ratio_error ? sums.ratio_error : error[i];
    }
  }
}

using PolicyLosses = void (*)(const Workspace&, int rows, int64_t minibatch, const Objective&,
                              Sums&);

PolicyLosses policy_losses_of(Surrogate surrogate) {
  switch (surrogate) {
    case Surrogate::clip: return policy_losses<Surrogate::clip>;
    case Surrogate::cpi: return policy_losses<Surrogate::cpi>;
    case Surrogate::pg: return policy_losses<Surrogate::pg>;
    case Surrogate::kl_penalty: return policy_losses<Surrogate::kl_penalty>;
    case Surrogate::dual_clip: return policy_losses<Surrogate::dual_clip>;
    case Surrogate::spo: break;
  }
  return policy_losses<Surrogate::spo>;
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

void gather_obs(const Network& net, const Workspace& ws, const Batch& batch, const int64_t* order,
                int rows) {
  const int width = net.obs_width;
  for (int row = 0; row < rows; ++row)
    // rows are whole multiples of kPad
    for (int k = 0; k < width; k += kLanes)
      store(ws.obs + int64_t{row} * width + k, load(batch.obs + order[row] * width + k));
}

void gather_columns(const Network& net, const Workspace& ws, const Batch& batch,
                    const int64_t* order, int rows, Scale scale) {
  for (int row = 0; row < rows; ++row) {
    const int64_t from = order[row];
    ws.old_log_prob[row] = batch.log_probs[from];
    ws.old_value[row] = batch.values[from];
    ws.advantage[row] =
        is_counted(batch, from) ? (batch.advantages[from] - scale.mean) / scale.divisor : 0.0f;
    ws.target[row] = batch.value_targets[from];
  }
  load_actions(net, ws, rows, order, batch.float_actions, batch.int_actions);
}

void tell_policy(const Objective& objective, const Sums& totals, double count, double* report) {
  report[kPolicyLoss] = (objective.kl_coef * totals.divergence - totals.objective) / count;
  report[kEntropy] = totals.entropy / count;
  report[kApproxKl] = totals.kl / count;
  report[kClipFraction] = totals.clipped / count;
  report[kRatioError] = totals.ratio_error;
}

}  // namespace

void gradient(const Network& net, const float* packed, const Workspace& ws, const Batch& batch,
              const int64_t* order, int64_t rows, const Objective& objective, float* sums,
              double* report, Parts parts) {
  const bool actor = is_of(kActor, parts), critic = is_of(kCritic, parts);
  Scale scale;
  if (actor && objective.normalize_advantage) scale = advantage_scale(batch, order, rows);
  const PolicyLosses policy_losses = policy_losses_of(objective.surrogate);
  const bool is_penalised = objective.surrogate == Surrogate::kl_penalty;
  const double count = static_cast<double>(rows);
  const float grad_entropy = static_cast<float>(-objective.ent_coef / count);
  const float grad_kl = is_penalised ? static_cast<float>(objective.kl_coef / count) : 0.0f;
  const bool has_torso = net.depth[kTorso] > 0;
  const int value_width = net.layers[kCritic][net.depth[kCritic] - 1].out_width;
  Sums totals;
  for (int64_t start = 0; start < rows; start += kChunk) {
    const int size = static_cast<int>(rows - start < kChunk ? rows - start : kChunk);
    const Start begin = start == 0 ? Start::zero : Start::add;
    gather_obs(net, ws, batch, order + start, size);
    gather_columns(net, ws, batch, order + start, size, scale);
    forward(net, packed, ws, size, actor, critic, true);
    if (actor) {
      read_head(net, ws, size);
      log_prob_and_entropy(net, ws, size);
      policy_losses(ws, size, rows, objective, totals);
      if (is_penalised) {
        divergence(net, ws, batch, order + start, size);
        for (int row = 0; row < size; ++row) totals.divergence += ws.kl[row];
      }
      head_gradient(net, ws, size, grad_entropy, grad_kl, ws.delta[0], begin, sums);
      backward(net, packed, ws, size, kActor, has_torso, begin, sums);
    }
    if (critic) {
      read_values(net, ws, size);
      value_losses(ws, size, rows, objective, totals);
      for (int row = 0; row < size; ++row)
        ws.delta[0][int64_t{row} * value_width] = ws.grad_value[row];
      backward(net, packed, ws, size, kCritic, has_torso, begin, sums);
    }
    if (has_torso) backward(net, packed, ws, size, kTorso, false, begin, sums);
  }
  if (actor) tell_policy(objective, totals, count, report);
  if (critic) report[kValueLoss] = 0.5 * totals.value / count;
}

void loss_head(const Network& net, const Workspace& ws, const float* params, const float* values,
               const Batch& batch, const int64_t* order, int64_t rows, const Objective& objective,
               float* grad_params, float* grad_values, float* sums, double* report) {
  const Scale scale =
      objective.normalize_advantage ? advantage_scale(batch, order, rows) : Scale{};
  const PolicyLosses policy_losses = policy_losses_of(objective.surrogate);
  const double count = static_cast<double>(rows);
  const float grad_entropy = static_cast<float>(-objective.ent_coef / count);
  const int64_t outputs = net.head.num_outputs;
  const int64_t width = net.layers[kActor][net.depth[kActor] - 1].out_width;
  float* const read = const_cast<float*>(output(net, ws, kActor));
  Sums totals;
  for (int64_t start = 0; start < rows; start += kChunk) {
    const int size = static_cast<int>(rows - start < kChunk ? rows - start : kChunk);
    gather_columns(net, ws, batch, order + start, size, scale);
    for (int row = 0; row < size; ++row) {
      const float* const from = params + (start + row) * outputs;
      for (int64_t k = 0; k < outputs; ++k) read[row * width + k] = from[k];
      ws.value[row] = values[start + row];
    }
    read_head(net, ws, size);
    log_prob_and_entropy(net, ws, size);
    policy_losses(ws, size, rows, objective, totals);
    head_gradient(net, ws, size, grad_entropy, 0.0f, ws.delta[0],
                  start == 0 ? Start::zero : Start::add, sums);
    value_losses(ws, size, rows, objective, totals);
    for (int row = 0; row < size; ++row) {
      float* const to = grad_params + (start + row) * outputs;
      for (int64_t k = 0; k < outputs; ++k) to[k] = ws.delta[0][row * width + k];
      grad_values[start + row] = ws.grad_value[row];
    }
  }
  tell_policy(objective, totals, count, report);
  report[kValueLoss] = 0.5 * totals.value / count;
}

}  // namespace clipper::CLIPPER_VARIANT
