// Layers one after another, forth and back, for Python.
#include "bindings.hpp"

using namespace nb::literals;

namespace clipper_python {

namespace {

const clipper::Network& checked(NativePolicy& policy, In<float> x, size_t num_outputs) {
  const clipper::Network& net = policy.policy().network();
  const int depth = net.depth[clipper::kActor];
  require(depth > 0 && net.depth[clipper::kTorso] == 0 && net.depth[clipper::kCritic] == 0,
          "the policy must have an actor's layers and no others");
  const auto rows = x.size() / static_cast<size_t>(net.obs_size);
  require(rows > 0 && x.size() == rows * static_cast<size_t>(net.obs_size), "x must be [M, D]");
  const auto outputs = static_cast<size_t>(net.layers[clipper::kActor][depth - 1].outputs);
  require(num_outputs == rows * outputs, "y must be [M, P]");
  return net;
}

int64_t rows_of(const clipper::Network& net, In<float> x) {
  return static_cast<int64_t>(x.size()) / net.obs_size;
}

// Numbers that are kept of so many rows.
int64_t kept_size(const clipper::Network& net, int64_t rows) {
  return (rows + clipper::kChunk - 1) / clipper::kChunk * net.outputs_size;
}

void run(NativePolicy& policy, In<float> x, std::optional<Out<float>> kept, Out<float> y) {
  const clipper::Network& net = checked(policy, x, y.size());
  const int64_t rows = rows_of(net, x);
  require(!kept || static_cast<int64_t>(kept->size()) == kept_size(net, rows),
          "kept must have its size");
  policy.policy().refresh(clipper::kActorPart);
  policy.policy().kernels.run(net, policy.policy().packed(), policy.policy().workspace(), x.data(),
                              rows, kept ? kept->data() : nullptr, y.data());
}

void run_back(NativePolicy& policy, In<float> x, Out<float> kept, In<float> grad_y,
              std::optional<Out<float>> grad_x, Out<float> grad) {
  const clipper::Network& net = checked(policy, x, grad_y.size());
  const int64_t rows = rows_of(net, x);
  require(static_cast<int64_t>(kept.size()) == kept_size(net, rows), "kept must have its size");
  require(!grad_x || grad_x->size() == x.size(), "grad_x must be [M, D]");
  require(static_cast<int64_t>(grad.size()) == net.num_params,
          "the gradient must be as large as the parameters");
  const clipper::Kernels& kernels = policy.policy().kernels;
  float* const sums = policy.policy().grad_sums();
  // the parameters are those of the way forth, or autograd had refused
  kernels.run_back(net, policy.policy().packed(), policy.policy().workspace(), x.data(), rows,
                   kept.data(), grad_y.data(), grad_x ? grad_x->data() : nullptr, sums);
  kernels.unpack_gradient(net, sums, grad.data(), clipper::kActorPart);
}

}  // namespace

void bind_sequence(nb::module_& m) {
  m.def("kept_size", [](NativePolicy& policy, int64_t rows) {
    return kept_size(policy.policy().network(), rows);
  }, "policy"_a, "rows"_a);
  m.def("run", &run, "policy"_a, "x"_a, "kept"_a.none(), "y"_a);
  m.def("run_back", &run_back, "policy"_a, "x"_a, "kept"_a, "grad_y"_a, "grad_x"_a.none(),
        "grad"_a);
}

}  // namespace clipper_python
