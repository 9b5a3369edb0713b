// An environment that throws in its third step, or with THROW_IN_RESET in its second episode.
#include <stdexcept>

#include "clipper_env.h"

namespace {
struct Env {
  int steps = 0, episodes = 0;
};
const float low[1] = {-1.0f}, high[1] = {1.0f};
const int32_t choices[1] = {2};
const ClipperEnvSpec spec = {CLIPPER_ENV_ABI, 2, "throws", {CLIPPER_BOX, 1, low, high, nullptr},
                             {CLIPPER_DISCRETE, 1, nullptr, nullptr, choices}};
}  // namespace

extern "C" {
const ClipperEnvSpec *clipper_env_spec() { return &spec; }
void *clipper_env_create(const char *) { return new Env; }
void clipper_env_close(void *env) { delete static_cast<Env *>(env); }

int32_t clipper_env_reset(void *env, uint64_t, float *obs) {
  const int episodes = ++static_cast<Env *>(env)->episodes;
#ifdef THROW_IN_RESET
  if (episodes == 2) throw episodes;
#endif
  obs[0] = 0.0f;
  return episodes == 0;
}

int32_t clipper_env_step(void *env, const float *, float *obs, ClipperStep *) {
  if (++static_cast<Env *>(env)->steps == 3) throw std::runtime_error("a gear is broken");
  obs[0] = 0.0f;
  return 0;
}
}
