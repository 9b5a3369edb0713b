// Compares the functions on lanes and the matrix products with the C library's in double precision.
#include <cmath>
#include <cstdio>
#include <vector>

#include "kernels.hpp"
#include "lanes.hpp"

namespace clipper::CLIPPER_VARIANT {

int failures = 0;

void expect(const char* what, double worst, double limit) {
  if (worst <= limit) return;
  std::printf("%s is off by %g, more than %g\n", what, worst, limit);
  ++failures;
}

template <typename Fast, typename Exact>
void check(const char* what, Fast fast, Exact exact, float low, float high, double limit) {
  double worst = 0;
  for (int i = 0; i <= 100000; ++i) {
    const float x = low + (high - low) * static_cast<float>(i) / 100000.0f;
    const double wanted = exact(static_cast<double>(x));
    const double off = std::fabs(fast(fill(x))[kLanes - 1] - wanted);
    worst = std::fmax(worst, off / std::fmax(std::fabs(wanted), 1e-30));
  }
  expect(what, worst, limit);
}

double apply(Activation kind, float x, float* slope) {
  float y[kPad], slopes[kPad];
  for (float& value : y) value = x;
  activate(kind, y, slopes, kPad);
  float delta[kPad];
  for (float& value : delta) value = 1.0f;
  scale_by_slope(kind, y, slopes, delta, kPad);
  *slope = delta[kPad - 1];
  return y[kPad - 1];
}

void check_activations() {
  const auto phi = [](double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); };
  const auto s = [](double x) { return 1 / (1 + std::exp(-x)); };
  double worst = 0, worst_slope = 0;
  for (int i = -12000; i <= 12000; ++i) {
    const float f = static_cast<float>(i) / 1000.0f;
    const double x = f;
    const double density = std::exp(-x * x / 2) / std::sqrt(2 * std::acos(-1.0));
    const double wanted[5][2] = {{std::tanh(x), 1 - std::tanh(x) * std::tanh(x)},
                                 {std::fmax(x, 0.0), x > 0 ? 1.0 : 0.0},
                                 {x > 0 ? x : std::expm1(x), x > 0 ? 1.0 : std::exp(x)},
                                 {x * s(x), s(x) * (1 + x * (1 - s(x)))},
                                 {x * phi(x), phi(x) + x * density}};
    for (int kind = 0; kind < 5; ++kind) {
      float slope;
      const double y = apply(static_cast<Activation>(kind), f, &slope);
      worst = std::fmax(worst, std::fabs(y - wanted[kind][0]) / std::fmax(1.0, std::fabs(x)));
      worst_slope = std::fmax(worst_slope, std::fabs(slope - wanted[kind][1]));
    }
  }
  expect("an activation", worst, 4e-7);
  expect("its derivative", worst_slope, 2e-6);
}

void check_products() {
  constexpr int kMost = 80;
  std::vector<float> a(kMost * kMost), b(kMost * kMost), c(kMost * kMost), bias(kMost);
  for (size_t i = 0; i < a.size(); ++i) {
    a[i] = static_cast<float>(std::sin(static_cast<double>(i)));
    b[i] = static_cast<float>(std::cos(3.0 * static_cast<double>(i)));
  }
  for (int j = 0; j < kMost; ++j) bias[static_cast<size_t>(j)] = 0.01f * static_cast<float>(j);
  double worst = 0, worst_narrow = 0;
  for (int rows = 1; rows <= 70; rows += 3)
    for (int columns = kPad; columns <= kMost; columns += kPad) {
      const int depth = rows % 33 + 1;
      multiply(rows, columns, depth, {a.data(), kMost, 1}, b.data(), kMost, Start::bias,
               bias.data(), c.data(), kMost);
      for (int i = 0; i < rows; ++i)
        for (int j = 0; j < columns; ++j) {
          double wanted = bias[static_cast<size_t>(j)];
          for (int k = 0; k < depth; ++k)
            wanted += double{a[static_cast<size_t>(i * kMost + k)]} *
                      b[static_cast<size_t>(k * kMost + j)];
          worst = std::fmax(worst, std::fabs(c[static_cast<size_t>(i * kMost + j)] - wanted));
        }
      multiply_narrow(rows, 3, columns, a.data(), kMost, b.data(), kMost, bias.data(), c.data(),
                      kMost);
      for (int i = 0; i < rows; ++i)
        for (int j = 0; j < 3; ++j) {
          double wanted = bias[static_cast<size_t>(j)];
          for (int k = 0; k < columns; ++k)
            wanted += double{a[static_cast<size_t>(i * kMost + k)]} *
                      b[static_cast<size_t>(j * kMost + k)];
          worst_narrow =
              std::fmax(worst_narrow, std::fabs(c[static_cast<size_t>(i * kMost + j)] - wanted));
        }
      transpose(rows, columns, a.data(), kMost, c.data(), kMost);
      for (int i = 0; i < rows; ++i)
        for (int j = 0; j < columns; ++j)
          if (c[static_cast<size_t>(j * kMost + i)] != a[static_cast<size_t>(i * kMost + j)])
            ++failures;
    }
  expect("a product", worst, 1e-5);
  expect("a narrow product", worst_narrow, 1e-5);
}

int run() {
  check("exp", [](Vec x) { return exp(x); }, [](double x) { return std::exp(x); }, -87, 87, 3e-7);
  check("log", [](Vec x) { return log(x); }, [](double x) { return std::log(x); }, 1.5f, 1e6f,
        3e-7);
  check("log1p(exp(-|x|))", [](Vec x) { return log1p_exp_minus_abs(x); },
        [](double x) { return std::log1p(std::exp(-std::fabs(x))); }, -80, 80, 6e-7);
  check("root", [](Vec x) { return root(x); }, [](double x) { return std::sqrt(x); }, 0, 10, 1e-7);
  const Vec nan = fill(std::nanf("")), inf = fill(INFINITY);
  const bool keeps = std::isnan(exp(nan)[0]) && std::isnan(log(nan)[0]) && std::isinf(exp(inf)[0]) &&
                     exp(-inf)[0] == 0.0f && exp(Vec{})[0] == 1.0f && log(fill(1.0f))[0] == 0.0f;
  if (!keeps) ++failures;
  check_activations();
  check_products();
  return failures;
}

}  // namespace clipper::CLIPPER_VARIANT

int main() { return clipper::CLIPPER_VARIANT::run() == 0 ? 0 : 1; }
