/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "bounce.h"

#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "devio.h"
#include "memlock.h"
#include "mutex.h"

enum { POOL_BYTES = BOUNCE_BUFFERS * DEVIO_BUFFER_BYTES };

struct bounce {
  char *pool;
  sem_t free;         /* how many are */
  struct mutex mutex; /* all below */
  unsigned nfree;
  void *buffer[BOUNCE_BUFFERS];
};

int
bounce_create (struct bounce **bp)
{
  struct bounce *b = calloc (1, sizeof *b);

  if (!b)
    return -ENOMEM;
  b->pool = mmap (NULL, POOL_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (b->pool == MAP_FAILED) {
    free (b);
    return -ENOMEM;
  }
  madvise (b->pool, POOL_BYTES, MADV_DONTDUMP);
  sem_init (&b->free, 0, BOUNCE_BUFFERS);
  mutex_init (&b->mutex);
  while (b->nfree < BOUNCE_BUFFERS) {
    b->buffer[b->nfree] = b->pool + (size_t) b->nfree * DEVIO_BUFFER_BYTES;
    b->nfree++;
  }
  *bp = b;
  return 0;
}

void
bounce_destroy (struct bounce *b)
{
  mutex_destroy (&b->mutex);
  sem_destroy (&b->free);
  munmap (b->pool, POOL_BYTES);
  free (b);
}

int
bounce_touch (struct bounce *b)
{
  return memlock_touch (b->pool, POOL_BYTES);
}

/* => one is free, for this thread. */
static void *
take (struct bounce *b)
{
  void *buffer;

  mutex_lock (&b->mutex);
  buffer = b->buffer[--b->nfree]; /* the one that was used last: it is the warmest */
  mutex_unlock (&b->mutex);
  return buffer;
}

void *
bounce_get (struct bounce *b)
{
  while (sem_wait (&b->free) == -1 && errno == EINTR)
    ;
  return take (b);
}

void *
bounce_try_get (struct bounce *b)
{
  int ret;

  while ((ret = sem_trywait (&b->free)) == -1 && errno == EINTR)
    ;
  return ret == 0 ? take (b) : NULL;
}

void
bounce_put (struct bounce *b, void *buffer)
{
  mutex_lock (&b->mutex);
  b->buffer[b->nfree++] = buffer;
  mutex_unlock (&b->mutex);
  sem_post (&b->free);
}
