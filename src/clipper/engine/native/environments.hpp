// Environments of a shared library, stepped without Python; the laws are those of envs/vector.py.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "clipper_env.h"
#include "philox.hpp"

namespace clipper {

// Has a library that calls exit end the process with a word and code 3 in place of silence and 0.
// Returns what is to be another number than 0 while Python itself calls one.
int32_t* watch_exit();

// The functions of clipper_env.h, found in a library; it stays loaded until the process ends.
struct EnvLibrary {
  // Throws std::runtime_error if it cannot be loaded, lacks a function or has another version.
  explicit EnvLibrary(const std::string& path);

  const ClipperEnvSpec* spec = nullptr;
  decltype(&clipper_env_create) create = nullptr;
  decltype(&clipper_env_reset) reset = nullptr;
  decltype(&clipper_env_step) step = nullptr;
  decltype(&clipper_env_close) close = nullptr;
  decltype(&clipper_env_error) error = nullptr;  // optional
};

// A failure of an environment, to be told with where it happened.
struct EnvFailure {
  int64_t env = -1;  // none
  bool in_reset = false;
  std::string text;
  bool not_finite = false;  // it did not fail, but gave such a number
  double reward = 0;        // with it
};

// How an episode ended: at a step of a block, in an environment.
struct EnvEnding {
  int64_t step, env, episode, length;
  double episode_return;
  bool terminated;
};

// One row of sampled actions, [N][A]; floats for Box, else indices.
struct ActionRow {
  const float* floats;
  const int64_t* ints;
};

// How sampled Box actions become the environment's; empty for categories.
struct ActionScale {
  bool plain;  // sampled as they are taken
  std::vector<double> low, high, scale, centre;
};

// What is known of N environments; memory of the caller's.
struct EnvStates {
  float* obs;         // [N][D], one-hot for Discrete
  double* returns;    // [N] each
  int64_t* lengths;
  int64_t* episodes;
};

class EnvBatch {
 public:
  // `max_episode_steps` of 0 is no limit; `seeds` gives the seed of every episode of every env.
  EnvBatch(const std::string& path, const std::string& options, int64_t num_envs, int64_t obs_size,
           int64_t action_size, int64_t max_episode_steps, Stream seeds, const ActionScale& scale,
           const EnvStates& states);
  ~EnvBatch();
  EnvBatch(const EnvBatch&) = delete;
  EnvBatch& operator=(const EnvBatch&) = delete;

  // The next episode of an environment is the first one of a batch with this seed.
  void reseed(int64_t env, uint64_t seed);

  // All return false for a failure, which `failure` tells.
  bool begin(int64_t env);
  // Steps every environment once and begins the next episode where one ended.
  bool step(int64_t t, ActionRow actions, float* rewards, bool* terminated, bool* truncated);
  // Steps one of them, and begins its next episode where one ended.
  bool step_one(int64_t t, int64_t env, ActionRow action, float* reward, bool* terminated,
                bool* truncated);
  // Plays actions [K][A] again in one environment; false also if an episode ends among them.
  bool replay(int64_t env, ActionRow actions, int64_t count);

  int64_t num_envs() const { return static_cast<int64_t>(envs_.size()); }
  int64_t obs_size() const { return obs_size_; }
  int64_t action_size() const { return action_size_; }
  const EnvStates& states() const { return states_; }
  EnvFailure failure;
  bool refuses_not_finite = false;  // a number that is not finite is a failure; no such step counts
  int64_t* position = nullptr;     // if set, its second number is the environment being stepped
  std::vector<EnvEnding> endings;  // since they were cleared, with the observations they ended in
  std::vector<float> final_obs;    // [F][D]

 private:
  bool advance(int64_t env, ActionRow action, ClipperStep* result);
  bool observe(int64_t env);
  float* raw_obs(int64_t env);
  bool is_refused(int64_t env, bool in_reset, double reward);
  bool fail(int64_t env, bool in_reset, const std::string& text);
  std::string reason(void* env) const;
  void close();

  EnvLibrary library_;
  std::string path_;
  int64_t obs_size_, action_size_, max_episode_steps_;
  Stream seeds_;
  std::vector<uint64_t> env_seeds_;  // [N], in place of that of `seeds_`
  ActionScale scale_;
  EnvStates states_;
  std::vector<void*> envs_;
  std::vector<float> action_;
  std::vector<float> raw_obs_;  // [N][K], each environment's own, as the library writes it
};

}  // namespace clipper
