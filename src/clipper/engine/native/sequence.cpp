// Numbers in, through layers one after another, numbers out; and gradients the other way.
//
// The layers are the actor's of a network that has no others. Rows go through in chunks, and what
// every chunk's way back needs is kept where the caller says.
#include "kernels.hpp"
#include "lanes.hpp"

namespace clipper::CLIPPER_VARIANT {

namespace {

const Layer& last_layer(const Network& net) { return net.layers[kActor][net.depth[kActor] - 1]; }

}  // namespace

void run(const Network& net, const float* packed, const Workspace& ws, const float* x, int64_t rows,
         float* kept, float* y) {
  const Layer& last = last_layer(net);
  Workspace part = ws;
  for (int64_t start = 0; start < rows; start += kChunk) {
    const int count = chunk_size(rows, start);
    normalize(net, x + start * net.obs_size, count, part.obs);
    if (kept != nullptr) part.base = kept + start / kChunk * net.outputs_size;
    forward(net, packed, part, count, true, false, kept != nullptr);
    copy_rows(count, last.outputs, part.base + last.out, last.out_width, y + start * last.outputs,
              last.outputs);
  }
}

// `sums` receives the gradient of the weights; `grad_x`, unless it is null, that of the rows.
void run_back(const Network& net, const float* packed, const Workspace& ws, const float* x,
              int64_t rows, float* kept, const float* grad_y, float* grad_x, float* sums) {
  const Layer& last = last_layer(net);
  Workspace part = ws;
  const size_t padding = sizeof(float) * static_cast<size_t>(last.out_width - last.outputs);
  for (int64_t start = 0; start < rows; start += kChunk) {
    const int count = chunk_size(rows, start);
    normalize(net, x + start * net.obs_size, count, part.obs);
    part.base = kept + start / kChunk * net.outputs_size;
    copy_rows(count, last.outputs, grad_y + start * last.outputs, last.outputs, part.delta[0],
              last.out_width);
    for (int64_t row = 0; padding > 0 && row < count; ++row)
      memset(part.delta[0] + row * last.out_width + last.outputs, 0, padding);
    backward(net, packed, part, count, kActor, grad_x != nullptr,
             start == 0 ? Start::zero : Start::add, sums);
    if (grad_x != nullptr)
      copy_rows(count, net.obs_size, part.torso, net.obs_width, grad_x + start * net.obs_size,
                net.obs_size);
  }
}

}  // namespace clipper::CLIPPER_VARIANT
