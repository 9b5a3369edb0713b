// Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance"; operation by
// operation what `RunningMoments` in policies/normalize.py does, so that the bits are the same.
#include "moments.hpp"

#include <cstddef>
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

}  // namespace clipper
