// The loss of a network of the user's, its tanh, and Adam, for Python.
#include "bindings.hpp"

#include <cmath>

using namespace nb::literals;

namespace clipper_python {

namespace {

// The columns of a batch of B rows, kept alive and checked.
class Columns {
 public:
  Columns(nb::ndarray<nb::ro, nb::c_contig> actions, In<float> log_probs, In<float> values,
          In<float> advantages, In<float> value_targets, std::optional<In<bool>> counted)
      : actions_(actions),
        log_probs_(log_probs),
        values_(values),
        advantages_(advantages),
        value_targets_(value_targets),
        counted_(counted) {
    const size_t rows = log_probs.size();
    require(values.size() == rows && advantages.size() == rows && value_targets.size() == rows &&
                (!counted || counted->size() == rows),
            "columns must be [B]");
  }

  int64_t rows() const { return static_cast<int64_t>(log_probs_.size()); }

  clipper::Batch view(const clipper::Network& net) const {
    const Actions acted = actions_of(net, actions_, rows());
    return {nullptr,           acted.floats,           acted.ints,
            log_probs_.data(), values_.data(),         advantages_.data(),
            value_targets_.data(), counted_ ? counted_->data() : nullptr, nullptr, nullptr};
  }

 private:
  nb::ndarray<nb::ro, nb::c_contig> actions_;
  In<float> log_probs_, values_, advantages_, value_targets_;
  std::optional<In<bool>> counted_;
};

void loss_head(NativePolicy& policy, const Columns& columns, const Settings& settings,
               In<int64_t> order, In<float> params, In<float> values, Out<float> grad_params,
               Out<float> grad_values, Out<float> grad_log_std, Out<double> report) {
  const clipper::Network& net = policy.policy().network();
  const clipper::Objective& objective = settings.plan.objective;
  const auto rows = static_cast<int64_t>(order.size());
  require(rows > 0, "there must be rows");
  require(objective.surrogate != clipper::Surrogate::kl_penalty, "there must be no KL penalty");
  require(static_cast<int64_t>(params.size()) == rows * net.head.num_outputs &&
              grad_params.size() == params.size(),
          "params must be [M, P]");
  require(static_cast<int64_t>(values.size()) == rows && grad_values.size() == values.size(),
          "values must be [M]");
  require(report.size() == clipper::kReportSize, "report must have its size");
  const bool learns_std = net.head.log_std_param >= 0;
  require(static_cast<int>(grad_log_std.size()) == (learns_std ? net.head.action_size : 0),
          "grad_log_std must be [A] if it is learned");
  for (size_t i = 0; i < order.size(); ++i)
    require(order.data()[i] >= 0 && order.data()[i] < columns.rows(), "order must name rows");
  float* const sums = policy.policy().grad_sums();
  policy.policy().kernels.loss_head(net, policy.policy().workspace(), params.data(), values.data(),
                                    columns.view(net), order.data(), rows, objective,
                                    grad_params.data(), grad_values.data(), sums, report.data());
  report.data()[clipper::kLoss] = report.data()[clipper::kPolicyLoss] +
                                  objective.vf_coef * report.data()[clipper::kValueLoss] -
                                  objective.ent_coef * report.data()[clipper::kEntropy];
  for (size_t k = 0; k < grad_log_std.size(); ++k)
    grad_log_std.data()[k] = sums[net.head.log_std_grad + static_cast<int64_t>(k)];
}

// Clips a gradient to a norm and takes a step of Adam, unless the gradient or the loss is not finite;
// returns its norm before.
double descend(NativePolicy& policy, const Settings& settings, Out<float> params, In<float> grad,
               Out<float> m, Out<float> v, int64_t num_updates, double loss) {
  const clipper::Plan& plan = settings.plan;
  const auto size = static_cast<int64_t>(params.size());
  require(grad.size() == params.size() && m.size() == params.size() && v.size() == params.size(),
          "gradient and moments must be as many as parameters");
  const clipper::Kernels& kernels = policy.policy().kernels;
  const double norm = std::sqrt(kernels.squared_norm(grad.data(), size));
  if (!std::isfinite(norm) || !std::isfinite(loss)) return norm;
  const clipper::AdamStep step = clipper::adam_step(plan, num_updates + 1, norm);
  kernels.adam(step, grad.data(), m.data(), v.data(), params.data(), size);
  return norm;
}

// y = tanh x, element by element.
void tanh_of(const std::string& variant, In<float> x, Out<float> y) {
  const clipper::Kernels* kernels = clipper::find_kernels(variant);
  require(kernels != nullptr, "variant must be one that this machine can run");
  require(x.size() == y.size(), "y must be as large as x");
  kernels->tanh(x.data(), y.data(), static_cast<int64_t>(x.size()));
}

}  // namespace

void bind_head(nb::module_& m) {
  nb::class_<Columns>(m, "Columns")
      .def(nb::init<nb::ndarray<nb::ro, nb::c_contig>, In<float>, In<float>, In<float>, In<float>,
                    std::optional<In<bool>>>(),
           "actions"_a, "log_probs"_a, "values"_a, "advantages"_a, "value_targets"_a,
           "counted"_a.none());
  m.def("loss_head", &loss_head, "policy"_a, "columns"_a, "settings"_a, "order"_a, "params"_a,
        "values"_a, "grad_params"_a, "grad_values"_a, "grad_log_std"_a, "report"_a);
  m.def("descend", &descend, "policy"_a, "settings"_a, "params"_a, "grad"_a, "m"_a, "v"_a,
        "num_updates"_a, "loss"_a);
  m.def("tanh", &tanh_of, "variant"_a, "x"_a, "y"_a);
}

}  // namespace clipper_python
