// Blocks in, running count, mean and summed squared deviations out. T rows, N envs, D columns.
#pragma once

#include <cstdint>

namespace clipper {

// Adds a block [T][N][D] to state = count, mean [D], m2 [D], one env after the other.
void merge_block(int64_t num_rows, int64_t num_envs, int64_t columns, const float* block,
                 double* state);

}  // namespace clipper
