// Blocks in, running count, mean and summed squared deviations out. T rows, N envs, D columns.
#pragma once

#include <cstdint>

namespace clipper {

// Adds a block [T][N][D] to state = count, mean [D], m2 [D], one env after the other.
void merge_block(int64_t num_rows, int64_t num_envs, int64_t columns, const float* block,
                 double* state);

// What a normaliser subtracts and multiplies by, from its state: 0 and 1 for columns that it leaves
// as they are and before the first row.
void refresh(int64_t columns, const double* state, const bool* is_normalized, float* mean,
             float* inverse_std);

// True if no number is NaN or infinite.
bool is_finite(const float* x, int64_t size);

// The place in a block [B][D] of the first number outside its column's bounds [D], or -1.
int64_t first_outside(int64_t rows, int64_t columns, const float* block, const float* low,
                      const float* high);

}  // namespace clipper
