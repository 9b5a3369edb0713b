// Actions of environments in a shared library in, observations, rewards and endings out.
#include "environments.hpp"

#include <dlfcn.h>

#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

#include "moments.hpp"

namespace clipper {

namespace {

template <typename Function>
Function find(void* handle, const char* name, const std::string& path, bool is_required = true) {
  void* const found = dlsym(handle, name);
  if (found == nullptr && is_required)
    throw std::runtime_error(path + " must export " + name + ", but does not");
  return reinterpret_cast<Function>(found);
}

int64_t columns(const ClipperSpace& space) {
  return space.kind == CLIPPER_DISCRETE ? space.categories[0] : space.size;
}

// Where a library is being called from; null outside it.
struct Call {
  const std::string* path;
  const char* function;
  int64_t env, episode, step;
};
thread_local const Call* current_call = nullptr;

// Not 0 while Python itself calls a library.
int32_t is_called_by_python = 0;

// Holds while a library is called, for the case that it does not return.
class Calling {
 public:
  explicit Calling(const Call* call) { current_call = call; }
  ~Calling() { current_call = nullptr; }
  Calling(const Calling&) = delete;
  Calling& operator=(const Calling&) = delete;
};

// A library that calls exit would end the command as if all were done.
void refuse_exit() {
  if (current_call == nullptr) {
    if (is_called_by_python == 0) return;
    std::fprintf(stderr,
                 "error: the library of an environment must not end the process, but called exit.\n\n"
                 "hint: return a number other than 0 for a failure.\n");
    std::fflush(stderr);
    _exit(3);
  }
  const Call& call = *current_call;
  std::fprintf(stderr, "error: %s must not end the process, but called exit in %s",
               call.path->c_str(), call.function);
  if (call.env >= 0)
    std::fprintf(stderr, " (environment %lld, episode %lld, step %lld)",
                 static_cast<long long>(call.env), static_cast<long long>(call.episode),
                 static_cast<long long>(call.step));
  std::fprintf(stderr, ".\n\nhint: return a number other than 0 for a failure.\n");
  std::fflush(stderr);
  _exit(3);
}

// What a library's function returns, or 1 and in words what it threw instead.
template <typename Function>
int32_t returned(const Call* call, Function function, std::string* thrown) {
  const Calling calling(call);
  try {
    return function();
  } catch (const std::exception& error) {
    *thrown = std::string("it threw an exception, ") + error.what();
  } catch (...) {
    *thrown = "it threw an exception";
  }
  return 1;
}

}  // namespace

EnvLibrary::EnvLibrary(const std::string& path) {
  void* const handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) throw std::runtime_error(dlerror());
  spec = find<decltype(&clipper_env_spec)>(handle, "clipper_env_spec", path)();
  if (spec == nullptr || spec->abi != CLIPPER_ENV_ABI)
    throw std::runtime_error(path + " must have the version of clipper_env.h that Clipper has");
  create = find<decltype(create)>(handle, "clipper_env_create", path);
  reset = find<decltype(reset)>(handle, "clipper_env_reset", path);
  step = find<decltype(step)>(handle, "clipper_env_step", path);
  close = find<decltype(close)>(handle, "clipper_env_close", path);
  error = find<decltype(error)>(handle, "clipper_env_error", path, false);
  watch_exit();
}

int32_t* watch_exit() {
  static const int is_registered = std::atexit(refuse_exit);
  static_cast<void>(is_registered);
  return &is_called_by_python;
}

EnvBatch::EnvBatch(const std::string& path, const std::string& options, int64_t num_envs,
                   int64_t obs_size, int64_t action_size, int64_t max_episode_steps, Stream seeds,
                   const ActionScale& scale, const EnvStates& states)
    : library_(path),
      path_(path),
      obs_size_(obs_size),
      action_size_(action_size),
      max_episode_steps_(max_episode_steps),
      seeds_(seeds),
      env_seeds_(static_cast<size_t>(num_envs), seeds.seed),
      scale_(scale),
      states_(states),
      action_(static_cast<size_t>(action_size)),
      raw_obs_(static_cast<size_t>(num_envs * library_.spec->observation.size)) {
  const ClipperEnvSpec& spec = *library_.spec;
  if (columns(spec.observation) != obs_size || spec.action.size != action_size)
    throw std::runtime_error(path + " must have the spaces that it had before");
  for (int64_t i = 0; i < num_envs; ++i) {
    const Call call{&path_, "clipper_env_create", -1, 0, 0};
    void* const env = [&] {
      const Calling calling(&call);
      return library_.create(options.c_str());
    }();
    if (env == nullptr) {
      std::string text = reason(nullptr);
      for (char& c : text)
        if (static_cast<unsigned char>(c) >= 0x80) c = '?';  // it may be in any encoding
      close();
      throw std::runtime_error(path + " must create environments, but failed: " + text);
    }
    envs_.push_back(env);
  }
}

EnvBatch::~EnvBatch() { close(); }

void EnvBatch::close() {
  const Call call{&path_, "clipper_env_close", -1, 0, 0};
  const Calling calling(&call);
  for (void* env : envs_) library_.close(env);
  envs_.clear();
}

std::string EnvBatch::reason(void* env) const {
  const char* const text = library_.error == nullptr ? nullptr : library_.error(env);
  return text == nullptr ? "it gave no reason" : text;
}

float* EnvBatch::raw_obs(int64_t env) {
  return raw_obs_.data() + env * library_.spec->observation.size;
}

bool EnvBatch::fail(int64_t env, bool in_reset, const std::string& text) {
  failure = {env, in_reset, text};
  return false;
}

// Whether a number is not finite where that is refused; then `failure` tells.
bool EnvBatch::is_refused(int64_t env, bool in_reset, double reward) {
  const auto as_stored = static_cast<float>(reward);
  if (!refuses_not_finite || (is_finite(&as_stored, 1) &&
                              is_finite(states_.obs + env * obs_size_, obs_size_)))
    return false;
  failure = {env, in_reset, "", true, reward};
  return true;
}

// Lays the observation that the library wrote into the environment's row.
bool EnvBatch::observe(int64_t env) {
  float* const row = states_.obs + env * obs_size_;
  const float* const raw = raw_obs(env);
  if (library_.spec->observation.kind == CLIPPER_BOX) {
    for (int64_t k = 0; k < obs_size_; ++k) row[k] = raw[k];
    return true;
  }
  const float index = raw[0];
  if (!(index >= 0 && index < static_cast<float>(obs_size_) && std::floor(index) == index))
    return false;
  for (int64_t k = 0; k < obs_size_; ++k) row[k] = 0;
  row[static_cast<int64_t>(index)] = 1;
  return true;
}

void EnvBatch::reseed(int64_t env, uint64_t seed) {
  env_seeds_[static_cast<size_t>(env)] = seed;
  states_.episodes[env] = -1;
}

bool EnvBatch::begin(int64_t env) {
  const int64_t episode = ++states_.episodes[env];
  states_.returns[env] = 0;
  states_.lengths[env] = 0;
  // as `derived_seed` in randomness.py: 31 bits of the first word
  const auto index = static_cast<uint64_t>(episode);
  const uint32_t purpose = seeds_.purpose + (static_cast<uint32_t>(index >> 32) << 16);
  const uint32_t word =
      philox(env_seeds_[static_cast<size_t>(env)],
             {{purpose, seeds_.first_env + static_cast<uint32_t>(env),
               static_cast<uint32_t>(index), 0}})
          .word[0];
  void* const handle = envs_[static_cast<size_t>(env)];
  const Call call{&path_, "clipper_env_reset", seeds_.first_env + env, episode, 0};
  std::string thrown;
  const auto result = returned(
      &call, [&] { return library_.reset(handle, word >> 1, raw_obs(env)); }, &thrown);
  if (result != 0) return fail(env, true, thrown.empty() ? reason(handle) : thrown);
  if (!observe(env)) return fail(env, true, "the observation is not one of its categories");
  return !is_refused(env, true, 0);
}

// One step of one environment; an observation, a length and a return further.
bool EnvBatch::advance(int64_t env, ActionRow action, ClipperStep* result) {
  for (size_t k = 0; k < action_.size(); ++k) {
    if (action.floats == nullptr) {
      action_[k] = static_cast<float>(action.ints[k]);
      continue;
    }
    const double sampled = action.floats[k];
    double x = scale_.plain ? sampled : sampled * scale_.scale[k] + scale_.centre[k];
    x = x < scale_.low[k] ? scale_.low[k] : x;  // NaN stays NaN, as in numpy
    action_[k] = static_cast<float>(x > scale_.high[k] ? scale_.high[k] : x);
  }
  *result = {};
  void* const handle = envs_[static_cast<size_t>(env)];
  const Call call{&path_, "clipper_env_step", seeds_.first_env + env, states_.episodes[env],
                  states_.lengths[env] + 1};
  std::string thrown;
  const auto code = returned(
      &call, [&] { return library_.step(handle, action_.data(), raw_obs(env), result); }, &thrown);
  if (code != 0) return fail(env, false, thrown.empty() ? reason(handle) : thrown);
  if (!observe(env)) return fail(env, false, "the observation is not one of its categories");
  if (is_refused(env, false, result->reward)) return false;
  states_.returns[env] += result->reward;
  if (++states_.lengths[env] == max_episode_steps_) result->truncated = 1;
  return true;
}

bool EnvBatch::step(int64_t t, ActionRow actions, float* rewards, bool* terminated,
                    bool* truncated) {
  for (int64_t i = 0; i < num_envs(); ++i) {
    const int64_t at = i * action_size_;
    if (!step_one(t, i, {actions.floats ? actions.floats + at : nullptr,
                         actions.ints ? actions.ints + at : nullptr},
                  rewards + i, terminated + i, truncated + i))
      return false;
  }
  return true;
}

bool EnvBatch::step_one(int64_t t, int64_t env, ActionRow action, float* reward, bool* terminated,
                        bool* truncated) {
  ClipperStep result;
  if (position != nullptr) position[1] = env;
  if (!advance(env, action, &result)) return false;
  *reward = static_cast<float>(result.reward);
  *terminated = result.terminated != 0;
  *truncated = result.truncated != 0;
  if (!*terminated && !*truncated) return true;
  endings.push_back({t, env, states_.episodes[env], states_.lengths[env], states_.returns[env],
                     *terminated});
  const float* const row = states_.obs + env * obs_size_;
  final_obs.insert(final_obs.end(), row, row + obs_size_);
  return begin(env);
}

bool EnvBatch::replay(int64_t env, ActionRow actions, int64_t count) {
  for (int64_t t = 0; t < count; ++t) {
    const int64_t at = t * action_size_;
    ClipperStep result;
    if (!advance(env, {actions.floats ? actions.floats + at : nullptr,
                       actions.ints ? actions.ints + at : nullptr}, &result))
      return false;
    if (result.terminated || result.truncated) return false;
  }
  return true;
}

}  // namespace clipper
