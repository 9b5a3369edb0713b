// The value function alone, fitted to targets: epochs of minibatches of Adam; the policy stays.
#pragma once

#include "layout.hpp"
#include "philox.hpp"

namespace clipper {

struct ValuePlan {
  int num_epochs;
  int64_t minibatch_size;  // the last one of an epoch may have fewer rows
  double learning_rate, beta1, beta2, eps;
  Stream shuffle;
  uint64_t iteration;
};

// Rows to fit to, B of them.
struct ValueRows {
  int64_t count;
  const float* obs;            // [B][D], raw
  const float* float_actions;  // [B][A] or null, not learnt from
  const int64_t* int_actions;
  const float* targets;        // [B]
};

// Adam's averages over the value function's own parameters, in their order.
struct ValueOptimizer {
  float* params;  // all parameters, flat
  float* m;
  float* v;
  int64_t num_updates;
};

struct ValueOutcome {
  int64_t num_updates = 0;  // that were taken
  double mean_loss = 0;     // of 0.5 (V - target)^2, over the minibatches
  bool finite = true;       // if not, the last loss and norm are those that were not
  bool interrupted = false;  // the rest was left undone
  double loss = 0, norm = 0;
};

// Where the value function's own parameters lie in the flat ones: start and size; size 0 if not side
// by side.
struct Range {
  int64_t start, size;
};
Range value_range(const Network& net);

// `is_interrupted` is asked before every minibatch.
ValueOutcome fit_values(Policy& policy, const ValueRows& rows, const ValuePlan& plan,
                        ValueOptimizer& optimizer, bool (*is_interrupted)());

}  // namespace clipper
