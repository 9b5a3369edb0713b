// Generalized advantage estimation (Schulman et al. 2016, arXiv 1506.02438, eq. 16).
#include "estimators.hpp"

#include <cstring>

namespace clipper {

void gae(const Judgement& j, float* advantages, float* value_targets) {
  const float gamma = static_cast<float>(j.gamma);
  const float decay = static_cast<float>(j.gamma * j.gae_lambda);
  for (int64_t t = j.num_steps - 1; t >= 0; --t)
    for (int64_t n = 0; n < j.num_envs; ++n) {
      const int64_t i = t * j.num_envs + n;
      // delta_t = r_t + gamma (1 - terminated_t) V(s'_t) - V(s_t)
      const float successor = j.terminated[i] ? 0.0f : gamma * j.next_values[i];
      const float delta = j.rewards[i] + successor - j.values[i];
      // A_t = delta_t + gamma lambda (1 - done_t) A_{t+1}, A after the last row 0
      const bool goes_on = t + 1 < j.num_steps && !j.terminated[i] && !j.truncated[i];
      advantages[i] = goes_on ? delta + decay * advantages[i + j.num_envs] : delta;
      value_targets[i] = advantages[i] + j.values[i];
    }
}

void successor_values(int64_t num_steps, int64_t num_envs, const float* values,
                      const float* final_values, const int64_t* final_at, int64_t num_finals,
                      const float* last_values, float* next_values) {
  const int64_t rest = (num_steps - 1) * num_envs;
  std::memcpy(next_values, values + num_envs, sizeof(float) * static_cast<size_t>(rest));
  std::memcpy(next_values + rest, last_values, sizeof(float) * static_cast<size_t>(num_envs));
  for (int64_t f = 0; f < num_finals; ++f)
    next_values[final_at[2 * f] * num_envs + final_at[2 * f + 1]] = final_values[f];
}

}  // namespace clipper
