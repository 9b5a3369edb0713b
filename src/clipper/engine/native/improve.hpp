// All epochs and minibatches of an iteration in one call.
#pragma once

#include <functional>
#include <vector>

#include "estimators.hpp"
#include "layout.hpp"
#include "partner.hpp"
#include "philox.hpp"

namespace clipper {

// What was collected, [T][N]-shaped; raw observations.
struct Rollout {
  Judgement judgement;
  const float* obs;            // [T][N][D]
  const float* float_actions;  // [T][N][A], or null
  const int64_t* int_actions;  // [T][N][A], or null
  const float* log_probs;      // [T][N]
  const float* final_obs;      // [F][D]
  const int64_t* final_at;     // [F][2]
  int64_t num_finals;
  const float* last_obs;  // [N][D]
};

struct Plan {
  Objective objective;
  int num_epochs = 1;
  int64_t minibatch_size = 1;
  double learning_rate = 0, beta1 = 0, beta2 = 0, eps = 0;
  double max_grad_norm = -1;  // negative: none
  double target_kl = -1;      // negative: none
  bool recompute_advantages = false;
  double ratio_tolerance = 0;
  Stream shuffle{};
  uint64_t iteration = 0;
  int num_threads = 1;  // 1 or 2; the bits are the same
};

// The `num_updates`-th step on a gradient of that norm, which is clipped.
AdamStep adam_step(const Plan& plan, int64_t num_updates, double norm);

struct Optimizer {
  float* params;
  float* m;
  float* v;
  int64_t num_updates;
};

enum class Failure : int { none, ratio, not_finite, interrupted };

struct Outcome {
  int64_t num_reports = 0, num_updates = 0;
  int num_epochs = 0;
  bool shared = false;  // to the end by two threads
  double kl = 0;        // mean exact KL(old || new) over all rows, of a KL penalty
  Failure failure = Failure::none;
};

struct Records {
  double* reports;       // [minibatches][kReportSize]
  double* grad_norms;    // [minibatches]
  float* advantages;     // [T][N], as first judged
  float* value_targets;  // [T][N]
  bool* counted;         // [T][N], of total_return
};

class Improver {
 public:
  Improver(Policy& policy, const Rollout& rollout, const Plan& plan, Optimizer& optimizer,
           const Records& records);
  Outcome run();
  // Asked before every minibatch; if true, the rest is left undone and the failure says so.
  std::function<bool()> is_interrupted;
  double estimate_seconds() const { return estimate_seconds_; }  // spent on judgements

  // Compares with a policy that is not the present one, for tests; as `Batch`.
  void set_old(const float* params, const float* log_std);
  // The gradient of one minibatch without a step, for tests: rows `order`, into `flat`.
  void gradient(const int64_t* order, int64_t rows, double* report, float* flat);

 private:
  void judge(const float* values, const float* next_values, float* advantages, float* targets);
  void judge_anew();
  void remember();
  void update(Outcome& outcome);
  bool step(const double* report, double* grad_norm);
  void move(const AdamStep& step, Parts parts);
  void both(const std::function<void(Parts, int thread)>& work);

  Policy& policy_;
  const Rollout& rollout_;
  const Plan& plan_;
  Optimizer& optimizer_;
  Records records_;
  int64_t num_rows_;
  Batch batch_{};
  double estimate_seconds_ = 0;
  Floats obs_;
  Floats grad_;
  bool is_shared_ = false;  // within a partnership
  Stalls stalls_;
  std::vector<float> old_params_, old_log_std_;
  std::vector<float> values_, next_values_, final_values_, last_values_, advantages_, targets_;
};

}  // namespace clipper
