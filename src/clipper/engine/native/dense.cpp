// Matrix products of a layer: rows of the batch in, outputs and gradients out.
//
// A tile of R rows by V vectors of columns is summed in registers. Every element is one chain of
// fma over k in ascending order, whatever tile it falls into: a row's result does not depend on the
// rows beside it.
#include "kernels.hpp"
#include "lanes.hpp"

namespace clipper::CLIPPER_VARIANT {

namespace {

// 32 registers hold 24 sums and what feeds them, 16 hold 12
#if CLIPPER_LANES == 16 || defined(__aarch64__)
constexpr int kMaxVectors = 4;
constexpr int kSums = 24;
#else
constexpr int kMaxVectors = 2;
constexpr int kSums = 12;
#endif

struct Product {
  int depth;
  Strided a;
  const float* b;
  int64_t b_row;
  Start start;
  const float* bias;
  float* c;
  int64_t c_row;
};

template <int R, int V>
inline __attribute__((always_inline)) void tile(const Product& p, int i, int j) {
  Vec sum[R][V];
  float* const c = p.c + i * p.c_row + j;
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v)
      sum[r][v] = p.start == Start::zero  ? Vec{}
                  : p.start == Start::add ? load(c + r * p.c_row + v * kLanes)
                                          : load(p.bias + j + v * kLanes);
  const float* a = p.a.data + i * p.a.row;
  const float* b = p.b + j;
  const int64_t a_row = p.a.row, a_step = p.a.step, b_row = p.b_row;
  for (int k = 0; k < p.depth; ++k, a += a_step, b += b_row) {
    Vec column[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) column[v] = load(b + v * kLanes);
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) {
      const Vec x = fill(a[r * a_row]);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sum[r][v] = fma(x, column[v], sum[r][v]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) store(c + r * p.c_row + v * kLanes, sum[r][v]);
}

template <int V>
void panel(const Product& p, int rows, int j) {
  constexpr int kRows = kSums / V < 16 ? kSums / V : 16;
  int i = 0;
  for (; i + kRows <= rows; i += kRows) tile<kRows, V>(p, i, j);
  if constexpr (kRows > 8)
    for (; i + 8 <= rows; i += 8) tile<8, V>(p, i, j);
  for (; i + 4 <= rows; i += 4) tile<4, V>(p, i, j);
  for (; i + 2 <= rows; i += 2) tile<2, V>(p, i, j);
  for (; i < rows; ++i) tile<1, V>(p, i, j);
}

}  // namespace

void multiply(int rows, int columns, int depth, Strided a, const float* b, int64_t b_row,
              Start start, const float* bias, float* c, int64_t c_row) {
  const Product p{depth, a, b, b_row, start, bias, c, c_row};
  int j = 0;
  for (; j + kMaxVectors * kLanes <= columns; j += kMaxVectors * kLanes)
    panel<kMaxVectors>(p, rows, j);
  if constexpr (kMaxVectors > 2)
    for (; j + 2 * kLanes <= columns; j += 2 * kLanes) panel<2>(p, rows, j);
  for (; j + kLanes <= columns; j += kLanes) panel<1>(p, rows, j);
}

namespace {

#if CLIPPER_LANES == 16
#define CLIPPER_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define CLIPPER_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif CLIPPER_LANES == 8
#define CLIPPER_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define CLIPPER_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#define CLIPPER_LOW 0, 4, 1, 5
#define CLIPPER_HIGH 2, 6, 3, 7
#endif

// log2(lanes) rounds of interleaving the first half with the second transpose a square
inline void transpose_square(Vec* x) {
  Vec y[kLanes];
  for (int round = 1; round < kLanes; round *= 2) {
    for (int i = 0; i < kLanes / 2; ++i) {
      y[2 * i] = __builtin_shufflevector(x[i], x[i + kLanes / 2], CLIPPER_LOW);
      y[2 * i + 1] = __builtin_shufflevector(x[i], x[i + kLanes / 2], CLIPPER_HIGH);
    }
    for (int i = 0; i < kLanes; ++i) x[i] = y[i];
  }
}

}  // namespace

// to[j][i] = from[i][j] for i < rows, j < columns
void transpose(int rows, int columns, const float* from, int64_t from_row, float* to,
               int64_t to_row) {
  const int whole_rows = rows - rows % kLanes, whole_columns = columns - columns % kLanes;
  for (int i = 0; i < whole_rows; i += kLanes)
    for (int j = 0; j < whole_columns; j += kLanes) {
      Vec square[kLanes];
      for (int r = 0; r < kLanes; ++r) square[r] = load(from + (i + r) * from_row + j);
      transpose_square(square);
      for (int r = 0; r < kLanes; ++r) store(to + (j + r) * to_row + i, square[r]);
    }
  for (int i = 0; i < rows; ++i)
    for (int j = i < whole_rows ? whole_columns : 0; j < columns; ++j)
      to[j * to_row + i] = from[i * from_row + j];
}

// C[i][j] = bias[j] + sum_k A[i][k] B[j][k] for few columns: lanes hold neighbouring k, and are
// summed in their order at the end, for a square of rows at once where there are enough.
void multiply_narrow(int rows, int columns, int depth, const float* a, int64_t a_row,
                     const float* b, int64_t b_row, const float* bias, float* c, int64_t c_row) {
  for (int i = 0; i < rows; i += kLanes) {
    const int count = rows - i < kLanes ? rows - i : kLanes;
    for (int j = 0; j < columns; ++j) {
      Vec sums[kLanes];
      for (int r = 0; r < count; ++r) {
        const float* x = a + (i + r) * a_row;
        Vec sum{};
        for (int k = 0; k < depth; k += kLanes) sum = fma(load(x + k), load(b + j * b_row + k), sum);
        sums[r] = sum;
      }
      float* to = c + i * c_row + j;
      if (count < kLanes) {
        for (int r = 0; r < count; ++r) to[r * c_row] = sum_of(sums[r]) + bias[j];
        continue;
      }
      transpose_square(sums);
      Vec total = sums[0];
      for (int r = 1; r < kLanes; ++r) total += sums[r];
      total += bias[j];
      for (int r = 0; r < kLanes; ++r) to[r * c_row] = total[r];
    }
  }
}

bool is_narrow(int columns, int depth) {
  const int per_column = padded(depth) / kLanes + 5;  // and the sum over lanes
  return columns * per_column < depth * (padded(columns) / kLanes);
}

}  // namespace clipper::CLIPPER_VARIANT
