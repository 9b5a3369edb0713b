// The fit of the value function for Python.
#include "bindings.hpp"
#include "values.hpp"

using namespace nb::literals;

namespace clipper_python {

namespace {

// Updates taken, mean loss, whether all was finite, and the last loss and norm.
using Fitted = std::tuple<int64_t, double, bool, double, double>;

Fitted fit_values(NativePolicy& policy, In<float> obs, nb::ndarray<nb::ro, nb::c_contig> actions,
                  In<float> targets, Out<float> m, Out<float> v, int64_t num_updates,
                  int num_epochs, int64_t minibatch_size, double learning_rate,
                  std::tuple<double, double> betas, double eps, uint64_t seed, uint32_t purpose,
                  uint64_t iteration) {
  const clipper::Network& net = policy.policy().network();
  const auto rows = static_cast<int64_t>(targets.size());
  require(static_cast<int64_t>(obs.size()) == rows * net.obs_size, "obs must be [B, D]");
  require(rows > 0 && minibatch_size > 0 && num_epochs > 0, "there must be rows to fit to");
  const clipper::Range range = clipper::value_range(net);
  require(net.depth[clipper::kTorso] == 0 && range.size > 0,
          "the value function must have parameters of its own, side by side");
  require(static_cast<int64_t>(m.size()) == range.size &&
              static_cast<int64_t>(v.size()) == range.size,
          "moments must be as many as the value function's parameters");
  const Actions acted = actions_of(net, actions, rows);
  policy.policy().refresh();
  clipper::ValueOptimizer optimizer{policy.flat(), m.data(), v.data(), num_updates};
  const clipper::ValueOutcome outcome = clipper::fit_values(
      policy.policy(), {rows, obs.data(), acted.floats, acted.ints, targets.data()},
      {num_epochs, minibatch_size, learning_rate, std::get<0>(betas), std::get<1>(betas), eps,
       clipper::Stream{seed, purpose}, iteration},
      optimizer, [] { return PyErr_CheckSignals() != 0; });
  if (outcome.interrupted) throw nb::python_error();
  return {outcome.num_updates, outcome.mean_loss, outcome.finite, outcome.loss, outcome.norm};
}

}  // namespace

void bind_values(nb::module_& m) {
  m.def("fit_values", &fit_values, "policy"_a, "obs"_a, "actions"_a, "targets"_a, "m"_a, "v"_a,
        "num_updates"_a, nb::kw_only(), "num_epochs"_a, "minibatch_size"_a, "learning_rate"_a,
        "betas"_a, "eps"_a, "seed"_a, "purpose"_a, "iteration"_a);
}

}  // namespace clipper_python
