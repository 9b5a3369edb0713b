/* CartPole-v1 as Gymnasium has it, operation by operation in the same order. */
#include <math.h>
#include <stdlib.h>

#include "clipper_env.h"
#include "numpy_random.h"

static const double kPi = 3.141592653589793;
static const double kLimitX = 2.4;
/* 12 degrees; twice that is the bound of the observation */
#define LIMIT_ANGLE (12 * 2 * kPi / 360)

typedef struct {
  double x, x_dot, theta, theta_dot;
} CartPole;

static const float kHigh[4] = {4.8f, INFINITY, 0.41887903f, INFINITY};
static const float kLow[4] = {-4.8f, -INFINITY, -0.41887903f, -INFINITY};
static const int32_t kActions[1] = {2};
static const ClipperEnvSpec kSpec = {CLIPPER_ENV_ABI, 500, "CartPole-v1",
                                     {CLIPPER_BOX, 4, kLow, kHigh, NULL},
                                     {CLIPPER_DISCRETE, 1, NULL, NULL, kActions}};

const ClipperEnvSpec *clipper_env_spec(void) { return &kSpec; }

void *clipper_env_create(const char *options) {
  (void)options;
  return calloc(1, sizeof(CartPole));
}

void clipper_env_close(void *env) { free(env); }

static void observe(const CartPole *s, float *obs) {
  obs[0] = (float)s->x;
  obs[1] = (float)s->x_dot;
  obs[2] = (float)s->theta;
  obs[3] = (float)s->theta_dot;
}

int32_t clipper_env_reset(void *env, uint64_t seed, float *obs) {
  CartPole *s = env;
  Pcg64 rng;
  pcg64_seed(&rng, seed);
  s->x = pcg64_uniform(&rng, -0.05, 0.05);
  s->x_dot = pcg64_uniform(&rng, -0.05, 0.05);
  s->theta = pcg64_uniform(&rng, -0.05, 0.05);
  s->theta_dot = pcg64_uniform(&rng, -0.05, 0.05);
  observe(s, obs);
  return 0;
}

int32_t clipper_env_step(void *env, const float *action, float *obs, ClipperStep *result) {
  CartPole *s = env;
  const double gravity = 9.8, mass_pole = 0.1, total_mass = 0.1 + 1.0, length = 0.5, tau = 0.02;
  const double pole_mass_length = mass_pole * length;
  const double force = action[0] == 1.0f ? 10.0 : -10.0;
  const double cosine = cos(s->theta), sine = sin(s->theta);
  const double temp =
      (force + pole_mass_length * (s->theta_dot * s->theta_dot) * sine) / total_mass;
  const double theta_acc =
      (gravity * sine - cosine * temp) /
      (length * (4.0 / 3.0 - mass_pole * (cosine * cosine) / total_mass));
  const double x_acc = temp - pole_mass_length * theta_acc * cosine / total_mass;
  s->x = s->x + tau * s->x_dot;
  s->x_dot = s->x_dot + tau * x_acc;
  s->theta = s->theta + tau * s->theta_dot;
  s->theta_dot = s->theta_dot + tau * theta_acc;
  observe(s, obs);
  result->reward = 1.0;
  result->terminated = s->x < -kLimitX || s->x > kLimitX || s->theta < -LIMIT_ANGLE ||
                       s->theta > LIMIT_ANGLE;
  return 0;
}
