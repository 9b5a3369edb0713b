// Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance"; operation by
// operation what `RunningMoments` in policies/normalize.py does, so that the bits are the same.
#include "moments.hpp"

#include <cmath>
#include <cstddef>
#include <cstring>
#include <vector>

namespace clipper {

void merge_block(int64_t num_rows, int64_t num_envs, int64_t columns, const float* block,
                 double* state) {
  const int64_t width = num_envs * columns;
  const double rows = static_cast<double>(num_rows);
  std::vector<double> means(static_cast<size_t>(width)), m2s(static_cast<size_t>(width));
  const float* from = block;
  for (int64_t t = 0; t < num_rows; ++t, from += width)
    for (int64_t k = 0; k < width; ++k) means[static_cast<size_t>(k)] += from[k];
  for (double& mean : means) mean /= rows;
  from = block;
  for (int64_t t = 0; t < num_rows; ++t, from += width)
    for (int64_t k = 0; k < width; ++k) {
      const double off = from[k] - means[static_cast<size_t>(k)];
      m2s[static_cast<size_t>(k)] += off * off;
    }
  double& count = state[0];
  double* const mean = state + 1;
  double* const m2 = state + 1 + columns;
  for (int64_t n = 0; n < num_envs; ++n) {
    const double total = count + rows;
    for (int64_t d = 0; d < columns; ++d) {
      const auto at = static_cast<size_t>(n * columns + d);
      const double delta = means[at] - mean[d];
      mean[d] += delta * (rows / total);
      m2[d] = m2[d] + m2s[at] + delta * delta * (count * rows / total);
    }
    count = total;
  }
}

void refresh(int64_t columns, const double* state, const bool* is_normalized, float* mean,
             float* inverse_std) {
  const double count = state[0];
  for (int64_t d = 0; d < columns; ++d) {
    const bool is_seen = is_normalized[d] && count > 0;
    const double variance = is_seen ? state[1 + columns + d] / count : 1.0;
    mean[d] = is_seen ? static_cast<float>(state[1 + d]) : 0.0f;
    inverse_std[d] = is_seen ? static_cast<float>(1.0 / std::sqrt(variance + 1e-8)) : 1.0f;
  }
}

bool is_finite(const float* x, int64_t size) {
  uint32_t found = 0;
  for (int64_t i = 0; i < size; ++i) {
    uint32_t bits;
    std::memcpy(&bits, x + i, sizeof(bits));
    found |= (bits & 0x7f800000u) == 0x7f800000u;  // all bits of the exponent
  }
  return found == 0;
}

int64_t first_outside(int64_t rows, int64_t columns, const float* block, const float* low,
                      const float* high) {
  for (int64_t row = 0; row < rows; ++row, block += columns) {
    int32_t found = 0;
    for (int64_t d = 0; d < columns; ++d) found |= (block[d] < low[d]) | (block[d] > high[d]);
    if (found == 0) continue;
    for (int64_t d = 0; d < columns; ++d)
      if (block[d] < low[d] || block[d] > high[d]) return row * columns + d;
  }
  return -1;
}

}  // namespace clipper
