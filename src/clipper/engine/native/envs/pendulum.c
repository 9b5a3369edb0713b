/* Pendulum-v1 as Gymnasium has it: float64 but for the torque's own terms, which numpy keeps float32. */
#include <math.h>
#include <stdlib.h>

#include "clipper_env.h"
#include "numpy_random.h"

static const double kPi = 3.141592653589793;

typedef struct {
  double theta, theta_dot;
} Pendulum;

static const float kHigh[3] = {1.0f, 1.0f, 8.0f}, kLow[3] = {-1.0f, -1.0f, -8.0f};
static const float kMostTorque[1] = {2.0f}, kLeastTorque[1] = {-2.0f};
static const ClipperEnvSpec kSpec = {CLIPPER_ENV_ABI, 200, "Pendulum-v1",
                                     {CLIPPER_BOX, 3, kLow, kHigh, NULL},
                                     {CLIPPER_BOX, 1, kLeastTorque, kMostTorque, NULL}};

const ClipperEnvSpec *clipper_env_spec(void) { return &kSpec; }

void *clipper_env_create(const char *options) {
  (void)options;
  return calloc(1, sizeof(Pendulum));
}

void clipper_env_close(void *env) { free(env); }

static void observe(const Pendulum *s, float *obs) {
  obs[0] = (float)cos(s->theta);
  obs[1] = (float)sin(s->theta);
  obs[2] = (float)s->theta_dot;
}

int32_t clipper_env_reset(void *env, uint64_t seed, float *obs) {
  Pendulum *s = env;
  Pcg64 rng;
  pcg64_seed(&rng, seed);
  s->theta = pcg64_uniform(&rng, -kPi, kPi);
  s->theta_dot = pcg64_uniform(&rng, -1.0, 1.0);
  observe(s, obs);
  return 0;
}

/* numpy's x ** 2 of a single number: the C library's pow, which is not always x * x */
static volatile double kTwo = 2.0;

/* Python's x % y for y > 0 */
static double modulo(double x, double y) {
  const double rest = fmod(x, y);
  return rest < 0 ? rest + y : rest;
}

int32_t clipper_env_step(void *env, const float *action, float *obs, ClipperStep *result) {
  Pendulum *s = env;
  const double gravity = 10.0, dt = 0.05, max_speed = 8.0;
  float torque = action[0] < -2.0f ? -2.0f : action[0];
  torque = torque > 2.0f ? 2.0f : torque;
  const double angle = modulo(s->theta + kPi, 2 * kPi) - kPi;
  const double costs = pow(angle, kTwo) + 0.1 * pow(s->theta_dot, kTwo) +
                       (double)(0.001f * powf(torque, (float)kTwo));
  double speed =
      s->theta_dot + (3 * gravity / 2 * sin(s->theta) + (double)(3.0f * torque)) * dt;
  speed = speed < -max_speed ? -max_speed : speed;
  speed = speed > max_speed ? max_speed : speed;
  s->theta = s->theta + speed * dt;
  s->theta_dot = speed;
  observe(s, obs);
  result->reward = -costs;
  return 0;
}
