/* clipper_env.h: what a shared library exports to be an environment of Clipper, version 1.
 *
 * Plain C types, so that C, C++, Rust, C# and whatever else makes shared libraries can be asked. A
 * library holds one kind of environment and exports the functions declared below; Clipper creates as
 * many environments as it needs and plays them without entering Python. Several may be stepped by one
 * process: nothing but the environment that is given may change in a call.
 *
 *     cc -O2 -shared -fPIC -I"$(python -c 'import clipper; print(clipper.native_include())')" \
 *        mygame.c -o libmygame.so
 *     clipper train ./libmygame.so
 */
#ifndef CLIPPER_ENV_H
#define CLIPPER_ENV_H

#include <stdint.h>

#ifdef __cplusplus
#define CLIPPER_C extern "C"
#else
#define CLIPPER_C
#endif
#if defined(_WIN32)
#define CLIPPER_EXPORT CLIPPER_C __declspec(dllexport)
#else
#define CLIPPER_EXPORT CLIPPER_C __attribute__((visibility("default")))
#endif

/* Written into the spec by the library; a library of another version is refused. */
#define CLIPPER_ENV_ABI 1

/* Kinds of spaces. Observations are Box or Discrete, actions any of them. */
enum { CLIPPER_BOX = 0, CLIPPER_DISCRETE = 1, CLIPPER_MULTI_DISCRETE = 2 };

/* Observations and actions are arrays of `size` floats: the numbers of a Box, or the index (from 0) of
 * the category of each choice as a whole number. */
typedef struct {
  int32_t kind;
  int32_t size;              /* numbers of a Box, 1 for Discrete, choices of MultiDiscrete */
  const float *low;          /* Box: [size] bounds, or null for none; both or neither */
  const float *high;
  const int32_t *categories; /* Discrete and MultiDiscrete: [size], at most 2^24 each; else null */
} ClipperSpace;

/* What an environment is; it lives as long as the library. */
typedef struct {
  uint32_t abi;              /* CLIPPER_ENV_ABI */
  uint32_t max_episode_steps; /* steps after which Clipper truncates an episode, 0 for never */
  const char *name;          /* for messages, UTF-8 */
  ClipperSpace observation;
  ClipperSpace action;       /* Box actions arrive within their bounds */
} ClipperEnvSpec;

/* What a step gave, beside the observation. */
typedef struct {
  double reward;
  int32_t terminated; /* not 0: the episode ended by the environment's own rules */
  int32_t truncated;  /* not 0: it was cut off (max_episode_steps is counted by Clipper) */
} ClipperStep;

/* Functions that return int32_t return 0, or anything else for a failure: it ends the run,
   or in a worker the episode. */

/* Returns what the environment is, the same at every call. */
CLIPPER_EXPORT const ClipperEnvSpec *clipper_env_spec(void);

/* Returns a new environment, or null for a failure. `options` is a JSON object, the `--env-kwargs` of
 * the run, `{}` without; it lives as long as the call. */
CLIPPER_EXPORT void *clipper_env_create(const char *options);

/* Begins an episode and writes its first observation. All that is random in the episode must be a
 * function of the seed: resumed runs play episodes again. */
CLIPPER_EXPORT int32_t clipper_env_reset(void *env, uint64_t seed, float *obs);

/* Plays one step: writes the observation it ended in and what else it gave, which is all 0 before. */
CLIPPER_EXPORT int32_t clipper_env_step(void *env, const float *action, float *obs,
                                        ClipperStep *result);

/* Frees an environment. */
CLIPPER_EXPORT void clipper_env_close(void *env);

/* Optional. Returns what went wrong in the call that failed, UTF-8; after a failed create `env` is
 * null. The text must live until the next call. */
CLIPPER_EXPORT const char *clipper_env_error(void *env);

#endif
