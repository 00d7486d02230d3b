/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "measure.h"

#include <err.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define SEED UINT64_C (88172645463325252)

static uint64_t random_state = SEED;

void
random_begin (void)
{
  random_state = SEED;
}

/* xorshift64* */
uint32_t
random_below (uint32_t end)
{
  random_state ^= random_state >> 12;
  random_state ^= random_state << 25;
  random_state ^= random_state >> 27;
  return (uint32_t) ((random_state * UINT64_C (0x2545F4914F6CDD1D) >> 32) * end >> 32);
}

uint64_t
clock_ns (clockid_t clock)
{
  struct timespec t;

  clock_gettime (clock, &t);
  return (uint64_t) t.tv_sec * 1000000000 + (uint64_t) t.tv_nsec;
}

static int
by_value (const void *a, const void *b)
{
  double x = *(const double *) a, y = *(const double *) b;

  return (x > y) - (x < y);
}

double
median (double *values, unsigned n)
{
  qsort (values, n, sizeof values[0], by_value);
  return values[n / 2];
}

void
make_sparse (const char *path, uint64_t size_bytes)
{
  int fd = open (path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

  if (fd == -1 || ftruncate (fd, (off_t) size_bytes) == -1)
    err (EXIT_FAILURE, "%s", path);
  close (fd);
}
