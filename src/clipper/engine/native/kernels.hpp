// What the kernels' translation units ask of each other, within one instruction set.
#pragma once

#include "network.hpp"

namespace clipper::CLIPPER_VARIANT {

// Rows of the chunk that begins at `start`.
static inline int chunk_size(int64_t rows, int64_t start) {
  return static_cast<int>(rows - start < kChunk ? rows - start : kChunk);
}

// dense.cpp: C[i][j] = start + sum_k A(i, k) B[k][j] over k in ascending order, whatever the tile
struct Strided {
  const float* data;
  int64_t row, step;  // A(i, k) = data[i * row + k * step]
};
enum class Start { zero, bias, add };  // from 0, from bias[j], or from what C holds
void multiply(int rows, int columns, int depth, Strided a, const float* b, int64_t b_row,
              Start start, const float* bias, float* c, int64_t c_row);
// The same for few columns, with the matrix B on its side and rows padded with zeros.
void multiply_narrow(int rows, int columns, int depth, const float* a, int64_t a_row,
                     const float* b, int64_t b_row, const float* bias, float* c, int64_t c_row);
bool is_narrow(int columns, int depth);
void transpose(int rows, int columns, const float* from, int64_t from_row, float* to,
               int64_t to_row);

// activations.cpp
void activate(Activation kind, float* x, float* slope, int64_t size);
void scale_by_slope(Activation kind, const float* y, const float* slope, float* delta,
                    int64_t size);
// Of as many numbers as there are, elsewhere; NaN stays NaN.
void tanh_of(const float* x, float* y, int64_t size);

// network.cpp
void pack(const Network&, const float* flat, float* packed, Parts);
void normalize(const Network&, const float* obs, int64_t rows, float* out);
void forward(const Network&, const float* packed, const Workspace&, int rows, bool actor,
             bool critic, bool keep_slopes);
void backward(const Network&, const float* packed, const Workspace&, int rows, Chain chain,
              bool into_torso, Start begin, float* sums);
void unpack_gradient(const Network&, const float* sums, float* flat, Parts);
const float* output(const Network&, const Workspace&, Chain chain);

void copy_rows(int rows, int columns, const float* from, int from_row, float* to, int to_row);

// sequence.cpp: of the actor's layers alone. `kept` receives what the way back needs, outputs_size
// numbers for every chunk of rows, or is null.
void run(const Network&, const float* packed, const Workspace&, const float* x, int64_t rows,
         float* kept, float* y);
void run_back(const Network&, const float* packed, const Workspace&, const float* x, int64_t rows,
              float* kept, const float* grad_y, float* grad_x, float* sums);

// heads.cpp: all on ws.params, which `read_head` fills from the actor's output
void read_head(const Network&, const Workspace&, int rows);
void read_values(const Network&, const Workspace&, int rows);
void sample(const Network&, const Workspace&, int rows, const float* noise, float* float_actions,
            int64_t* int_actions);
void load_actions(const Network&, const Workspace&, int rows, const int64_t* order,
                  const float* float_actions, const int64_t* int_actions);
void log_prob_and_entropy(const Network&, const Workspace&, int rows);
void head_gradient(const Network&, const Workspace&, int rows, float grad_entropy, float grad_kl,
                   float* delta, Start begin, float* sums);

// divergence.cpp: the KL(old || new) of a chunk, after `log_prob_and_entropy`, to ws.kl and its slopes
void divergence(const Network&, const Workspace&, const Batch&, const int64_t* order, int rows);
void outputs(const Network&, const float* packed, const Workspace&, const float* obs, int64_t rows,
             float* out);
double kl_sum(const Network&, const float* packed, const Workspace&, const Batch&, int64_t rows);

// objective.cpp
void gradient(const Network&, const float* packed, const Workspace&, const Batch&,
              const int64_t* order, int64_t rows, const Objective&, float* sums, double* report,
              Parts);
// Of a network that is not ours: what it put out for the rows `order` of a batch in, [M][P] and [M];
// the gradient by that out, and by the log standard deviations in `sums`. No KL penalty.
void loss_head(const Network&, const Workspace&, const float* params, const float* values,
               const Batch&, const int64_t* order, int64_t rows, const Objective&,
               float* grad_params, float* grad_values, float* sums, double* report);

// adam.cpp
double squared_norm(const float* x, int64_t size);
void adam(const AdamStep&, const float* grad, float* m, float* v, float* params, int64_t size);

}  // namespace clipper::CLIPPER_VARIANT
