/* SPDX-License-Identifier: BSD-3-Clause
 *
 * random.h - random numbers that come again, and how long the random tests are.
 *
 * DRUM_TEST_SEED (default 1) is where every generator starts, and every failure prints it.
 * DRUM_TEST_SCALE (default 1) multiplies the steps of the random tests: 0.1 for a sanitizer, 50 for a night.
 */
#ifndef DRUM_TESTS_RANDOM_H
#define DRUM_TESTS_RANDOM_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct rng {
  uint64_t state;
};

/* splitmix64 */
static inline uint64_t
rng_next (struct rng *rng)
{
  uint64_t z = rng->state += UINT64_C (0x9e3779b97f4a7c15);

  z = (z ^ z >> 30) * UINT64_C (0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C (0x94d049bb133111eb);
  return z ^ z >> 31;
}

/* 0 to n - 1 */
static inline uint64_t
rng_below (struct rng *rng, uint64_t n)
{
  return rng_next (rng) % n;
}

static inline void
rng_fill (struct rng *rng, void *buf, size_t len)
{
  unsigned char *p = buf;

  for (; len >= 8; p += 8, len -= 8)
    memcpy (p, &(uint64_t){ rng_next (rng) }, 8);
  memcpy (p, &(uint64_t){ rng_next (rng) }, len);
}

static inline uint64_t
random_seed (void)
{
  const char *s = getenv ("DRUM_TEST_SEED");

  return s && *s ? strtoull (s, NULL, 0) : 1;
}

/* A generator of its own for each who; the same in every run with the same seed. */
static inline struct rng
rng_for (uint64_t who)
{
  struct rng rng = { random_seed () * UINT64_C (1000003) + who };

  rng_next (&rng);
  return rng;
}

static inline unsigned
random_steps (unsigned steps)
{
  const char *s = getenv ("DRUM_TEST_SCALE");
  double scaled = steps * (s && *s ? strtod (s, NULL) : 1.0);

  return scaled < 1 ? 1 : scaled;
}

#endif
