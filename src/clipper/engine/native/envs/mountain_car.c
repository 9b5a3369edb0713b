/* MountainCar-v0 as Gymnasium has it, operation by operation in the same order. */
#include <math.h>
#include <stdlib.h>

#include "clipper_env.h"
#include "numpy_random.h"

typedef struct {
  double position, velocity;
} MountainCar;

static const float kLow[2] = {-1.2f, -0.07f}, kHigh[2] = {0.6f, 0.07f};
static const int32_t kActions[1] = {3};
static const ClipperEnvSpec kSpec = {CLIPPER_ENV_ABI, 200, "MountainCar-v0",
                                     {CLIPPER_BOX, 2, kLow, kHigh, NULL},
                                     {CLIPPER_DISCRETE, 1, NULL, NULL, kActions}};

const ClipperEnvSpec *clipper_env_spec(void) { return &kSpec; }

void *clipper_env_create(const char *options) {
  (void)options;
  return calloc(1, sizeof(MountainCar));
}

void clipper_env_close(void *env) { free(env); }

static void observe(const MountainCar *s, float *obs) {
  obs[0] = (float)s->position;
  obs[1] = (float)s->velocity;
}

int32_t clipper_env_reset(void *env, uint64_t seed, float *obs) {
  MountainCar *s = env;
  Pcg64 rng;
  pcg64_seed(&rng, seed);
  s->position = pcg64_uniform(&rng, -0.6, -0.4);
  s->velocity = 0.0;
  observe(s, obs);
  return 0;
}

static double clipped(double x, double low, double high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

int32_t clipper_env_step(void *env, const float *action, float *obs, ClipperStep *result) {
  MountainCar *s = env;
  const double push = ((double)action[0] - 1.0) * 0.001;
  s->velocity += push + cos(3 * s->position) * -0.0025;
  s->velocity = clipped(s->velocity, -0.07, 0.07);
  s->position = clipped(s->position + s->velocity, -1.2, 0.6);
  if (s->position == -1.2 && s->velocity < 0) s->velocity = 0;
  observe(s, obs);
  result->reward = -1.0;
  result->terminated = s->position >= 0.5 && s->velocity >= 0;
  return 0;
}
