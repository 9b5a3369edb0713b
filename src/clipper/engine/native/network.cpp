// Observations in, outputs of policy and value out; and gradients the other way, a chunk at a time.
#include "kernels.hpp"
#include "lanes.hpp"

namespace clipper::CLIPPER_VARIANT {

void copy_rows(int rows, int columns, const float* from, int from_row, float* to, int to_row) {
  const size_t bytes = sizeof(float) * static_cast<size_t>(columns);
  if (columns == from_row && columns == to_row) {
    memcpy(to, from, bytes * static_cast<size_t>(rows));
    return;
  }
  for (int64_t row = 0; row < rows; ++row) memcpy(to + row * to_row, from + row * from_row, bytes);
}

namespace {

// The weights upright, [outputs][in_width]: torch's own where they need no padding.
const float* upright(const Network& net, const float* packed, const Layer& layer) {
  return layer.in_width == layer.inputs ? net.flat + layer.weight : packed + layer.backward;
}

}  // namespace

void pack(const Network& net, const float* flat, float* packed, Parts parts) {
  for (int chain = 0; chain < kNumChains; ++chain)
    for (int i = 0; is_of(Chain(chain), parts) && i < net.depth[chain]; ++i) {
      const Layer& layer = net.layers[chain][i];
      const float* weight = flat + layer.weight;
      transpose(layer.outputs, layer.inputs, weight, layer.inputs, packed + layer.forward,
                layer.out_width);
      copy_rows(layer.in_width == layer.inputs ? 0 : layer.outputs, layer.inputs, weight,
                layer.inputs, packed + layer.backward, layer.in_width);
      memcpy(packed + layer.shift, flat + layer.bias, sizeof(float) * layer.outputs);
    }
}

// clip((obs - mean) / std, -limit, limit) into rows padded with zeros
void normalize(const Network& net, const float* obs, int64_t rows, float* out) {
  const int size = net.obs_size, width = net.obs_width;
  for (int64_t row = 0; row < rows; ++row, obs += size, out += width) {
    if (net.mean == nullptr) {
      memcpy(out, obs, sizeof(float) * size);
    } else {
      for (int i = 0; i < size; ++i) {
        const float x = (obs[i] - net.mean[i]) * net.inverse_std[i], limit = net.limit[i];
        out[i] = x > limit ? limit : x < -limit ? -limit : x;
      }
    }
    for (int i = size; i < width; ++i) out[i] = 0.0f;
  }
}

const float* output(const Network& net, const Workspace& ws, Chain chain) {
  if (net.depth[chain] > 0) return ws.base + net.layers[chain][net.depth[chain] - 1].out;
  return ws.obs;  // only the torso can be empty
}

namespace {

void forward_chain(const Network& net, const float* packed, const Workspace& ws, int rows,
                   Chain chain, bool keep_slopes) {
  const float* x = chain == kTorso ? ws.obs : output(net, ws, kTorso);
  for (int i = 0; i < net.depth[chain]; ++i) {
    const Layer& layer = net.layers[chain][i];
    float* y = ws.base + layer.out;
    // y = W x + b
    if (is_narrow(layer.outputs, layer.inputs))
      multiply_narrow(rows, layer.outputs, layer.in_width, x, layer.in_width,
                      upright(net, packed, layer), layer.in_width, packed + layer.shift, y,
                      layer.out_width);
    else
      multiply(rows, layer.out_width, layer.inputs, {x, layer.in_width, 1},
               packed + layer.forward, layer.out_width, Start::bias, packed + layer.shift, y,
               layer.out_width);
    if (layer.activated)
      activate(net.activation, y, keep_slopes ? ws.base + layer.slope : nullptr,
               int64_t{rows} * layer.out_width);
    x = y;
  }
}

}  // namespace

void forward(const Network& net, const float* packed, const Workspace& ws, int rows, bool actor,
             bool critic, bool keep_slopes) {
  forward_chain(net, packed, ws, rows, kTorso, keep_slopes);
  if (actor) forward_chain(net, packed, ws, rows, kActor, keep_slopes);
  if (critic) forward_chain(net, packed, ws, rows, kCritic, keep_slopes);
}

namespace {

// sums[j] = begin + sum of column j; four vectors at once, for each addition waits for the last one
void add_rows(int rows, int width, const float* from, Start begin, float* sums) {
  int j = 0;
  for (; j + 4 * kLanes <= width; j += 4 * kLanes) {
    Vec total[4];
    for (int v = 0; v < 4; ++v) total[v] = begin == Start::add ? load(sums + j + v * kLanes) : Vec{};
    const float* row = from + j;
    for (int i = 0; i < rows; ++i, row += width)
      for (int v = 0; v < 4; ++v) total[v] += load(row + v * kLanes);
    for (int v = 0; v < 4; ++v) store(sums + j + v * kLanes, total[v]);
  }
  for (; j < width; j += kLanes) {
    Vec total = begin == Start::add ? load(sums + j) : Vec{};
    for (int row = 0; row < rows; ++row) total += load(from + row * width + j);
    store(sums + j, total);
  }
}

}  // namespace

// Takes the gradient of a chain's output from ws.delta[0] (of the torso's from ws.torso), adds those
// of its weights to `sums` (begin = Start::add) or sets them (Start::zero), and with `into_torso`
// that of its input to ws.torso.
void backward(const Network& net, const float* packed, const Workspace& ws, int rows, Chain chain,
              bool into_torso, Start begin, float* sums) {
  float* delta = chain == kTorso ? ws.torso : ws.delta[0];
  float* other = ws.delta[1];
  for (int i = net.depth[chain] - 1; i >= 0; --i) {
    const Layer& layer = net.layers[chain][i];
    if (layer.activated)
      scale_by_slope(net.activation, ws.base + layer.out, ws.base + layer.slope, delta,
                     int64_t{rows} * layer.out_width);
    const float* x = i > 0            ? ws.base + net.layers[chain][i - 1].out
                     : chain == kTorso ? ws.obs
                                       : output(net, ws, kTorso);
    // dW += dy^T x, db += sum of dy
    if (layer.grad_on_side)
      multiply(layer.inputs, layer.out_width, rows, {x, 1, layer.in_width}, delta,
               layer.out_width, begin, nullptr, sums + layer.grad, layer.out_width);
    else
      multiply(layer.outputs, layer.in_width, rows, {delta, 1, layer.out_width}, x,
               layer.in_width, begin, nullptr, sums + layer.grad, layer.in_width);
    add_rows(rows, layer.out_width, delta, begin, sums + layer.grad_shift);
    if (i == 0 && !into_torso) return;
    // dx = W^T dy
    const Start start = i == 0 && chain == kCritic ? Start::add : Start::zero;
    float* to = i == 0 ? ws.torso : other;
    multiply(rows, layer.in_width, layer.outputs, {delta, layer.out_width, 1},
             upright(net, packed, layer), layer.in_width, start, nullptr, to, layer.in_width);
    other = delta;
    delta = to;
  }
}

void unpack_gradient(const Network& net, const float* sums, float* flat, Parts parts) {
  for (int chain = 0; chain < kNumChains; ++chain)
    for (int i = 0; is_of(Chain(chain), parts) && i < net.depth[chain]; ++i) {
      const Layer& layer = net.layers[chain][i];
      const float* grad = sums + layer.grad;
      float* weight = flat + layer.weight;
      if (layer.grad_on_side)
        transpose(layer.inputs, layer.outputs, grad, layer.out_width, weight, layer.inputs);
      else
        copy_rows(layer.outputs, layer.inputs, grad, layer.in_width, weight, layer.inputs);
      memcpy(flat + layer.bias, sums + layer.grad_shift, sizeof(float) * layer.outputs);
    }
  const Head& head = net.head;
  if (head.log_std_param >= 0 && is_of(kActor, parts))
    memcpy(flat + head.log_std_param, sums + head.log_std_grad, sizeof(float) * head.action_size);
}

}  // namespace clipper::CLIPPER_VARIANT
