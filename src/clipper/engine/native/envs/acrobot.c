/* Acrobot-v1 as Gymnasium has it ("book" dynamics), operation by operation in the same order. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "clipper_env.h"
#include "numpy_random.h"

#define SIZE 4
static const double kPi = 3.141592653589793;

/* the angles of both joints, then their speeds */
typedef struct {
  double state[SIZE];
} Acrobot;

static const float kHigh[6] = {1.0f, 1.0f, 1.0f, 1.0f, 12.566371f, 28.274334f};
static const float kLow[6] = {-1.0f, -1.0f, -1.0f, -1.0f, -12.566371f, -28.274334f};
static const int32_t kActions[1] = {3};
static const ClipperEnvSpec kSpec = {CLIPPER_ENV_ABI, 500, "Acrobot-v1",
                                     {CLIPPER_BOX, 6, kLow, kHigh, NULL},
                                     {CLIPPER_DISCRETE, 1, NULL, NULL, kActions}};

const ClipperEnvSpec *clipper_env_spec(void) { return &kSpec; }

void *clipper_env_create(const char *options) {
  (void)options;
  return calloc(1, sizeof(Acrobot));
}

void clipper_env_close(void *env) { free(env); }

static void observe(const double *s, float *obs) {
  obs[0] = (float)cos(s[0]);
  obs[1] = (float)sin(s[0]);
  obs[2] = (float)cos(s[1]);
  obs[3] = (float)sin(s[1]);
  obs[4] = (float)s[2];
  obs[5] = (float)s[3];
}

int32_t clipper_env_reset(void *env, uint64_t seed, float *obs) {
  double *s = ((Acrobot *)env)->state;
  Pcg64 rng;
  pcg64_seed(&rng, seed);
  for (int i = 0; i < SIZE; ++i) s[i] = (float)pcg64_uniform(&rng, -0.1, 0.1);
  observe(s, obs);
  return 0;
}

/* numpy's x ** 2 of a single number: the C library's pow, which is not always x * x */
static volatile double kTwo = 2.0;
static double square(double x) { return pow(x, kTwo); }

/* links of length and mass 1, their centres in the middle, moments of inertia 1 */
static void derive(const double *s, double torque, double *rate) {
  const double g = 9.8, m = 1.0, l = 1.0, c = 0.5, inertia = 1.0;
  const double d1 =
      m * (c * c) + m * (l * l + c * c + 2 * l * c * cos(s[1])) + inertia + inertia;
  const double d2 = m * (c * c + l * c * cos(s[1])) + inertia;
  const double phi2 = m * c * g * cos(s[0] + s[1] - kPi / 2.0);
  const double phi1 = -m * l * c * square(s[3]) * sin(s[1]) -
                      2 * m * l * c * s[3] * s[2] * sin(s[1]) +
                      (m * c + m * l) * g * cos(s[0] - kPi / 2) + phi2;
  const double second =
      (torque + d2 / d1 * phi1 - m * l * c * square(s[2]) * sin(s[1]) - phi2) /
      (m * (c * c) + inertia - square(d2) / d1);
  rate[0] = s[2];
  rate[1] = s[3];
  rate[2] = -(d2 * second + phi1) / d1;
  rate[3] = second;
}

/* one step of the fourth-order Runge-Kutta method */
static void integrate(double *s, double torque, double dt) {
  const double reach[3] = {dt / 2.0, dt / 2.0, dt};
  double rate[4][SIZE], at[SIZE];
  memcpy(at, s, sizeof at);
  for (int k = 0; k < 4; ++k) {
    derive(at, torque, rate[k]);
    for (int i = 0; i < SIZE && k < 3; ++i) at[i] = s[i] + reach[k] * rate[k][i];
  }
  for (int i = 0; i < SIZE; ++i)
    s[i] += dt / 6.0 * (rate[0][i] + 2 * rate[1][i] + 2 * rate[2][i] + rate[3][i]);
}

static double wrapped(double x) {
  const double turn = kPi - -kPi;
  while (x > kPi) x = x - turn;
  while (x < -kPi) x = x + turn;
  return x;
}

static double bounded(double x, double most) {
  x = x < -most ? -most : x;
  return x > most ? most : x;
}

int32_t clipper_env_step(void *env, const float *action, float *obs, ClipperStep *result) {
  double *s = ((Acrobot *)env)->state;
  integrate(s, (double)action[0] - 1.0, 0.2);
  s[0] = wrapped(s[0]);
  s[1] = wrapped(s[1]);
  s[2] = bounded(s[2], 4 * kPi);
  s[3] = bounded(s[3], 9 * kPi);
  observe(s, obs);
  result->terminated = -cos(s[0]) - cos(s[1] + s[0]) > 1.0;
  result->reward = result->terminated ? 0.0 : -1.0;
  return 0;
}
