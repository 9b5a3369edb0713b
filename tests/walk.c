/* A walk on 0 .. 9 for tests; macros choose its spaces and what is wrong with it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clipper_env.h"

#ifndef ABI
#define ABI CLIPPER_ENV_ABI
#endif
#ifndef NUM_PLACES
#define NUM_PLACES 10
#endif
#ifndef HIGHEST
#define HIGHEST 9.0f
#endif
#ifndef LIMIT
#define LIMIT 25
#endif

#ifndef NAN_EVERY
#define NAN_EVERY 1
#endif

typedef struct {
  uint64_t noise, seed;
  int place, clock, start;
  char error[100];
} Walk;

#ifdef BOX
static const float low[2] = {0.0f, -1.0f}, high[2] = {HIGHEST, 1.0f};
static const float least[2] = {-1.0f, -3.0f}, most[2] = {3.0f, 3.0f};
#define OBSERVATION {CLIPPER_BOX, 2, low, high, NULL}
#define ACTION {CLIPPER_BOX, 2, least, most, NULL}
#else
static const int32_t places[1] = {NUM_PLACES}, choices[2] = {3, 2};
#define OBSERVATION {CLIPPER_DISCRETE, 1, NULL, NULL, places}
#define ACTION {CLIPPER_MULTI_DISCRETE, 2, NULL, NULL, choices}
#endif

static const ClipperEnvSpec spec = {ABI, LIMIT, "walk", OBSERVATION, ACTION};
const ClipperEnvSpec *clipper_env_spec(void) { return &spec; }

static char create_error[100];

void *clipper_env_create(const char *options) {
  if (strstr(options, "refuse") != NULL) {
    snprintf(create_error, sizeof create_error, "refused %s", options);
    return NULL;
  }
  Walk *walk = calloc(1, sizeof *walk);
  const char *start = strstr(options, "\"start\": ");
  walk->start = start == NULL ? 0 : atoi(start + strlen("\"start\": "));
  return walk;
}

void clipper_env_close(void *env) { free(env); }

#ifndef SILENT
const char *clipper_env_error(void *env) {
  return env == NULL ? create_error : ((Walk *)env)->error;
}
#endif

static double noise(Walk *walk) {
  walk->noise = walk->noise * 6364136223846793005u + 1442695040888963407u;
  return (double)(walk->noise >> 40) / (1 << 24);
}

static void observe(Walk *walk, float *obs) {
  obs[0] = (float)walk->place;
#ifdef FORGETS
  if (walk->clock > 0) return;
#endif
#ifdef BOX
  obs[1] = (float)(2 * noise(walk) - 1);
#endif
#ifdef NAN_AT
  if (walk->clock == NAN_AT && walk->seed % NAN_EVERY == 0) obs[0] = NAN;
#endif
}

int32_t clipper_env_reset(void *env, uint64_t seed, float *obs) {
  Walk *walk = env;
  walk->noise = walk->seed = seed;
  noise(walk);
  walk->place = walk->start + (int)(4 * noise(walk));
  walk->clock = 0;
#ifdef FAIL_RESET
  if (seed % 2 == 1) return 1;
#endif
  observe(walk, obs);
  return 0;
}

#ifndef NO_STEP
int32_t clipper_env_step(void *env, const float *action, float *obs, ClipperStep *result) {
  Walk *walk = env;
  ++walk->clock;
#ifdef FAIL_AT
  if (walk->clock == FAIL_AT) {
#ifdef LATIN
    snprintf(walk->error, sizeof walk->error, "le plancher a \xe9t\xe9 enlev\xe9");
#else
    snprintf(walk->error, sizeof walk->error, "the floor is missing at %d", walk->place);
#endif
    return 7;
  }
#endif
#ifdef EXIT_AT
  if (walk->clock == EXIT_AT) exit(0);
#endif
#ifdef CRASH_AT
  if (walk->clock == CRASH_AT) abort();
#endif
#ifdef BOX
  const double push = action[0] + 0.1 * action[1];
  walk->place += push > 1 ? 1 : push < -0.5 ? -1 : 0;
  result->reward = 0.1 * action[0] - 0.01 * action[1];
#else
  walk->place += ((int)action[0] - 1) * (1 + (int)action[1]) - (noise(walk) < 0.2);
  result->reward = walk->place - 0.1 * action[1];
#endif
  walk->place = walk->place < 0 ? 0 : walk->place > 9 ? 9 : walk->place;
#ifdef INF_AT
  if (walk->clock == INF_AT && walk->seed % NAN_EVERY == 1) result->reward = INFINITY;
#endif
  result->terminated = walk->place == 9;
  result->truncated = walk->clock > 15 && walk->place == 0;
  observe(walk, obs);
  return 0;
}
#endif
