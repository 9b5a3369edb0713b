// What a policy is to the kernels: layers, head and normaliser, as offsets into flat buffers.
//
// Parameters lie in one flat buffer in torch's order, weights [outputs][inputs]. The kernels work on
// packed copies whose rows are padded with zeros to whole multiples of kPad numbers; every padded
// number is 0 in and 0 out. Dimension key: M rows, D observation size, P outputs of the policy head,
// A numbers or indices of an action, C = kChunk rows that go through the network together.
#pragma once

#include <stdint.h>

namespace clipper {

constexpr int kPad = 16;
constexpr int kChunk = 64;

constexpr int padded(int size) { return (size + kPad - 1) / kPad * kPad; }

enum class Activation : int { tanh, relu, elu, silu, gelu };
enum class HeadKind : int { categorical, bernoulli, gaussian };
enum Chain : int { kTorso, kActor, kCritic, kNumChains };
// What two threads can do side by side where there is no torso; together it includes the torso.
enum Parts : unsigned { kActorPart = 1, kCriticPart = 2, kAllParts = 3 };

constexpr bool is_of(Chain chain, Parts parts) {
  return chain == kTorso ? parts == kAllParts : (parts & (chain == kActor ? 1u : 2u)) != 0;
}

struct Layer {
  int inputs, outputs;
  int in_width, out_width;  // padded
  int64_t weight, bias;     // in the flat parameters
  // in the packed parameters and in the gradient sums
  int64_t forward;   // [inputs][out_width], the transpose
  int64_t backward;  // [outputs][in_width]; in the flat parameters where they have that form
  int64_t shift;     // [out_width]
  int64_t grad;      // [outputs][in_width], or [inputs][out_width] if that is less
  bool grad_on_side;
  int64_t grad_shift;
  // in the workspace
  int64_t out;    // [C][out_width], after the activation
  int64_t slope;  // [C][out_width], its derivative where that is not a function of `out`
  bool activated;
};

struct Head {
  HeadKind kind;
  int num_outputs;   // P
  int action_size;   // A
  int num_choices;   // categorical: independent choices, otherwise 0
  const int* sizes;  // their categories
  const float* log_std;   // gaussian: [A]
  int64_t log_std_param;  // its place in the flat parameters, or -1 if it is not learned
  int64_t log_std_grad;   // its place in the gradient sums
};

struct Network {
  const float* flat;
  const Layer* layers[kNumChains];
  int depth[kNumChains];
  Activation activation;
  Head head;
  int obs_size, obs_width;
  const float* mean;  // [D] each, or null without a normaliser
  const float* inverse_std;
  const float* limit;
  int widest;  // of all padded widths
  int64_t num_params, packed_size, grad_size, workspace_size;
  int64_t outputs_size;  // of what the layers write, at the workspace's begin
};

// Where things stand in the workspace of one thread.
struct Workspace {
  float* base;      // layers' outputs and slopes
  float* obs;       // [C][obs_width], normalised
  float* delta[2];  // [C][widest], gradients on their way down
  float* torso;     // [C][widest], the gradient of the torso's output
  float* params;    // [P][C], outputs of the policy head, rows side by side
  float* prob;      // [P][C]
  float* log_p;     // [P][C]
  float* action;    // [A][C], indices as floats
  float* log_prob;  // [C] each from here on
  float* entropy;
  float* value;
  float* old_log_prob;
  float* old_value;
  float* advantage;
  float* target;
  float* grad_log_prob;
  float* grad_value;
  float* kl;            // [C], KL(old || new)
  float* old_params;    // [P][C], of the distribution that acted: logits, log-probabilities or means
  float* kl_slope;      // [P][C], the gradient of the KL by the head's outputs
  float* kl_std_slope;  // [P][C], gaussian: by the log standard deviations
};

// A whole batch of B rows to learn from.
struct Batch {
  const float* obs;            // [B][obs_width], normalised and padded
  const float* float_actions;  // [B][A], or null
  const int64_t* int_actions;  // [B][A], or null
  const float* log_probs;      // [B] each from here on
  const float* values;
  const float* advantages;
  const float* value_targets;
  const bool* counted;         // [B], rows that the policy may learn from, or null for all
  const float* old_params;     // [B][P], what `outputs` gave before the updates; or null
  const float* old_log_std;    // [A], gaussian
};

// What the policy maximises; kl_penalty is kl_fixed and kl_adaptive.
enum class Surrogate : int { clip, cpi, pg, kl_penalty, dual_clip, spo };

struct Objective {
  Surrogate surrogate;
  double clip_range, dual_clip, kl_coef, vf_coef, ent_coef;
  double clip_value;  // negative: none
  bool normalize_advantage;
};

// The order of the numbers that a minibatch reports; that of `_REPORT` in algorithms/ppo.py.
enum Report : int {
  kLoss, kPolicyLoss, kValueLoss, kEntropy, kApproxKl, kClipFraction, kRatioError, kReportSize
};

struct AdamStep {
  float one_minus_beta1, beta2, one_minus_beta2;
  float step;       // learning rate / (1 - beta1^t)
  float root_scale;  // 1 / sqrt(1 - beta2^t)
  float eps;
  float grad_scale;
};

// One instruction set's kernels; see kernels.cpp.
struct Kernels {
  const char* name;
  void (*pack)(const Network&, const float* flat, float* packed, Parts);
  void (*normalize)(const Network&, const float* obs, int64_t rows, float* out);
  void (*act)(const Network&, const float* packed, const Workspace&, const float* obs, int64_t rows,
              const float* noise, float* float_actions, int64_t* int_actions, float* log_probs,
              float* values);
  void (*evaluate)(const Network&, const float* packed, const Workspace&, const float* obs,
                   int64_t rows, const float* float_actions, const int64_t* int_actions,
                   float* log_probs, float* values);
  void (*gradient)(const Network&, const float* packed, const Workspace&, const Batch&,
                   const int64_t* order, int64_t rows, const Objective&, float* sums,
                   double* report, Parts);
  void (*loss_head)(const Network&, const Workspace&, const float* params, const float* values,
                    const Batch&, const int64_t* order, int64_t rows, const Objective&,
                    float* grad_params, float* grad_values, float* sums, double* report);
  void (*outputs)(const Network&, const float* packed, const Workspace&, const float* obs,
                  int64_t rows, float* out);
  double (*kl_sum)(const Network&, const float* packed, const Workspace&, const Batch&,
                   int64_t rows);
  void (*unpack_gradient)(const Network&, const float* sums, float* flat, Parts);
  double (*squared_norm)(const float* x, int64_t size);
  void (*adam)(const AdamStep&, const float* grad, float* m, float* v, float* params, int64_t size);
  void (*tanh)(const float* x, float* y, int64_t size);
  void (*run)(const Network&, const float* packed, const Workspace&, const float* x, int64_t rows,
              float* kept, float* y);
  void (*run_back)(const Network&, const float* packed, const Workspace&, const float* x,
                   int64_t rows, float* kept, const float* grad_y, float* grad_x, float* sums);
};

}  // namespace clipper
