// The kernels as the Python module clipper.engine._native; arrays are numpy's and are not copied.
#include "bindings.hpp"
#include "improve.hpp"
#include "moments.hpp"
#include "philox.hpp"

#include <algorithm>

using namespace nb::literals;
using namespace clipper_python;

namespace {

// The arrays of a rollout, kept alive and checked.
struct RolloutArrays {
  In<float> obs;
  nb::ndarray<nb::ro, nb::c_contig> actions;
  In<float> log_probs, rewards, values, next_values;
  In<bool> terminated, truncated;
  In<float> final_obs;
  In<int64_t> final_at;
  In<float> last_obs;

  In<bool> begins;

  clipper::Rollout view(const clipper::Network& net, const Estimation& how) const {
    require(rewards.ndim() == 2, "rewards must be [T, N]");
    const auto num_steps = static_cast<int64_t>(rewards.shape(0));
    const auto num_envs = static_cast<int64_t>(rewards.shape(1));
    const size_t rows = rewards.size();
    require(obs.size() == rows * static_cast<size_t>(net.obs_size), "obs must be [T, N, D]");
    require(log_probs.size() == rows && values.size() == rows && next_values.size() == rows &&
                terminated.size() == rows && truncated.size() == rows,
            "columns must be [T, N]");
    const size_t finals = final_at.size() / 2;
    check_finals(net, num_steps, num_envs, final_obs, final_at, last_obs);
    const Actions from = actions_of(net, actions, static_cast<int64_t>(rows));
    require(static_cast<int64_t>(begins.size()) == num_envs, "begins must be [N]");
    const clipper::Judgement judgement{
        num_steps,         num_envs,      rewards.data(), values.data(),
        next_values.data(), terminated.data(), truncated.data(), begins.data(),
        how.estimator,     how.gamma,     how.gae_lambda, how.num_return_steps};
    return {judgement,        obs.data(),      from.floats, from.ints,      log_probs.data(),
            final_obs.data(), final_at.data(), static_cast<int64_t>(finals), last_obs.data()};
  }
};

using Reported = std::tuple<int64_t, int64_t, int, int, bool, double, double>;

Reported improve(NativePolicy& policy, const RolloutArrays& arrays, const Settings& settings,
                 Out<float> m, Out<float> v, int64_t num_updates, Out<double> reports,
                 Out<double> grad_norms, Out<float> advantages, Out<float> value_targets,
                 Out<bool> counted, Out<double> fit) {
  const clipper::Network& net = policy.policy().network();
  const clipper::Rollout rollout = arrays.view(net, settings.estimation);
  const clipper::Plan& plan = settings.plan;
  const auto rows = static_cast<int64_t>(arrays.rewards.size());
  require(plan.minibatch_size > 0 && rows % plan.minibatch_size == 0,
          "minibatch_size must divide the rollout");
  const auto minibatches = static_cast<size_t>(rows / plan.minibatch_size * plan.num_epochs);
  require(reports.size() >= minibatches * clipper::kReportSize && grad_norms.size() >= minibatches,
          "there must be room for all reports");
  require(static_cast<int64_t>(m.size()) == net.num_params &&
              static_cast<int64_t>(v.size()) == net.num_params,
          "moments must be as many as parameters");
  require(static_cast<int64_t>(advantages.size()) == rows &&
              static_cast<int64_t>(value_targets.size()) == rows &&
              static_cast<int64_t>(counted.size()) == rows,
          "the judgement must be [T, N]");
  require(fit.size() == 3, "fit must be 3 numbers");
  policy.policy().refresh();
  clipper::Optimizer optimizer{policy.flat(), m.data(), v.data(), num_updates};
  clipper::Improver improver(policy.policy(), rollout, plan, optimizer,
                             {reports.data(), grad_norms.data(), advantages.data(),
                              value_targets.data(), counted.data()});
  clipper::value_fit(rows, arrays.values.data(), value_targets.data(), fit.data());
  // a signal's handler in Python runs here, and may raise
  improver.is_interrupted = [] { return PyErr_CheckSignals() != 0; };
  const clipper::Outcome outcome = improver.run();
  if (outcome.failure == clipper::Failure::interrupted) throw nb::python_error();
  return {outcome.num_reports, outcome.num_updates, outcome.num_epochs,
          static_cast<int>(outcome.failure), outcome.shared, improver.estimate_seconds(),
          outcome.kl};
}

// The gradient of the loss over the rows `order`, its report, and what V is fitted to.
void gradient(NativePolicy& policy, const RolloutArrays& arrays, const Settings& settings,
              In<int64_t> order, Out<double> report, Out<float> grad,
              std::optional<In<float>> old_params, std::optional<In<float>> old_log_std,
              std::optional<Out<float>> value_targets) {
  const clipper::Network& net = policy.policy().network();
  const clipper::Rollout rollout = arrays.view(net, settings.estimation);
  const auto rows = static_cast<int64_t>(arrays.rewards.size());
  require(!value_targets || static_cast<int64_t>(value_targets->size()) == rows,
          "value_targets must be [T, N]");
  require(report.size() == clipper::kReportSize &&
              static_cast<int64_t>(grad.size()) == net.num_params,
          "report and grad must have their sizes");
  require(order.size() > 0, "there must be rows");
  for (size_t i = 0; i < order.size(); ++i)
    require(order.data()[i] >= 0 && order.data()[i] < rows, "order must name rows");
  policy.policy().refresh();
  std::vector<float> judged(2 * static_cast<size_t>(rows));
  const auto counted = std::make_unique<bool[]>(static_cast<size_t>(rows));
  clipper::Optimizer optimizer{policy.flat(), nullptr, nullptr, 0};
  clipper::Improver improver(policy.policy(), rollout, settings.plan, optimizer,
                             {nullptr, nullptr, judged.data(), judged.data() + rows, counted.get()});
  if (old_params) {
    const clipper::Head& head = net.head;
    require(static_cast<int64_t>(old_params->size()) == rows * head.num_outputs,
            "old_params must be [T, N, P]");
    require(old_log_std.has_value() == (head.log_std != nullptr) &&
                (!old_log_std || static_cast<int>(old_log_std->size()) == head.action_size),
            "old_log_std must be [A] of a gaussian head and none of others");
    improver.set_old(old_params->data(), old_log_std ? old_log_std->data() : nullptr);
  }
  improver.gradient(order.data(), static_cast<int64_t>(order.size()), report.data(), grad.data());
  if (value_targets) std::copy_n(judged.data() + rows, rows, value_targets->data());
}

void bind_randomness(nb::module_& m) {
  m.def("philox", [](uint64_t seed, std::array<uint32_t, 4> counter) {
    const clipper::Counter c =
        clipper::philox(seed, {{counter[0], counter[1], counter[2], counter[3]}});
    return std::array<uint32_t, 4>{c.word[0], c.word[1], c.word[2], c.word[3]};
  }, "seed"_a, "counter"_a);
  m.def("noise", [](uint64_t seed, uint32_t purpose, uint64_t first_step, bool normal,
                    nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu> out,
                    uint32_t first_env) {
    const auto size = [&out](size_t i) { return static_cast<int64_t>(out.shape(i)); };
    const auto fill = normal ? clipper::normal_block : clipper::uniform_block;
    fill({seed, purpose, first_env}, first_step, size(0), size(1), size(2), out.data());
  }, "seed"_a, "purpose"_a, "first_step"_a, "normal"_a, "out"_a, "first_env"_a = 0);
  m.def("permutation", [](uint64_t seed, uint32_t purpose, uint32_t stream, uint64_t index,
                          Out<int64_t> order) {
    clipper::Shuffler().permute({seed, purpose}, stream, index,
                                static_cast<int64_t>(order.size()), order.data());
  }, "seed"_a, "purpose"_a, "stream"_a, "index"_a, "order"_a);
}

void bind_moments(nb::module_& m) {
  m.def("merge_observations", [](nb::ndarray<const float, nb::ndim<3>, nb::c_contig,
                                             nb::device::cpu> obs,
                                 Out<double> state, In<bool> is_normalized, Out<float> mean,
                                 Out<float> inverse_std) {
    const auto size = [&obs](size_t i) { return static_cast<int64_t>(obs.shape(i)); };
    const size_t columns = obs.shape(2);
    require(obs.size() > 0, "obs must be [T, N, D], all above 0");
    require(state.size() == 1 + 2 * columns && is_normalized.size() == columns &&
                mean.size() == columns && inverse_std.size() == columns,
            "the state must be count, mean and m2 of D columns");
    clipper::merge_block(size(0), size(1), size(2), obs.data(), state.data());
    clipper::refresh(size(2), state.data(), is_normalized.data(), mean.data(), inverse_std.data());
  }, "obs"_a, "state"_a, "is_normalized"_a, "mean"_a, "inverse_std"_a);
  m.def("are_finite", [](const std::vector<In<float>>& blocks) {
    for (const In<float>& block : blocks)
      if (!clipper::is_finite(block.data(), static_cast<int64_t>(block.size()))) return false;
    return true;
  }, "blocks"_a);
  m.def("first_outside", [](In<float> obs, In<float> low, In<float> high) {
    const size_t columns = low.size();
    require(high.size() == columns && columns > 0 && obs.size() % columns == 0,
            "bounds must be [D], the block [..., D]");
    return clipper::first_outside(static_cast<int64_t>(obs.size() / columns),
                                  static_cast<int64_t>(columns), obs.data(), low.data(),
                                  high.data());
  }, "obs"_a, "low"_a, "high"_a);
}

}  // namespace

NB_MODULE(_native, m) {
  // an agent that a hook or a module's global still holds at exit is no leak of ours
  nb::set_leak_warnings(false);
  m.def("variants", [] {
    std::vector<std::string> names;
    for (const clipper::Kernels* kernels : clipper::supported_kernels())
      names.emplace_back(kernels->name);
    return names;
  });
  nb::class_<NativePolicy>(m, "Policy")
      .def(nb::init<const std::string&, Out<float>, int, int,
                    const std::array<std::vector<clipper::LayerSpec>, clipper::kNumChains>&, int,
                    const std::vector<int>&, std::optional<In<float>>, int64_t,
                    std::optional<std::array<In<float>, 3>>>(),
           "variant"_a, "flat"_a, "obs_size"_a, "activation"_a, "chains"_a, "head_kind"_a,
           "sizes"_a, "log_std"_a.none(), "log_std_param"_a, "normalizer"_a.none())
      .def("act", &NativePolicy::act, "obs"_a, "noise"_a.none(),
           "actions"_a.noconvert())
      .def("evaluate", &NativePolicy::evaluate, "obs"_a, "actions"_a.none(),
           "log_probs"_a.none().noconvert(), "values"_a.noconvert())
      .def("next_values", &NativePolicy::next_values, "values"_a, "final_obs"_a, "final_at"_a,
           "last_obs"_a, "next_values"_a.noconvert());
  nb::class_<Stepper>(m, "Stepper")
      .def(nb::init<NativePolicy&, In<float>, std::optional<In<float>>, nb::ndarray<nb::c_contig>,
                    Out<float>, Out<float>>(),
           nb::keep_alive<1, 2>(), "policy"_a, "obs"_a, "noise"_a.none(), "actions"_a, "log_probs"_a,
           "values"_a)
      .def("__call__", &Stepper::step, "t"_a);
  nb::class_<RolloutArrays>(m, "Rollout")
      .def(nb::init<In<float>, nb::ndarray<nb::ro, nb::c_contig>, In<float>, In<float>, In<float>,
                    In<float>, In<bool>, In<bool>, In<float>, In<int64_t>, In<float>,
                    In<bool>>(),
           "obs"_a, "actions"_a, "log_probs"_a, "rewards"_a, "values"_a, "next_values"_a,
           "terminated"_a, "truncated"_a, "final_obs"_a, "final_at"_a, "last_obs"_a,
           "begins"_a);
  nb::class_<Settings>(m, "Settings")
      .def("__init__", [](Settings* self, int surrogate, double clip_range, double dual_clip,
                          double kl_coef, double vf_coef, double ent_coef,
                          std::optional<double> clip_value, bool normalize_advantage,
                          int num_epochs, int64_t minibatch_size, double learning_rate,
                          std::tuple<double, double> betas, double eps,
                          std::optional<double> max_grad_norm, std::optional<double> target_kl,
                          bool recompute_advantages, double ratio_tolerance, uint64_t seed,
                          uint32_t purpose, uint64_t iteration, int estimator, double gamma,
                          double gae_lambda, int64_t num_return_steps, int num_threads) {
        new (self) Settings{};
        self->estimation = {static_cast<clipper::Estimator>(estimator), gamma, gae_lambda,
                            num_return_steps};
        self->plan = {{static_cast<clipper::Surrogate>(surrogate), clip_range, dual_clip, kl_coef,
                       vf_coef, ent_coef, clip_value.value_or(-1), normalize_advantage},
                      num_epochs, minibatch_size, learning_rate, std::get<0>(betas),
                      std::get<1>(betas), eps, max_grad_norm.value_or(-1),
                      target_kl.value_or(-1), recompute_advantages, ratio_tolerance,
                      {seed, purpose}, iteration, num_threads};
      }, nb::kw_only(), "surrogate"_a, "clip_range"_a, "dual_clip"_a, "kl_coef"_a, "vf_coef"_a, "ent_coef"_a, "clip_value"_a.none(),
         "normalize_advantage"_a, "num_epochs"_a, "minibatch_size"_a, "learning_rate"_a,
         "betas"_a, "eps"_a, "max_grad_norm"_a.none(), "target_kl"_a.none(),
         "recompute_advantages"_a, "ratio_tolerance"_a, "seed"_a, "purpose"_a, "iteration"_a,
         "estimator"_a, "gamma"_a, "gae_lambda"_a, "num_return_steps"_a, "num_threads"_a = 1);
  m.def("improve", &improve, "policy"_a, "rollout"_a, "settings"_a, "m"_a, "v"_a,
        "num_updates"_a, "reports"_a, "grad_norms"_a, "advantages"_a, "value_targets"_a,
        "counted"_a, "fit"_a);
  m.def("gradient", &gradient, "policy"_a, "rollout"_a, "settings"_a, "order"_a, "report"_a,
        "grad"_a, "old_params"_a.none() = nb::none(), "old_log_std"_a.none() = nb::none(),
        "value_targets"_a.none() = nb::none());
  m.def("estimate", [](int estimator, In<float> rewards, In<float> values, In<float> next_values,
                       In<bool> terminated, In<bool> truncated, In<bool> begins, double gamma,
                       double gae_lambda, int64_t num_return_steps, Out<float> advantages,
                       Out<float> value_targets, Out<bool> counted) {
    require(rewards.ndim() == 2, "rewards must be [T, N]");
    clipper::estimate(
        {static_cast<int64_t>(rewards.shape(0)), static_cast<int64_t>(rewards.shape(1)),
         rewards.data(), values.data(), next_values.data(), terminated.data(), truncated.data(),
         begins.data(), static_cast<clipper::Estimator>(estimator), gamma, gae_lambda,
         num_return_steps},
        advantages.data(), value_targets.data(), counted.data());
  }, "estimator"_a, "rewards"_a, "values"_a, "next_values"_a, "terminated"_a, "truncated"_a,
     "begins"_a, "gamma"_a, "gae_lambda"_a, "num_return_steps"_a, "advantages"_a,
     "value_targets"_a, "counted"_a);
  bind_moments(m);
  bind_randomness(m);
  bind_environments(m);
  bind_signals(m);
  bind_gym(m);
  bind_values(m);
  bind_head(m);
  bind_sequence(m);
}
