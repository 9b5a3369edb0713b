// Sums of a layer in, its outputs and their derivatives out; y = f(x) element by element.
#include "kernels.hpp"
#include "lanes.hpp"

#include <cstring>

namespace clipper::CLIPPER_VARIANT {

namespace {

// x p(x^2) / q(x^2), the minimax rational of Eigen and XLA; 1 beyond 7.9 in float32
inline Vec tanh(Vec x) {
  const Vec limit = fill(7.90531110763549805f);
  const Vec b = at_least(at_most(x, limit), -limit);
  const Vec z = b * b;
  Vec p = fill(-2.76076847742355e-16f);
  p = fma(p, z, fill(2.00018790482477e-13f));
  p = fma(p, z, fill(-8.60467152213735e-11f));
  p = fma(p, z, fill(5.12229709037114e-08f));
  p = fma(p, z, fill(1.48572235717979e-05f));
  p = fma(p, z, fill(6.37261928875436e-04f));
  p = fma(p, z, fill(4.89352455891786e-03f));
  Vec q = fill(1.19825839466702e-06f);
  q = fma(q, z, fill(1.18534705686654e-04f));
  q = fma(q, z, fill(2.26843463243900e-03f));
  q = fma(q, z, fill(4.89352518554385e-03f));
  return b * p / q;
}

// the same form for the error function; 1 beyond 4 in float32
inline Vec erf(Vec x) {
  const Vec limit = fill(4.0f);
  const Vec b = at_least(at_most(x, limit), -limit);
  const Vec z = b * b;
  Vec p = fill(-2.72614225801306e-10f);
  p = fma(p, z, fill(2.77068142495902e-08f));
  p = fma(p, z, fill(-2.10102402082508e-06f));
  p = fma(p, z, fill(-5.69250639462346e-05f));
  p = fma(p, z, fill(-7.34990630326855e-04f));
  p = fma(p, z, fill(-2.95459980854025e-03f));
  p = fma(p, z, fill(-1.60960333262415e-02f));
  Vec q = fill(-1.45660718464996e-05f);
  q = fma(q, z, fill(-2.13374055278905e-04f));
  q = fma(q, z, fill(-1.68282697438203e-03f));
  q = fma(q, z, fill(-7.37332916720468e-03f));
  q = fma(q, z, fill(-1.42647390514189e-02f));
  return b * p / q;
}

// e^x - 1 for x <= 0, without cancellation near 0 (Taylor's series to x^7 / 7!)
inline Vec expm1_negative(Vec x) {
  Vec p = fill(1.0f / 5040.0f);
  p = fma(p, x, fill(1.0f / 720.0f));
  p = fma(p, x, fill(1.0f / 120.0f));
  p = fma(p, x, fill(1.0f / 24.0f));
  p = fma(p, x, fill(1.0f / 6.0f));
  p = fma(p, x, fill(0.5f));
  const Vec near = fma(p, x * x, x);
  return x > -0.35f ? near : exp(x) - 1.0f;
}

template <typename F>
inline void map(float* x, int64_t size, F f) {
  for (int64_t i = 0; i < size; i += kLanes) store(x + i, f(load(x + i)));
}

}  // namespace

// `slope` receives f'(x) of silu and gelu; for the others it is a function of y, and not written
void activate(Activation kind, float* x, float* slope, int64_t size) {
  switch (kind) {
    case Activation::tanh:
      return map(x, size, [](Vec v) { return tanh(v); });
    case Activation::relu:
      return map(x, size, [](Vec v) { return at_least(v, Vec{}); });
    case Activation::elu:  // x above 0, e^x - 1 below
      return map(x, size, [](Vec v) { return v > 0.0f ? v : expm1_negative(at_most(v, Vec{})); });
    case Activation::silu:  // x s(x), s the logistic function; derivative s (1 + x (1 - s))
      for (int64_t i = 0; i < size; i += kLanes) {
        const Vec v = load(x + i), s = sigmoid(v);
        store(x + i, v * s);
        if (slope) store(slope + i, s * (1.0f + v * (1.0f - s)));
      }
      return;
    case Activation::gelu:  // x Phi(x), Phi the normal distribution; derivative Phi + x phi(x)
      for (int64_t i = 0; i < size; i += kLanes) {
        const Vec v = load(x + i);
        const Vec cumulative = 0.5f + 0.5f * erf(v * 0.70710678118654752f);
        store(x + i, v * cumulative);
        if (slope) {
          const Vec density = 0.39894228040143268f * exp(-0.5f * v * v);
          store(slope + i, fma(v, density, cumulative));
        }
      }
      return;
  }
}

// delta <- delta f'(x)
void scale_by_slope(Activation kind, const float* y, const float* slope, float* delta,
                    int64_t size) {
  switch (kind) {
    case Activation::tanh:  // 1 - y^2
      for (int64_t i = 0; i < size; i += kLanes) {
        const Vec v = load(y + i);
        store(delta + i, load(delta + i) * (1.0f - v * v));
      }
      return;
    case Activation::relu:
      for (int64_t i = 0; i < size; i += kLanes)
        store(delta + i, load(y + i) > 0.0f ? load(delta + i) : Vec{});
      return;
    case Activation::elu:  // 1 above 0, e^x = y + 1 below
      for (int64_t i = 0; i < size; i += kLanes) {
        const Vec v = load(y + i), d = load(delta + i);
        store(delta + i, v > 0.0f ? d : d * (v + 1.0f));
      }
      return;
    case Activation::silu:
    case Activation::gelu:
      for (int64_t i = 0; i < size; i += kLanes)
        store(delta + i, load(delta + i) * load(slope + i));
      return;
  }
}

void tanh_of(const float* x, float* y, int64_t size) {
  const auto of = [](Vec v) { return v == v ? tanh(v) : v; };
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) store(y + i, of(load(x + i)));
  if (i == size) return;
  float rest[kLanes] = {};
  const size_t bytes = sizeof(float) * static_cast<size_t>(size - i);
  memcpy(rest, x + i, bytes);
  store(rest, of(load(rest)));
  memcpy(y + i, rest, bytes);
}

}  // namespace clipper::CLIPPER_VARIANT
