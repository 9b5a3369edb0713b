// Environments of a shared library for Python: a batch of them, and a policy played in it.
#include <chrono>

#include "bindings.hpp"
#include "environments.hpp"

using namespace nb::literals;

namespace clipper_python {

namespace {

// Step, env, episode, length, return, terminated.
using Ending = std::tuple<int64_t, int64_t, int64_t, int64_t, double, bool>;

using Clock = std::chrono::steady_clock;

// so long a signal waits to be heard, or one row of steps if that takes longer
constexpr std::chrono::milliseconds kUnheard{50};

class NativeEnvs {
 public:
  NativeEnvs(const std::string& path, const std::string& options, int64_t max_episode_steps,
             uint64_t seed, uint32_t purpose, uint32_t first_env, int64_t action_size,
             std::optional<std::tuple<bool, std::array<std::vector<double>, 4>>> scale,
             nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu> obs,
             Out<double> returns, Out<int64_t> lengths, Out<int64_t> episodes)
      : obs_(obs), returns_(returns), lengths_(lengths), episodes_(episodes) {
    const size_t num_envs = obs.shape(0);
    require(returns.size() == num_envs && lengths.size() == num_envs &&
                episodes.size() == num_envs,
            "the states must be [N]");
    clipper::ActionScale how{};
    if (scale) {
      const auto& [plain, columns] = *scale;
      for (const auto& column : columns)
        require(static_cast<int64_t>(column.size()) == action_size, "the scale must be [A]");
      how = {plain, columns[0], columns[1], columns[2], columns[3]};
    }
    is_box_ = scale.has_value();
    batch_ = std::make_unique<clipper::EnvBatch>(
        path, options, static_cast<int64_t>(num_envs), static_cast<int64_t>(obs.shape(1)),
        action_size, max_episode_steps, clipper::Stream{seed, purpose, first_env}, how,
        clipper::EnvStates{obs.data(), returns.data(), lengths.data(), episodes.data()});
  }

  void reseed(int64_t env, uint64_t seed) {
    require(env >= 0 && env < batch_->num_envs(), "env must be one of the batch");
    batch_->reseed(env, seed);
  }

  bool begin(int64_t env) {
    require(env >= 0 && env < batch_->num_envs(), "env must be one of the batch");
    return batch_->begin(env);
  }

  bool step(nb::ndarray<nb::ro, nb::c_contig> actions, Out<float> rewards, Out<bool> terminated,
            Out<bool> truncated) {
    const auto num_envs = static_cast<size_t>(batch_->num_envs());
    require(rewards.size() == num_envs && terminated.size() == num_envs &&
                truncated.size() == num_envs,
            "columns must be [N]");
    begin_block();
    return batch_->step(0, row_of(actions, batch_->num_envs()), rewards.data(), terminated.data(),
                        truncated.data());
  }

  bool step_one(int64_t env, nb::ndarray<nb::ro, nb::c_contig> action, Out<float> reward,
                Out<bool> terminated, Out<bool> truncated) {
    require(env >= 0 && env < batch_->num_envs(), "env must be one of the batch");
    require(reward.size() == 1 && terminated.size() == 1 && truncated.size() == 1,
            "columns must be [1]");
    begin_block();
    return batch_->step_one(0, env, row_of(action, 1), reward.data(), terminated.data(),
                            truncated.data());
  }

  // The loop of `LocalSampler.collect`: observe, act, step. If there is a `drop`, numbers that are not
  // finite are refused, and `drop(t, i, in_reset, reward)` begins the next episode and, unless it was
  // in a reset, plays the row in it.
  bool collect(Stepper& stepper, Out<float> obs, Out<float> rewards, Out<bool> terminated,
               Out<bool> truncated, Out<int64_t> position, nb::object drop) {
    const int64_t num_envs = batch_->num_envs(), num_steps = stepper.num_steps();
    const auto rows = static_cast<size_t>(num_envs * num_steps);
    const auto width = static_cast<size_t>(batch_->obs_size());
    require(stepper.num_envs() == num_envs && stepper.obs() == obs.data() &&
                stepper.network().head.action_size == batch_->action_size() &&
                (stepper.actions().floats != nullptr) == is_box_,
            "the policy must have been made for these environments");
    require(obs.size() == rows * width && rewards.size() == rows && terminated.size() == rows &&
                truncated.size() == rows,
            "columns must be [T, N]");
    require(position.size() == 2, "the position must be step and environment");
    position_ = position;  // later steps write there too
    batch_->position = position.data();
    begin_block();
    acting_ = {};
    nb::gil_scoped_release released;
    auto heard = Clock::time_point{};
    for (int64_t t = 0; t < num_steps; ++t) {
      const int64_t row = t * num_envs, cell = row * batch_->action_size();
      const float* const now = batch_->states().obs;
      std::copy(now, now + num_envs * batch_->obs_size(), obs.data() + row * batch_->obs_size());
      {
        // the policy has one workspace, which whoever asks it from another thread uses too
        nb::gil_scoped_acquire acquired;
        const Clock::time_point begin = Clock::now();
        if (begin - heard >= kUnheard) {
          heard = begin;
          if (PyErr_CheckSignals() != 0) throw nb::python_error();
        }
        stepper.step(t);
        acting_ += Clock::now() - begin;
      }
      position.data()[0] = t;
      const Actions& actions = stepper.actions();
      for (int64_t i = 0; i < num_envs; ++i) {
        const int64_t at = cell + i * batch_->action_size();
        if (batch_->step_one(t, i, {actions.floats ? actions.floats + at : nullptr,
                                    actions.ints ? actions.ints + at : nullptr},
                             rewards.data() + row + i, terminated.data() + row + i,
                             truncated.data() + row + i))
          continue;
        const clipper::EnvFailure found = batch_->failure;
        if (!found.not_finite) return false;
        nb::gil_scoped_acquire acquired;
        drop(t, i, found.in_reset, found.reward);
      }
    }
    return true;
  }

  // Of the last `collect`, what the policy took.
  double acting_seconds() const { return std::chrono::duration<double>(acting_).count(); }

  void refuse_not_finite() { batch_->refuses_not_finite = true; }

  void begin_block() {
    batch_->endings.clear();
    batch_->final_obs.clear();
  }

  bool replay(int64_t env, nb::ndarray<nb::ro, nb::c_contig> actions) {
    require(env >= 0 && env < batch_->num_envs(), "env must be one of the batch");
    const auto count = static_cast<int64_t>(actions.shape(0));
    return batch_->replay(env, row_of(actions, count), count);
  }

  std::vector<Ending> endings() const {
    std::vector<Ending> found;
    for (const clipper::EnvEnding& e : batch_->endings)
      found.emplace_back(e.step, e.env, e.episode, e.length, e.episode_return, e.terminated);
    return found;
  }

  // Copies the observations that the endings were, [F][D].
  void final_obs(Out<float> out) const {
    require(out.size() == batch_->final_obs.size(), "final_obs must be [F, D]");
    std::copy(batch_->final_obs.begin(), batch_->final_obs.end(), out.data());
  }

  // Environment, whether in a reset, why, whether for a number that is not finite, its reward.
  // The text is bytes: a library may say it in any encoding.
  std::tuple<int64_t, bool, nb::bytes, bool, double> failure() const {
    const clipper::EnvFailure& found = batch_->failure;
    return {found.env, found.in_reset, nb::bytes(found.text.data(), found.text.size()),
            found.not_finite, found.reward};
  }

 private:
  clipper::ActionRow row_of(const nb::ndarray<nb::ro, nb::c_contig>& actions, int64_t rows) const {
    require(static_cast<int64_t>(actions.size()) == rows * batch_->action_size(),
            "actions must be [rows, A]");
    if (is_box_) {
      require(actions.dtype() == nb::dtype<float>(), "actions must be float32");
      return {static_cast<const float*>(actions.data()), nullptr};
    }
    require(actions.dtype() == nb::dtype<int64_t>(), "actions must be int64");
    return {nullptr, static_cast<const int64_t*>(actions.data())};
  }

  nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu> obs_;
  Out<double> returns_;
  Out<int64_t> lengths_, episodes_, position_;
  bool is_box_ = false;
  Clock::duration acting_{};
  std::unique_ptr<clipper::EnvBatch> batch_;
};

}  // namespace

void bind_environments(nb::module_& m) {
  m.def("watch_exit", [] { return reinterpret_cast<uintptr_t>(clipper::watch_exit()); });
  nb::class_<NativeEnvs>(m, "Envs")
      .def(nb::init<const std::string&, const std::string&, int64_t, uint64_t, uint32_t, uint32_t,
                    int64_t, std::optional<std::tuple<bool, std::array<std::vector<double>, 4>>>,
                    nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>, Out<double>,
                    Out<int64_t>, Out<int64_t>>(),
           nb::kw_only(), "path"_a, "options"_a, "max_episode_steps"_a, "seed"_a, "purpose"_a,
           "first_env"_a, "action_size"_a, "scale"_a.none(), "obs"_a, "returns"_a, "lengths"_a,
           "episodes"_a)
      .def("reseed", &NativeEnvs::reseed, "env"_a, "seed"_a)
      .def("begin", &NativeEnvs::begin, "env"_a)
      .def("step", &NativeEnvs::step, "actions"_a, "rewards"_a, "terminated"_a, "truncated"_a)
      .def("step_one", &NativeEnvs::step_one, "env"_a, "action"_a, "reward"_a, "terminated"_a,
           "truncated"_a)
      .def("collect", &NativeEnvs::collect, "stepper"_a, "obs"_a, "rewards"_a, "terminated"_a,
           "truncated"_a, "position"_a, "drop"_a.none())
      .def_prop_ro("acting_seconds", &NativeEnvs::acting_seconds)
      .def("refuse_not_finite", &NativeEnvs::refuse_not_finite)
      .def("begin_block", &NativeEnvs::begin_block)
      .def("replay", &NativeEnvs::replay, "env"_a, "actions"_a)
      .def("endings", &NativeEnvs::endings)
      .def("final_obs", &NativeEnvs::final_obs, "out"_a)
      .def("failure", &NativeEnvs::failure);
}

}  // namespace clipper_python
