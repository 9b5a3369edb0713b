// Layers in, their places in the packed parameters, the gradient sums and the workspace out.
#include "layout.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <new>

namespace clipper {

Floats::Floats(int64_t size) {
  const size_t bytes = sizeof(float) * static_cast<size_t>(size);
  const size_t rounded = (bytes + 63) / 64 * 64 + 64;
  auto* memory = static_cast<float*>(std::aligned_alloc(64, rounded));
  if (memory == nullptr) throw std::bad_alloc();
  std::memset(memory, 0, rounded);
  data_.reset(memory);
}

void Floats::Free::operator()(float* p) const { std::free(p); }

Policy::Policy(const Kernels& variant, const float* flat, int64_t num_params, int obs_size,
               Activation activation,
               const std::array<std::vector<LayerSpec>, kNumChains>& chains, const HeadSpec& head,
               const NormalizerSpec& normalizer)
    : kernels(variant), flat_(flat), sizes_(head.sizes) {
  network_.flat = flat;
  network_.num_params = num_params;
  network_.obs_size = obs_size;
  network_.obs_width = padded(obs_size);
  network_.activation = activation;
  network_.mean = normalizer.mean;
  network_.inverse_std = normalizer.inverse_std;
  network_.limit = normalizer.limit;
  Head& h = network_.head;
  h.kind = head.kind;
  h.sizes = sizes_.data();
  if (head.kind == HeadKind::categorical) {
    h.action_size = h.num_choices = static_cast<int>(sizes_.size());
    for (int size : sizes_) h.num_outputs += size;
  } else {
    h.action_size = h.num_outputs = sizes_.at(0);
  }
  h.log_std = head.log_std;
  h.log_std_param = head.log_std_param;
  place(chains);
  place_workspace();
  refresh();
}

void Policy::place(const std::array<std::vector<LayerSpec>, kNumChains>& chains) {
  int64_t packed = 0, grad = 0;
  int widest = network_.obs_width;
  for (int chain = 0; chain < kNumChains; ++chain) {
    for (const LayerSpec& spec : chains[static_cast<size_t>(chain)]) {
      Layer layer{};
      layer.inputs = static_cast<int>(spec[0]);
      layer.outputs = static_cast<int>(spec[1]);
      layer.weight = spec[2];
      layer.bias = spec[3];
      layer.in_width = padded(layer.inputs);
      layer.out_width = padded(layer.outputs);
      layer.activated = spec[4] != 0;
      auto take = [](int64_t& end, int64_t size) { return (end += size) - size; };
      layer.forward = take(packed, int64_t{layer.inputs} * layer.out_width);
      const bool is_padded = layer.in_width != layer.inputs;
      layer.backward = take(packed, is_padded ? int64_t{layer.outputs} * layer.in_width : 0);
      layer.shift = take(packed, layer.out_width);
      const int64_t upright = int64_t{layer.outputs} * layer.in_width;
      const int64_t on_side = int64_t{layer.inputs} * layer.out_width;
      layer.grad_on_side = on_side < upright;
      layer.grad = take(grad, layer.grad_on_side ? on_side : upright);
      layer.grad_shift = take(grad, layer.out_width);
      widest = std::max({widest, layer.in_width, layer.out_width});
      layers_[static_cast<size_t>(chain)].push_back(layer);
    }
  }
  network_.head.log_std_grad = grad;
  network_.widest = widest;
  network_.packed_size = packed;
  network_.grad_size = grad + padded(network_.head.action_size);
  packed_ = std::make_unique<Floats>(packed);
  grad_sums_ = std::make_unique<Floats>(network_.grad_size);
}

void Policy::place_workspace() {
  int64_t size = 0;
  const bool has_slope =
      network_.activation == Activation::silu || network_.activation == Activation::gelu;
  auto take = [&size](int64_t columns) { return (size += columns * kChunk) - columns * kChunk; };
  for (int chain = 0; chain < kNumChains; ++chain) {
    auto& layers = layers_[static_cast<size_t>(chain)];
    for (Layer& layer : layers) {
      layer.out = take(layer.out_width);
      layer.slope = take(layer.activated && has_slope ? layer.out_width : 0);
    }
    network_.layers[chain] = layers.data();
    network_.depth[chain] = static_cast<int>(layers.size());
  }
  network_.outputs_size = size;
  const Head& head = network_.head;
  float* Workspace::*const places[] = {
      &Workspace::obs,       &Workspace::torso,        &Workspace::params,
      &Workspace::prob,      &Workspace::log_p,        &Workspace::action,
      &Workspace::log_prob,  &Workspace::entropy,      &Workspace::value,
      &Workspace::old_log_prob, &Workspace::old_value, &Workspace::advantage,
      &Workspace::target,    &Workspace::grad_log_prob, &Workspace::grad_value,
      &Workspace::kl,        &Workspace::old_params,   &Workspace::kl_slope,
      &Workspace::kl_std_slope};
  const int64_t columns[] = {network_.obs_width, network_.widest, head.num_outputs,
                             head.num_outputs,   head.num_outputs, head.action_size,
                             1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                             head.num_outputs,   head.num_outputs, head.num_outputs};
  int64_t offsets[std::size(places)];
  for (size_t i = 0; i < std::size(places); ++i) offsets[i] = take(columns[i]);
  const int64_t delta[2] = {take(network_.widest), take(network_.widest)};
  network_.workspace_size = size;
  memory_ = std::make_unique<Floats>(2 * size);
  for (int thread = 0; thread < 2; ++thread) {
    Workspace& ws = workspaces_[thread];
    float* const memory = memory_->data() + thread * size;
    ws.base = memory;
    for (size_t i = 0; i < std::size(places); ++i) ws.*places[i] = memory + offsets[i];
    for (int i = 0; i < 2; ++i) ws.delta[i] = memory + delta[i];
  }
}

}  // namespace clipper
