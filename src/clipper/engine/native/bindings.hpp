// What the parts of the Python module share: arrays that are numpy's, a policy, its steps.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "dispatch.hpp"
#include "estimators.hpp"
#include "improve.hpp"
#include "layout.hpp"

namespace nb = nanobind;

namespace clipper_python {

template <typename T>
using In = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
template <typename T>
using Out = nb::ndarray<T, nb::c_contig, nb::device::cpu>;

inline void require(bool holds, const char* law) {
  if (!holds) throw std::invalid_argument(law);
}

// Actions are float32 for Gaussian heads and int64 for all others.
struct Actions {
  const float* floats = nullptr;
  const int64_t* ints = nullptr;
};

inline Actions actions_of(const clipper::Network& net, const nb::ndarray<nb::ro, nb::c_contig>& array,
                   int64_t rows) {
  require(static_cast<int64_t>(array.size()) == rows * net.head.action_size,
          "actions must be [rows, A]");
  if (net.head.kind == clipper::HeadKind::gaussian) {
    require(array.dtype() == nb::dtype<float>(), "actions must be float32");
    return {static_cast<const float*>(array.data()), nullptr};
  }
  require(array.dtype() == nb::dtype<int64_t>(), "actions must be int64");
  return {nullptr, static_cast<const int64_t*>(array.data())};
}

inline void check_finals(const clipper::Network& net, int64_t num_steps, int64_t num_envs,
                         In<float> final_obs, In<int64_t> final_at, In<float> last_obs) {
  const size_t finals = final_at.size() / 2;
  require(final_obs.size() == finals * static_cast<size_t>(net.obs_size),
          "final_obs must be [F, D]");
  for (size_t f = 0; f < finals; ++f)
    require(final_at.data()[2 * f] >= 0 && final_at.data()[2 * f] < num_steps &&
                final_at.data()[2 * f + 1] >= 0 && final_at.data()[2 * f + 1] < num_envs,
            "final_at must be steps and envs of the rollout");
  require(static_cast<int64_t>(last_obs.size()) == num_envs * net.obs_size,
          "last_obs must be [N, D]");
}

// A policy with its arrays kept alive.
class NativePolicy {
 public:
  NativePolicy(const std::string& variant, Out<float> flat, int obs_size, int activation,
               const std::array<std::vector<clipper::LayerSpec>, clipper::kNumChains>& chains,
               int head_kind, const std::vector<int>& sizes, std::optional<In<float>> log_std,
               int64_t log_std_param, std::optional<std::array<In<float>, 3>> normalizer)
      : flat_(flat), log_std_(log_std), normalizer_(normalizer) {
    const clipper::Kernels* kernels = clipper::find_kernels(variant);
    require(kernels != nullptr, "variant must be one that this machine can run");
    clipper::NormalizerSpec norm{};
    if (normalizer_) {
      for (const auto& part : *normalizer_)
        require(static_cast<int>(part.size()) == obs_size, "the normaliser must have D columns");
      norm = {(*normalizer_)[0].data(), (*normalizer_)[1].data(), (*normalizer_)[2].data()};
    }
    const clipper::HeadSpec head{static_cast<clipper::HeadKind>(head_kind), sizes,
                                 log_std_ ? log_std_->data() : nullptr, log_std_param};
    policy_ = std::make_unique<clipper::Policy>(
        *kernels, flat_.data(), static_cast<int64_t>(flat_.size()), obs_size,
        static_cast<clipper::Activation>(activation), chains, head, norm);
  }

  clipper::Policy& policy() const { return *policy_; }
  float* flat() const { return flat_.data(); }

  void act(In<float> obs, std::optional<In<float>> noise, nb::ndarray<nb::c_contig> actions) {
    const clipper::Network& net = policy_->network();
    const auto rows = static_cast<int64_t>(actions.size()) / net.head.action_size;
    require(static_cast<int64_t>(obs.size()) == rows * net.obs_size, "obs must be [rows, D]");
    require(!noise || noise->size() == actions.size(), "noise must be [rows, A]");
    const Actions to = actions_of(net, nb::ndarray<nb::ro, nb::c_contig>(actions), rows);
    policy_->refresh();
    policy_->kernels.act(net, policy_->packed(), policy_->workspace(), obs.data(), rows,
                         noise ? noise->data() : nullptr, const_cast<float*>(to.floats),
                         const_cast<int64_t*>(to.ints), nullptr, nullptr);
  }

  void evaluate(In<float> obs, std::optional<nb::ndarray<nb::ro, nb::c_contig>> actions,
                std::optional<Out<float>> log_probs, Out<float> values) {
    const clipper::Network& net = policy_->network();
    const auto rows = static_cast<int64_t>(values.size());
    require(static_cast<int64_t>(obs.size()) == rows * net.obs_size, "obs must be [rows, D]");
    require(actions.has_value() == log_probs.has_value(), "actions go with log_probs");
    require(!log_probs || log_probs->size() == values.size(), "log_probs must be [rows]");
    const Actions from = actions ? actions_of(net, *actions, rows) : Actions{};
    policy_->refresh();
    policy_->kernels.evaluate(net, policy_->packed(), policy_->workspace(), obs.data(), rows,
                              from.floats, from.ints, log_probs ? log_probs->data() : nullptr,
                              values.data());
  }

  // V of the observation that each step truly ended in, [T, N].
  void next_values(In<float> values, In<float> final_obs, In<int64_t> final_at, In<float> last_obs,
                   Out<float> next_values) {
    const clipper::Network& net = policy_->network();
    require(values.ndim() == 2 && values.size() == next_values.size(), "values must be [T, N]");
    const auto num_steps = static_cast<int64_t>(values.shape(0));
    const auto num_envs = static_cast<int64_t>(values.shape(1));
    const auto finals = static_cast<int64_t>(final_at.size() / 2);
    check_finals(net, num_steps, num_envs, final_obs, final_at, last_obs);
    if (num_steps == 0) return;
    std::vector<float> found(static_cast<size_t>(finals + num_envs));
    policy_->refresh();
    const auto value = [&](const float* obs, int64_t rows, float* to) {
      policy_->kernels.evaluate(net, policy_->packed(), policy_->workspace(), obs, rows, nullptr,
                                nullptr, nullptr, to);
    };
    value(final_obs.data(), finals, found.data());
    value(last_obs.data(), num_envs, found.data() + finals);
    clipper::successor_values(num_steps, num_envs, values.data(), found.data(), final_at.data(),
                              finals, found.data() + finals, next_values.data());
  }

 private:
  Out<float> flat_;
  std::optional<In<float>> log_std_;
  std::optional<std::array<In<float>, 3>> normalizer_;
  std::unique_ptr<clipper::Policy> policy_;
};

// Acts step by step on blocks [T, N, ...] with the parameters of the moment it was made.
class Stepper {
 public:
  Stepper(NativePolicy& policy, In<float> obs, std::optional<In<float>> noise,
          nb::ndarray<nb::c_contig> actions, Out<float> log_probs, Out<float> values)
      : policy_(policy.policy()),
        obs_(obs),
        noise_(noise),
        actions_(actions),
        log_probs_(log_probs),
        values_(values) {
    const clipper::Network& net = policy_.network();
    require(obs.ndim() == 3 && (!noise || noise->ndim() == 3) && actions.ndim() == 3,
            "blocks are [T, N, ...]");
    num_steps_ = static_cast<int64_t>(obs.shape(0));
    num_envs_ = static_cast<int64_t>(obs.shape(1));
    const int64_t rows = num_steps_ * num_envs_;
    require(static_cast<int64_t>(obs.size()) == rows * net.obs_size, "obs must be [T, N, D]");
    require(!noise || static_cast<int64_t>(noise->size()) == rows * net.head.action_size,
            "noise must be [T, N, A]");
    require(static_cast<int64_t>(log_probs.size()) == rows &&
                static_cast<int64_t>(values.size()) == rows,
            "log_probs and values must be [T, N]");
    to_ = actions_of(net, nb::ndarray<nb::ro, nb::c_contig>(actions), rows);
    policy_.refresh();
  }

  int64_t num_steps() const { return num_steps_; }
  int64_t num_envs() const { return num_envs_; }
  const Actions& actions() const { return to_; }
  const clipper::Network& network() const { return policy_.network(); }
  const float* obs() const { return obs_.data(); }

  void step(int64_t t) {
    require(t >= 0 && t < num_steps_, "t must be a step of the block");
    const clipper::Network& net = policy_.network();
    const int64_t row = t * num_envs_, cell = row * net.head.action_size;
    policy_.kernels.act(net, policy_.packed(), policy_.workspace(),
                        obs_.data() + row * net.obs_size, num_envs_,
                        noise_ ? noise_->data() + cell : nullptr,
                        to_.floats ? const_cast<float*>(to_.floats) + cell : nullptr,
                        to_.ints ? const_cast<int64_t*>(to_.ints) + cell : nullptr,
                        log_probs_.data() + row, values_.data() + row);
  }

 private:
  clipper::Policy& policy_;
  In<float> obs_;
  std::optional<In<float>> noise_;  // none for the most likely actions
  nb::ndarray<nb::c_contig> actions_;
  Out<float> log_probs_, values_;
  Actions to_;
  int64_t num_steps_ = 0, num_envs_ = 0;
};

struct Estimation {
  clipper::Estimator estimator = clipper::Estimator::gae;
  double gamma = 0, gae_lambda = 0;
  int64_t num_return_steps = 1;
};

struct Settings {
  clipper::Plan plan;
  Estimation estimation;
};

// module_envs.cpp
void bind_environments(nb::module_& m);
void bind_signals(nb::module_& m);
// module_gym.cpp
void bind_gym(nb::module_& m);
// module_values.cpp
void bind_values(nb::module_& m);
// module_head.cpp
void bind_head(nb::module_& m);
// module_sequence.cpp
void bind_sequence(nb::module_& m);

}  // namespace clipper_python
