// Raw observations in, actions or judgements out; and the table by which a variant is called.
#include "kernels.hpp"
#include "lanes.hpp"

#define CLIPPER_TEXT(x) #x
#define CLIPPER_NAME(x) CLIPPER_TEXT(x)

namespace clipper::CLIPPER_VARIANT {

namespace {

// Actions; and with `log_probs` also their log-probabilities and the values of the observations.
void act(const Network& net, const float* packed, const Workspace& ws, const float* obs,
         int64_t rows, const float* noise, float* float_actions, int64_t* int_actions,
         float* log_probs, float* values) {
  const int size = net.head.action_size;
  for (int64_t start = 0; start < rows; start += kChunk) {
    const int count = chunk_size(rows, start);
    normalize(net, obs + start * net.obs_size, count, ws.obs);
    forward(net, packed, ws, count, true, log_probs != nullptr, false);
    read_head(net, ws, count);
    sample(net, ws, count, noise ? noise + start * size : nullptr,
           float_actions ? float_actions + start * size : nullptr,
           int_actions ? int_actions + start * size : nullptr);
    if (log_probs == nullptr) continue;
    log_prob_and_entropy(net, ws, count);
    read_values(net, ws, count);
    memcpy(log_probs + start, ws.log_prob, sizeof(float) * count);
    memcpy(values + start, ws.value, sizeof(float) * count);
  }
}

// Log-probabilities unless `log_probs` is null, and values unless `values` is.
void evaluate(const Network& net, const float* packed, const Workspace& ws, const float* obs,
              int64_t rows, const float* float_actions, const int64_t* int_actions,
              float* log_probs, float* values) {
  const int size = net.head.action_size;
  for (int64_t start = 0; start < rows; start += kChunk) {
    const int count = chunk_size(rows, start);
    normalize(net, obs + start * net.obs_size, count, ws.obs);
    forward(net, packed, ws, count, log_probs != nullptr, values != nullptr, false);
    if (log_probs) {
      read_head(net, ws, count);
      load_actions(net, ws, count, nullptr, float_actions ? float_actions + start * size : nullptr,
                   int_actions ? int_actions + start * size : nullptr);
      log_prob_and_entropy(net, ws, count);
      memcpy(log_probs + start, ws.log_prob, sizeof(float) * count);
    }
    if (values) {
      read_values(net, ws, count);
      memcpy(values + start, ws.value, sizeof(float) * count);
    }
  }
}

}  // namespace

extern const Kernels kernels;
const Kernels kernels = {CLIPPER_NAME(CLIPPER_VARIANT), pack, normalize, act, evaluate, gradient,
                         loss_head, outputs, kl_sum, unpack_gradient, squared_norm, adam,
                         tanh_of, run, run_back};

}  // namespace clipper::CLIPPER_VARIANT
