/* A seed in, the numbers of numpy.random.default_rng(seed) out: SeedSequence (O'Neill's seed_seq_fe)
 * and PCG64 (O'Neill 2014, XSL-RR 128/64), so that an episode starts where Gymnasium's would. */
#ifndef CLIPPER_NUMPY_RANDOM_H
#define CLIPPER_NUMPY_RANDOM_H

#include <stdint.h>

__extension__ typedef unsigned __int128 Word128;

typedef struct {
  Word128 state, increment;
} Pcg64;

static inline uint32_t numpy_hash(uint32_t value, uint32_t *constant, uint32_t multiplier) {
  value ^= *constant;
  *constant *= multiplier;
  value *= *constant;
  return value ^ value >> 16;
}

static inline void pcg64_advance(Pcg64 *rng) {
  const Word128 multiplier = (Word128)2549297995355413924u << 64 | 4865540595714422341u;
  rng->state = rng->state * multiplier + rng->increment;
}

static inline void pcg64_seed(Pcg64 *rng, uint64_t seed) {
  const uint32_t entropy[4] = {(uint32_t)seed, (uint32_t)(seed >> 32), 0, 0};
  uint32_t pool[4], constant = 0x43b0d7e5u;
  for (int i = 0; i < 4; ++i) pool[i] = numpy_hash(entropy[i], &constant, 0x931e8875u);
  for (int from = 0; from < 4; ++from)
    for (int to = 0; to < 4; ++to) {
      if (from == to) continue;
      const uint32_t hashed = numpy_hash(pool[from], &constant, 0x931e8875u);
      const uint32_t mixed = 0xca01f9ddu * pool[to] - 0x4973f715u * hashed;
      pool[to] = mixed ^ mixed >> 16;
    }
  uint64_t words[4];
  constant = 0x8b51f9ddu;
  for (int i = 0; i < 4; ++i) {
    const uint64_t low = numpy_hash(pool[2 * i % 4], &constant, 0x58f38dedu);
    words[i] = low | (uint64_t)numpy_hash(pool[(2 * i + 1) % 4], &constant, 0x58f38dedu) << 32;
  }
  rng->increment = ((Word128)words[2] << 64 | words[3]) << 1 | 1;
  rng->state = 0;
  pcg64_advance(rng);
  rng->state += (Word128)words[0] << 64 | words[1];
  pcg64_advance(rng);
}

/* Generator.uniform(low, high): low + (high - low) u, u of 53 bits. */
static inline double pcg64_uniform(Pcg64 *rng, double low, double high) {
  pcg64_advance(rng);
  const uint64_t folded = (uint64_t)(rng->state >> 64) ^ (uint64_t)rng->state;
  const unsigned turn = (unsigned)(rng->state >> 122);
  const uint64_t bits = folded >> turn | folded << (-turn & 63);
  return low + (high - low) * ((double)(bits >> 11) * (1.0 / 9007199254740992.0));
}

#endif
