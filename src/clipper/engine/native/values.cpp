// The same loop as `fit_values` in engine/value_regression.py, which says why each line is there.
#include "values.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace clipper {

Range value_range(const Network& net) {
  int64_t start = net.num_params, end = 0, size = 0;
  for (int i = 0; i < net.depth[kCritic]; ++i) {
    const Layer& layer = net.layers[kCritic][i];
    const int64_t weights = int64_t{layer.inputs} * layer.outputs;
    start = std::min({start, layer.weight, layer.bias});
    end = std::max({end, layer.weight + weights, layer.bias + layer.outputs});
    size += weights + layer.outputs;
  }
  return {start, end - start == size ? size : 0};
}

ValueOutcome fit_values(Policy& policy, const ValueRows& rows, const ValuePlan& plan,
                        ValueOptimizer& optimizer, bool (*is_interrupted)()) {
  const Network& net = policy.network();
  const Kernels& kernels = policy.kernels;
  const Range range = value_range(net);
  Floats obs(rows.count * net.obs_width), grad(net.num_params);
  kernels.normalize(net, rows.obs, rows.count, obs.data());
  Batch batch{};
  batch.obs = obs.data();
  batch.float_actions = rows.float_actions;
  batch.int_actions = rows.int_actions;
  // nobody asks for these of the critic, but they are copied
  batch.log_probs = batch.values = batch.advantages = batch.value_targets = rows.targets;
  Objective objective{};
  objective.vf_coef = 1.0;
  objective.clip_value = -1.0;
  ValueOutcome outcome;
  Shuffler shuffler;
  std::vector<int64_t> order(static_cast<size_t>(rows.count));
  double total = 0, report[kReportSize];
  for (int epoch = 0; epoch < plan.num_epochs; ++epoch) {
    shuffler.permute(plan.shuffle, static_cast<uint32_t>(epoch), plan.iteration, rows.count,
                     order.data());
    for (int64_t start = 0; start < rows.count; start += plan.minibatch_size) {
      outcome.interrupted = is_interrupted();
      if (outcome.interrupted) return outcome;
      const int64_t size = std::min(plan.minibatch_size, rows.count - start);
      kernels.gradient(net, policy.packed(), policy.workspace(), batch, order.data() + start, size,
                       objective, policy.grad_sums(), report, kCriticPart);
      kernels.unpack_gradient(net, policy.grad_sums(), grad.data(), kCriticPart);
      outcome.loss = report[kValueLoss];
      outcome.norm = std::sqrt(kernels.squared_norm(grad.data() + range.start, range.size));
      outcome.finite = std::isfinite(outcome.loss) && std::isfinite(outcome.norm);
      if (!outcome.finite) return outcome;
      total += outcome.loss;
      ++outcome.num_updates;
      const auto t = static_cast<double>(++optimizer.num_updates);
      AdamStep step{};
      step.one_minus_beta1 = static_cast<float>(1.0 - plan.beta1);
      step.beta2 = static_cast<float>(plan.beta2);
      step.one_minus_beta2 = static_cast<float>(1.0 - plan.beta2);
      step.step = static_cast<float>(plan.learning_rate / (1.0 - std::pow(plan.beta1, t)));
      step.root_scale = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(plan.beta2, t)));
      step.eps = static_cast<float>(plan.eps);
      step.grad_scale = 1.0f;
      kernels.adam(step, grad.data() + range.start, optimizer.m, optimizer.v,
                   optimizer.params + range.start, range.size);
      policy.refresh(kCriticPart);
    }
  }
  outcome.mean_loss = total / static_cast<double>(outcome.num_updates);
  return outcome;
}

}  // namespace clipper
