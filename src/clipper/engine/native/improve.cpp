// A rollout in, a better policy out: K epochs of minibatches (arXiv 1707.06347, algorithm 1).
//
// The same loop as `PPO.improve` in algorithms/ppo.py, which says why each line is there.
#include "improve.hpp"

#include <chrono>
#include <cmath>
#include <optional>
#include <system_error>

namespace clipper {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

AdamStep adam_step(const Plan& plan, int64_t num_updates, double norm) {
  const auto t = static_cast<double>(num_updates);
  AdamStep step{};
  step.one_minus_beta1 = static_cast<float>(1.0 - plan.beta1);
  step.beta2 = static_cast<float>(plan.beta2);
  step.one_minus_beta2 = static_cast<float>(1.0 - plan.beta2);
  step.step = static_cast<float>(plan.learning_rate / (1.0 - std::pow(plan.beta1, t)));
  step.root_scale = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(plan.beta2, t)));
  step.eps = static_cast<float>(plan.eps);
  const bool clips = plan.max_grad_norm >= 0 && norm > plan.max_grad_norm;
  step.grad_scale = clips ? static_cast<float>(plan.max_grad_norm / (norm + 1e-6)) : 1.0f;
  return step;
}

Improver::Improver(Policy& policy, const Rollout& rollout, const Plan& plan, Optimizer& optimizer,
                   const Records& records)
    : policy_(policy),
      rollout_(rollout),
      plan_(plan),
      optimizer_(optimizer),
      records_(records),
      num_rows_(rollout.judgement.num_steps * rollout.judgement.num_envs),
      obs_(num_rows_ * policy.network().obs_width),
      grad_(policy.network().num_params) {
  policy_.kernels.normalize(policy_.network(), rollout_.obs, num_rows_, obs_.data());
  const Judgement& j = rollout_.judgement;
  const Clock::time_point start = Clock::now();
  judge(j.values, j.next_values, records_.advantages, records_.value_targets);
  estimate_seconds_ = seconds_since(start);
  batch_.obs = obs_.data();
  batch_.float_actions = rollout_.float_actions;
  batch_.int_actions = rollout_.int_actions;
  batch_.log_probs = rollout_.log_probs;
  if (plan_.objective.surrogate == Surrogate::kl_penalty) remember();
}

// Keeps the distributions of the policy that acted: it is the present one before the first update.
void Improver::remember() {
  const Network& net = policy_.network();
  old_params_.resize(static_cast<size_t>(num_rows_ * net.head.num_outputs));
  policy_.kernels.outputs(net, policy_.packed(), policy_.workspace(), obs_.data(), num_rows_,
                          old_params_.data());
  if (net.head.log_std) old_log_std_.assign(net.head.log_std, net.head.log_std + net.head.action_size);
  set_old(old_params_.data(), old_log_std_.data());
}

void Improver::set_old(const float* params, const float* log_std) {
  batch_.old_params = params;
  batch_.old_log_std = log_std;
}

void Improver::judge(const float* values, const float* next_values, float* advantages,
                     float* targets) {
  Judgement judgement = rollout_.judgement;
  judgement.values = values;
  judgement.next_values = next_values;
  estimate(judgement, advantages, targets, records_.counted);
  batch_.values = values;
  batch_.advantages = advantages;
  batch_.value_targets = targets;
  batch_.counted = judgement.estimator == Estimator::total_return ? records_.counted : nullptr;
}

// With the value function as it is now.
void Improver::judge_anew() {
  const Clock::time_point start = Clock::now();
  const Judgement& j = rollout_.judgement;
  const auto rows = static_cast<size_t>(num_rows_);
  values_.resize(rows);
  next_values_.resize(rows);
  advantages_.resize(rows);
  targets_.resize(rows);
  final_values_.resize(static_cast<size_t>(rollout_.num_finals) + 1);
  last_values_.resize(static_cast<size_t>(j.num_envs));
  const auto value = [this](const float* obs, int64_t count, std::vector<float>& to) {
    policy_.kernels.evaluate(policy_.network(), policy_.packed(), policy_.workspace(), obs, count,
                             nullptr, nullptr, nullptr, to.data());
  };
  value(rollout_.obs, num_rows_, values_);
  value(rollout_.final_obs, rollout_.num_finals, final_values_);
  value(rollout_.last_obs, j.num_envs, last_values_);
  successor_values(j.num_steps, j.num_envs, values_.data(), final_values_.data(),
                   rollout_.final_at, rollout_.num_finals, last_values_.data(),
                   next_values_.data());
  judge(values_.data(), next_values_.data(), advantages_.data(), targets_.data());
  estimate_seconds_ += seconds_since(start);
}

void Improver::gradient(const int64_t* order, int64_t rows, double* report, float* flat) {
  const Network& net = policy_.network();
  both([&](Parts parts, int thread) {
    policy_.kernels.gradient(net, policy_.packed(), policy_.workspace(thread), batch_, order, rows,
                             plan_.objective, policy_.grad_sums(), report, parts);
    policy_.kernels.unpack_gradient(net, policy_.grad_sums(), flat, parts);
  });
  report[kLoss] = report[kPolicyLoss] + plan_.objective.vf_coef * report[kValueLoss] -
                  plan_.objective.ent_coef * report[kEntropy];
}

// All of it on this thread, or the actor's here and the critic's on the second one. They share no
// number that is written, so the bits are the same.
void Improver::both(const std::function<void(Parts, int thread)>& work) {
  if (!is_shared_) return work(kAllParts, 0);
  stalls_.note(Partner::get().run([&] { work(kActorPart, 0); }, [&] { work(kCriticPart, 1); }));
  if (stalls_.are_too_many()) is_shared_ = false;  // this thread goes on alone
}

// One step of Adam on the parameters of some parts, which the kernels take over.
void Improver::move(const AdamStep& step, Parts parts) {
  const Network& net = policy_.network();
  const auto range = [&](int64_t start, int64_t size) {
    policy_.kernels.adam(step, grad_.data() + start, optimizer_.m + start, optimizer_.v + start,
                         optimizer_.params + start, size);
  };
  if (parts == kAllParts) {
    range(0, net.num_params);
  } else {
    const Chain chain = parts == kActorPart ? kActor : kCritic;
    for (int i = 0; i < net.depth[chain]; ++i) {
      const Layer& layer = net.layers[chain][i];
      range(layer.weight, int64_t{layer.inputs} * layer.outputs);
      range(layer.bias, layer.outputs);
    }
    if (parts == kActorPart && net.head.log_std_param >= 0)
      range(net.head.log_std_param, net.head.action_size);
  }
  policy_.refresh(parts);
}

// Clips the gradient and takes a step; false if the loss or the gradient is not finite.
bool Improver::step(const double* report, double* grad_norm) {
  const double norm =
      std::sqrt(policy_.kernels.squared_norm(grad_.data(), policy_.network().num_params));
  *grad_norm = norm;
  if (!std::isfinite(norm) || !std::isfinite(report[kLoss])) return false;
  const AdamStep step = adam_step(plan_, ++optimizer_.num_updates, norm);
  both([&](Parts parts, int) { move(step, parts); });
  return true;
}

Outcome Improver::run() {
  Outcome outcome;
  update(outcome);
  if (batch_.old_params && outcome.failure == Failure::none)
    outcome.kl = policy_.kernels.kl_sum(policy_.network(), policy_.packed(), policy_.workspace(),
                                        batch_, num_rows_) /
                 static_cast<double>(num_rows_);
  return outcome;
}

void Improver::update(Outcome& outcome) {
  std::optional<Partnership> partnership;
  try {
    if (plan_.num_threads > 1 && policy_.network().depth[kTorso] == 0 && Partner::is_possible())
      partnership.emplace();
  } catch (const std::system_error&) {
    // no more threads for this process
  }
  is_shared_ = partnership && partnership->is_ours();  // else nobody would take a task
  Shuffler shuffler;
  std::vector<int64_t> order(static_cast<size_t>(num_rows_));
  for (int epoch = 0; epoch < plan_.num_epochs; ++epoch) {
    if (epoch > 0 && plan_.recompute_advantages) judge_anew();
    shuffler.permute(plan_.shuffle, static_cast<uint32_t>(epoch), plan_.iteration, num_rows_,
                     order.data());
    for (int64_t start = 0; start < num_rows_; start += plan_.minibatch_size) {
      if (is_interrupted && is_interrupted()) {
        outcome.failure = Failure::interrupted;
        return;
      }
      double* report = records_.reports + outcome.num_reports++ * kReportSize;
      gradient(order.data() + start, plan_.minibatch_size, report, grad_.data());
      if (outcome.num_reports == 1 && !(report[kRatioError] <= plan_.ratio_tolerance)) {
        outcome.failure = Failure::ratio;
        return;
      }
      if (plan_.target_kl >= 0 && report[kApproxKl] > 1.5 * plan_.target_kl) return;
      if (!step(report, records_.grad_norms + outcome.num_updates)) {
        outcome.failure = Failure::not_finite;
        return;
      }
      ++outcome.num_updates;
      outcome.shared = is_shared_;
      if (partnership && !is_shared_) partnership.reset();
    }
    ++outcome.num_epochs;
  }
}

}  // namespace clipper
