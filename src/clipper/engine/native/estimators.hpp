// Rewards, values and endings of a rollout in, advantages and value targets out. T steps, N envs.
#pragma once

#include <cstdint>

namespace clipper {

enum class Estimator : int {
  gae, n_step, td, reward_to_go, reward_to_go_baseline, total_return
};

struct Judgement {
  int64_t num_steps, num_envs;
  const float* rewards;      // [T][N] each; as the agent is to see them
  const float* values;       // V(s_t)
  const float* next_values;  // V(s'_t) of the true successor
  const bool* terminated;
  const bool* truncated;
  const bool* begins;  // [N], row 0 is the first step of an episode; total_return alone asks
  Estimator estimator;
  double gamma, gae_lambda;
  int64_t num_return_steps;  // k of n_step
};

// Of total_return also which rows count, [T][N]: those of episodes that begin and end in the rollout.
void estimate(const Judgement&, float* advantages, float* value_targets, bool* counted);

// next_values: the next row's value, but the final observation's where an episode ended.
void successor_values(int64_t num_steps, int64_t num_envs, const float* values,
                      const float* final_values, const int64_t* final_at, int64_t num_finals,
                      const float* last_values, float* next_values);

// Mean and population standard deviation of the targets, and the variance explained: `ValueFit`.
void value_fit(int64_t rows, const float* values, const float* targets, double* fit);

}  // namespace clipper
