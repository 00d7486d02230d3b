/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "longadd.h"

#include <fcntl.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>

static atomic_bool adds_wait;
static sem_t add_waits, add_goes_on;

int __real_fallocate (int fd, int mode, off_t offset, off_t n);
int __wrap_fallocate (int fd, int mode, off_t offset, off_t n);

int
__wrap_fallocate (int fd, int mode, off_t offset, off_t n)
{
  if (atomic_load (&adds_wait)) {
    sem_post (&add_waits);
    while (sem_wait (&add_goes_on) == -1)
      ;
  }
  return __real_fallocate (fd, mode, offset, n);
}

void
longadd_setup (void)
{
  sem_init (&add_waits, 0, 0);
  sem_init (&add_goes_on, 0, 0);
}

void
longadd_begin (void)
{
  atomic_store (&adds_wait, true);
}

void
longadd_await (void)
{
  sem_wait (&add_waits);
}

void
longadd_end (unsigned n)
{
  atomic_store (&adds_wait, false);
  while (n-- > 0)
    sem_post (&add_goes_on);
}
