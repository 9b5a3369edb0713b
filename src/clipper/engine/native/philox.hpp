// Counted random numbers, the same as randomness.py gives; see there for what the words mean.
#pragma once

#include <cstdint>
#include <vector>

namespace clipper {

struct Counter {
  uint32_t word[4];
};

Counter philox(uint64_t seed, Counter counter);

// What a draw is for: a purpose, and a step for every env.
struct Stream {
  uint64_t seed;
  uint32_t purpose;
  uint32_t first_env = 0;
};

// Fill out[step][env][size] for steps from `first_step` and envs from `first_env` on.
void uniform_block(Stream, uint64_t first_step, int64_t num_steps, int64_t num_envs, int64_t size,
                   float* out);
void normal_block(Stream, uint64_t first_step, int64_t num_steps, int64_t num_envs, int64_t size,
                  float* out);

// A random order of 0 .. size - 1: the ranks of 64-bit words, ties by position.
class Shuffler {
 public:
  void permute(Stream, uint32_t stream, uint64_t index, int64_t size, int64_t* order);

 private:
  struct Item {
    uint64_t key;
    int64_t index;
  };
  std::vector<uint64_t> keys_;
  std::vector<Item> sorted_;
  std::vector<int64_t> starts_;
};

}  // namespace clipper
