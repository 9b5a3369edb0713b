// Vectors of CLIPPER_LANES floats and the functions on them that the kernels are made of.
//
// Everything has internal linkage and nothing of the C++ library is used: code of one instruction
// set must not be merged with that of another when the variants are linked together.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__) || defined(__AVX2__) || defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace clipper::CLIPPER_VARIANT {

constexpr int kLanes = CLIPPER_LANES;

typedef float Vec __attribute__((vector_size(CLIPPER_LANES * 4)));
typedef int32_t VecI __attribute__((vector_size(CLIPPER_LANES * 4)));
typedef uint32_t VecU __attribute__((vector_size(CLIPPER_LANES * 4)));
typedef float Unaligned __attribute__((vector_size(CLIPPER_LANES * 4), aligned(4), may_alias));

static inline Vec load(const float* from) { return *reinterpret_cast<const Unaligned*>(from); }
static inline void store(float* to, Vec x) { *reinterpret_cast<Unaligned*>(to) = x; }
static inline Vec fill(float x) { return x - Vec{}; }

// a b + c; rounded once where the instruction set can
static inline Vec fma(Vec a, Vec b, Vec c) {
#if CLIPPER_LANES == 16 && defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif CLIPPER_LANES == 8 && defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#elif CLIPPER_LANES == 4 && defined(__aarch64__)
  return vfmaq_f32(c, a, b);
#else
  return a * b + c;
#endif
}

static inline Vec root(Vec x) {
#if CLIPPER_LANES == 16 && defined(__AVX512F__)
  return _mm512_maskz_sqrt_ps(0xffff, x);  // the plain one warns in GCC 12
#elif CLIPPER_LANES == 8 && defined(__AVX2__)
  return _mm256_sqrt_ps(x);
#elif CLIPPER_LANES == 4 && defined(__SSE2__)
  return _mm_sqrt_ps(x);
#elif CLIPPER_LANES == 4 && defined(__aarch64__)
  return vsqrtq_f32(x);
#else
  for (int i = 0; i < kLanes; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}

// x > high ? high : x; NaN in the first argument stays, for x86's minimum of (a, b) is a < b ? a : b
static inline Vec at_most(Vec x, Vec high) {
#if CLIPPER_LANES == 16 && defined(__AVX512F__)
  return _mm512_maskz_min_ps(0xffff, high, x);  // the plain one warns in GCC 12
#elif CLIPPER_LANES == 8 && defined(__AVX2__)
  return _mm256_min_ps(high, x);
#elif CLIPPER_LANES == 4 && defined(__SSE2__)
  return _mm_min_ps(high, x);
#else
  return x > high ? high : x;
#endif
}

// x < low ? low : x
static inline Vec at_least(Vec x, Vec low) {
#if CLIPPER_LANES == 16 && defined(__AVX512F__)
  return _mm512_maskz_max_ps(0xffff, low, x);
#elif CLIPPER_LANES == 8 && defined(__AVX2__)
  return _mm256_max_ps(low, x);
#elif CLIPPER_LANES == 4 && defined(__SSE2__)
  return _mm_max_ps(low, x);
#else
  return x < low ? low : x;
#endif
}

static inline Vec magnitude(Vec x) { return (Vec)((VecU)x & (VecU{} + 0x7fffffffu)); }

// always in the same order, lane 0 first
static inline float sum_of(Vec x) {
  float total = x[0];
  for (int i = 1; i < kLanes; ++i) total += x[i];
  return total;
}

// e^x, 1 ulp or so: x = n ln 2 + r with |r| <= ln 2 / 2, a polynomial of degree 6 in r (Cephes)
static inline Vec exp(Vec x) {
  const Vec magic = fill(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
  const Vec bounded = at_least(at_most(x, fill(88.0f)), fill(-87.3f));
  const Vec shifted = fma(bounded, fill(1.44269504088896341f), magic);
  const Vec n = shifted - magic;
  Vec r = fma(n, fill(-0.693359375f), bounded);
  r = fma(n, fill(2.12194440e-4f), r);
  Vec p = fill(1.9875691500e-4f);
  p = fma(p, r, fill(1.3981999507e-3f));
  p = fma(p, r, fill(8.3334519073e-3f));
  p = fma(p, r, fill(4.1665795894e-2f));
  p = fma(p, r, fill(1.6666665459e-1f));
  p = fma(p, r, fill(5.0000001201e-1f));
  p = fma(p, r * r, r) + 1.0f;
  const Vec scaled = (Vec)((VecU)p + ((VecU)shifted << 23));  // times 2^n
  const Vec result = x < -87.3f ? Vec{} : scaled;
  return x > 88.0f ? fill(__builtin_inff()) : result;
}

// ln x for x > 0: x = 2^n m with m in [sqrt(1/2), sqrt(2)), a polynomial in m - 1 (Cephes)
static inline Vec log(Vec x) {
  const VecI bits = (VecI)x;
  const VecI n = (bits - 0x3f3504f3) >> 23;
  const Vec f = (Vec)(VecI)((VecU)bits - ((VecU)n << 23)) - 1.0f;
  const Vec exponent = __builtin_convertvector(n, Vec);
  const Vec z = f * f;
  Vec p = fill(7.0376836292e-2f);
  p = fma(p, f, fill(-1.1514610310e-1f));
  p = fma(p, f, fill(1.1676998740e-1f));
  p = fma(p, f, fill(-1.2420140846e-1f));
  p = fma(p, f, fill(1.4249322787e-1f));
  p = fma(p, f, fill(-1.6668057665e-1f));
  p = fma(p, f, fill(2.0000714765e-1f));
  p = fma(p, f, fill(-2.4999993993e-1f));
  p = fma(p, f, fill(3.3333331174e-1f));
  Vec y = p * f * z;
  y = fma(exponent, fill(-2.12194440e-4f), y);
  y = fma(z, fill(-0.5f), y);
  const Vec result = fma(exponent, fill(0.693359375f), f + y);
  return x < __builtin_inff() ? result : x;
}

// ln(1 + e^-|x|), exact to rounding also where e^-|x| is small
static inline Vec log1p_exp_minus_abs(Vec x) {
  const Vec e = exp(-magnitude(x));
  const Vec u = 1.0f + e;
  const Vec rest = u - 1.0f;
  return rest == 0.0f ? e : log(u) * (e / rest);
}

static inline Vec sigmoid(Vec x) { return 1.0f / (1.0f + exp(-x)); }

}  // namespace clipper::CLIPPER_VARIANT
