// A seed and a counter in, random numbers out: Philox4x32-10 (Salmon et al. 2011, "Parallel random
// numbers: as easy as 1, 2, 3").
#include "philox.hpp"

#include <cmath>

namespace clipper {

Counter philox(uint64_t seed, Counter c) {
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * c.word[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57} * c.word[2];
    c = {{static_cast<uint32_t>(product1 >> 32) ^ c.word[1] ^ key0,
          static_cast<uint32_t>(product1),
          static_cast<uint32_t>(product0 >> 32) ^ c.word[3] ^ key1,
          static_cast<uint32_t>(product0)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return c;
}

namespace {

Counter draw(Stream stream, uint32_t env, uint64_t step, uint32_t index) {
  const uint32_t purpose = stream.purpose + (static_cast<uint32_t>(step >> 32) << 16);
  return philox(stream.seed, {{purpose, env, static_cast<uint32_t>(step), index}});
}

// Calls `use(words, first, count, out)` for every four words of every step and env.
template <typename Use>
void for_each_draw(Stream stream, uint64_t first_step, int64_t num_steps, int64_t num_envs,
                   int64_t size, float* out, Use use) {
  for (int64_t t = 0; t < num_steps; ++t)
    for (int64_t n = 0; n < num_envs; ++n, out += size)
      for (int64_t start = 0; start < size; start += 4) {
        const Counter words = draw(stream, stream.first_env + static_cast<uint32_t>(n),
                                   first_step + static_cast<uint64_t>(t),
                                   static_cast<uint32_t>(start / 4));
        use(words, size - start < 4 ? size - start : 4, out + start);
      }
}

}  // namespace

void uniform_block(Stream stream, uint64_t first_step, int64_t num_steps, int64_t num_envs,
                   int64_t size, float* out) {
  for_each_draw(stream, first_step, num_steps, num_envs, size, out,
                [](const Counter& words, int64_t count, float* to) {
                  for (int64_t i = 0; i < count; ++i)  // 24 bits, in [0, 1)
                    to[i] = static_cast<float>(words.word[i] >> 8) * 0x1p-24f;
                });
}

// Box and Muller: words 2i and 2i + 1 give the numbers 2i (cosine) and 2i + 1 (sine).
void normal_block(Stream stream, uint64_t first_step, int64_t num_steps, int64_t num_envs,
                  int64_t size, float* out) {
  for_each_draw(stream, first_step, num_steps, num_envs, size, out,
                [](const Counter& words, int64_t count, float* to) {
                  for (int64_t i = 0; i < count; i += 2) {
                    const double u = (words.word[i] + 0.5) * 0x1p-32;
                    const double w = (words.word[i + 1] + 0.5) * 0x1p-32;
                    const double radius = std::sqrt(-2.0 * std::log(u));
                    const double angle = 6.283185307179586 * w;
                    to[i] = static_cast<float>(radius * std::cos(angle));
                    if (i + 1 < count) to[i + 1] = static_cast<float>(radius * std::sin(angle));
                  }
                });
}

void Shuffler::permute(Stream purpose, uint32_t stream, uint64_t index, int64_t size,
                       int64_t* order) {
  const auto count = static_cast<size_t>(size);
  keys_.resize(count + 1);
  sorted_.resize(count);
  for (size_t i = 0; i < count; i += 2) {
    const Counter c = draw(purpose, stream, index, static_cast<uint32_t>(i / 2));
    keys_[i] = uint64_t{c.word[0]} << 32 | c.word[1];
    keys_[i + 1] = uint64_t{c.word[2]} << 32 | c.word[3];
  }
  // one bucket for about every item by the keys' highest bits, then insertion within the buckets
  int bits = 1;
  while (bits < 24 && (size_t{1} << bits) < count) ++bits;
  starts_.assign((size_t{1} << bits) + 1, 0);
  for (size_t i = 0; i < count; ++i) ++starts_[(keys_[i] >> (64 - bits)) + 1];
  for (size_t b = 1; b < starts_.size(); ++b) starts_[b] += starts_[b - 1];
  for (size_t i = 0; i < count; ++i) {
    const int64_t at = starts_[keys_[i] >> (64 - bits)]++;
    sorted_[static_cast<size_t>(at)] = {keys_[i], static_cast<int64_t>(i)};
  }
  // items with equal keys are in the order of their positions already, and stay so
  for (size_t i = 1; i < count; ++i) {
    const Item item = sorted_[i];
    size_t j = i;
    for (; j > 0 && sorted_[j - 1].key > item.key; --j) sorted_[j] = sorted_[j - 1];
    sorted_[j] = item;
  }
  for (size_t i = 0; i < count; ++i) order[i] = sorted_[i].index;
}

}  // namespace clipper
