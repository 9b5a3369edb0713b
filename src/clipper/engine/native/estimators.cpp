// The estimators of advantages.py, which says what they are and where they come from.
#include "estimators.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace clipper {

namespace {

bool is_done(const Judgement& j, int64_t i) { return j.terminated[i] || j.truncated[i]; }

// A_t = delta_t + gamma lambda (1 - done_t) A_{t+1} (Schulman et al. 2016, arXiv 1506.02438, eq. 16)
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

// target_t = sum_{i<k} gamma^i r_{t+i} + gamma^k V(s'_{t+k-1}), k fewer where the episode ends
void n_step(const Judgement& j, float* advantages, float* value_targets) {
  const float gamma = static_cast<float>(j.gamma);
  for (int64_t t = 0; t < j.num_steps; ++t)
    for (int64_t n = 0; n < j.num_envs; ++n) {
      const int64_t i = t * j.num_envs + n;
      int64_t last = i;
      int64_t left = std::min(j.num_return_steps, j.num_steps - t);
      while (--left > 0 && !is_done(j, last)) last += j.num_envs;
      float target = j.terminated[last] ? 0.0f : j.next_values[last];
      for (int64_t step = last; step >= i; step -= j.num_envs)
        target = j.rewards[step] + gamma * target;
      value_targets[i] = target;
      advantages[i] = target - j.values[i];
    }
}

// R_t = r_t + gamma R_{t+1}, and gamma V(s'_t) for it where the episode or the rollout ends
void reward_to_go(const Judgement& j, float* returns) {
  const float gamma = static_cast<float>(j.gamma);
  for (int64_t t = j.num_steps - 1; t >= 0; --t)
    for (int64_t n = 0; n < j.num_envs; ++n) {
      const int64_t i = t * j.num_envs + n;
      const bool is_last = t + 1 == j.num_steps || is_done(j, i);
      float future = 0.0f;
      if (!j.terminated[i]) future = gamma * (is_last ? j.next_values[i] : returns[i + j.num_envs]);
      returns[i] = j.rewards[i] + future;
    }
}

// The reward-to-go of the episode's first step for all its rows, where it begins and ends here.
void total_return(const Judgement& j, const float* returns, float* advantages, bool* counted) {
  const int64_t rows = j.num_steps * j.num_envs;
  std::fill_n(advantages, rows, 0.0f);
  std::fill_n(counted, rows, false);
  for (int64_t n = 0; n < j.num_envs; ++n) {
    int64_t first = j.begins[n] ? n : -1;
    for (int64_t i = n; i < rows; i += j.num_envs) {
      if (!is_done(j, i)) continue;
      for (int64_t row = first; first >= 0 && row <= i; row += j.num_envs) {
        advantages[row] = returns[first];
        counted[row] = true;
      }
      first = i + j.num_envs;
    }
  }
}

}  // namespace

void estimate(const Judgement& j, float* advantages, float* value_targets, bool* counted) {
  const int64_t rows = j.num_steps * j.num_envs;
  switch (j.estimator) {
    case Estimator::gae: return gae(j, advantages, value_targets);
    case Estimator::n_step: return n_step(j, advantages, value_targets);
    case Estimator::td: {
      Judgement one = j;
      one.gae_lambda = 0;  // the TD error is GAE with lambda 0
      return gae(one, advantages, value_targets);
    }
    case Estimator::reward_to_go:
      reward_to_go(j, value_targets);
      std::copy_n(value_targets, rows, advantages);
      return;
    case Estimator::reward_to_go_baseline:
      reward_to_go(j, value_targets);
      for (int64_t i = 0; i < rows; ++i) advantages[i] = value_targets[i] - j.values[i];
      return;
    case Estimator::total_return:
      reward_to_go(j, value_targets);
      return total_return(j, value_targets, advantages, counted);
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

void value_fit(int64_t rows, const float* values, const float* targets, double* fit) {
  const double count = static_cast<double>(rows);
  double target_sum = 0, error_sum = 0, target_squares = 0, error_squares = 0;
  for (int64_t i = 0; i < rows; ++i) {
    target_sum += targets[i];
    error_sum += targets[i] - values[i];
  }
  const double target_mean = target_sum / count, error_mean = error_sum / count;
  for (int64_t i = 0; i < rows; ++i) {
    const double target = targets[i] - target_mean, error = targets[i] - values[i] - error_mean;
    target_squares += target * target;
    error_squares += error * error;
  }
  fit[0] = target_mean;
  fit[1] = std::sqrt(target_squares / count);
  // 1 - Var[target - V] / Var[target]
  fit[2] = target_squares > 0 ? 1.0 - error_squares / target_squares : std::nan("");
}

}  // namespace clipper
