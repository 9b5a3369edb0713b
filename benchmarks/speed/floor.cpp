// What one update costs at least on this core: its peak of fused multiply-adds, and how near to it the
// kernels' products come.
//
//   g++ -std=c++17 -O3 -march=native -ffp-contract=off -fno-math-errno -fno-trapping-math
//     -DCLIPPER_VARIANT=measured -DCLIPPER_LANES=16 benchmarks/speed/floor.cpp -o floor && ./floor
//
// CLIPPER_LANES is 16 for AVX-512, 8 for AVX2, 4 otherwise. Figures are the best of 200 repetitions.
#include "../../src/clipper/engine/native/activations.cpp"
#include "../../src/clipper/engine/native/dense.cpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

using namespace clipper::CLIPPER_VARIANT;

namespace {

constexpr int kWidth = 64, kRows = 64, kMinibatch = 256, kCalls = 10;

template <typename F>
double microseconds(F work) {
  double best = 1e300;
  for (int repeat = 0; repeat < 200; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    for (int call = 0; call < kCalls; ++call) work();
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
    best = std::min(best, took.count() / kCalls);
  }
  return best;
}

// Ten chains of fma that do not wait for each other: GFLOP/s.
double peak() {
  constexpr int kChains = 10, kLinks = 10000;
  Vec sum[kChains];
  for (Vec& x : sum) x = fill(1.0f);
  const Vec a = fill(0.999f), b = fill(0.001f);
  const double us = microseconds([&] {
    for (int i = 0; i < kLinks; ++i)
      for (Vec& x : sum) x = fma(x, a, b);
    asm volatile("" : : "g"(sum) : "memory");
  });
  return 2.0 * kLanes * kChains * kLinks / us * 1e-3;
}

}  // namespace

int main() {
  const double most = peak();
  std::printf("fused multiply-adds          %6.1f GFLOP/s\n", most);
  std::vector<float> x(kRows * kWidth, 0.5f), w(kWidth * kWidth, 0.01f), y(kRows * kWidth), b(kWidth);
  const double flops = 2.0 * kRows * kWidth * kWidth;
  const double product = microseconds([&] {
    multiply(kRows, kWidth, kWidth, {x.data(), kWidth, 1}, w.data(), kWidth, Start::bias, b.data(),
             y.data(), kWidth);
  });
  std::printf("a product of 64 x 64 x 64    %6.1f GFLOP/s\n", flops / product * 1e-3);
  const double tanh = microseconds([&] {
    activate(clipper::Activation::tanh, x.data(), nullptr, kRows * kWidth);
  });
  // actor and critic of 4-64-64-2 and 4-64-64-1: three products between the hidden layers, two with
  // the first and the last layer each
  const double hidden = 2 * 3 * flops, ends = 2.0 * kRows * kWidth * (2 * (2 * 4) + 3 * (2 + 1));
  const int chunks = kMinibatch / kRows;
  std::printf("one update of %d rows: products at that peak %.0f us, at the kernels' speed %.0f us; "
              "tanh %.0f us\n",
              kMinibatch, chunks * (hidden + ends) / most * 1e-3,
              chunks * (hidden + ends) / flops * product, chunks * 2 * 2 * tanh);
}
