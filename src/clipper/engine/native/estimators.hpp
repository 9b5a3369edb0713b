// Rewards, values and endings of a rollout in, advantages and value targets out. T steps, N envs.
#pragma once

#include <cstdint>

namespace clipper {

struct Judgement {
  int64_t num_steps, num_envs;
  const float* rewards;      // [T][N] each; as the agent is to see them
  const float* values;       // V(s_t)
  const float* next_values;  // V(s'_t) of the true successor
  const bool* terminated;
  const bool* truncated;
  double gamma, gae_lambda;
};

void gae(const Judgement&, float* advantages, float* value_targets);

// next_values: the next row's value, but the final observation's where an episode ended.
void successor_values(int64_t num_steps, int64_t num_envs, const float* values,
                      const float* final_values, const int64_t* final_at, int64_t num_finals,
                      const float* last_values, float* next_values);

}  // namespace clipper
