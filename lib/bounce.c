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

enum { SMALLS = 128, LARGES = 16 };

const struct bounce_shape bounce_shape[BOUNCE_KINDS] = {
  [BOUNCE_SMALL] = { .bytes = 16 << 10, .n = SMALLS, .share = SMALLS / 4 * 3 },
  [BOUNCE_LARGE] = { .bytes = DEVIO_BUFFER_BYTES, .n = LARGES, .share = LARGES / 4 * 3 },
};

struct pool {
  char *memory;
  sem_t free;         /* how many are */
  struct mutex mutex; /* all below */
  unsigned nfree;
  void *buffer[SMALLS > LARGES ? SMALLS : LARGES];
};

struct bounce {
  struct pool pool[BOUNCE_KINDS];
};

static size_t
pool_bytes (const struct bounce_shape *shape)
{
  return shape->n * shape->bytes;
}

static int
create_pool (struct pool *p, const struct bounce_shape *shape)
{
  size_t bytes = pool_bytes (shape);

  p->memory = mmap (NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p->memory == MAP_FAILED)
    return -ENOMEM;
  madvise (p->memory, bytes, MADV_DONTDUMP);
  sem_init (&p->free, 0, shape->n);
  mutex_init (&p->mutex);
  for (; p->nfree < shape->n; p->nfree++)
    p->buffer[p->nfree] = p->memory + p->nfree * shape->bytes;
  return 0;
}

static void
destroy_pools (struct bounce *b, unsigned n)
{
  while (n-- > 0) {
    mutex_destroy (&b->pool[n].mutex);
    sem_destroy (&b->pool[n].free);
    munmap (b->pool[n].memory, pool_bytes (&bounce_shape[n]));
  }
  free (b);
}

int
bounce_create (struct bounce **bp)
{
  struct bounce *b = calloc (1, sizeof *b);

  if (!b)
    return -ENOMEM;
  for (unsigned i = 0; i < BOUNCE_KINDS; i++)
    if (create_pool (&b->pool[i], &bounce_shape[i]) < 0) {
      destroy_pools (b, i);
      return -ENOMEM;
    }
  *bp = b;
  return 0;
}

void
bounce_destroy (struct bounce *b)
{
  destroy_pools (b, BOUNCE_KINDS);
}

int
bounce_touch (struct bounce *b)
{
  int ret = 0;

  for (unsigned i = 0; i < BOUNCE_KINDS && ret == 0; i++)
    ret = memlock_touch (b->pool[i].memory, pool_bytes (&bounce_shape[i]));
  return ret;
}

enum bounce_kind
bounce_kind (size_t bytes)
{
  enum bounce_kind kind = 0;

  while (kind < BOUNCE_KINDS - 1 && bounce_shape[kind].bytes < bytes)
    kind++;
  return kind;
}

/* => one is free, for this thread. */
static void *
take (struct pool *p)
{
  void *buffer;

  mutex_lock (&p->mutex);
  buffer = p->buffer[--p->nfree]; /* the one that was used last: it is the warmest */
  mutex_unlock (&p->mutex);
  return buffer;
}

void *
bounce_get (struct bounce *b, enum bounce_kind kind)
{
  struct pool *p = &b->pool[kind];

  while (sem_wait (&p->free) == -1 && errno == EINTR)
    ;
  return take (p);
}

void *
bounce_try_get (struct bounce *b, enum bounce_kind kind)
{
  struct pool *p = &b->pool[kind];
  int ret;

  while ((ret = sem_trywait (&p->free)) == -1 && errno == EINTR)
    ;
  return ret == 0 ? take (p) : NULL;
}

void
bounce_put (struct bounce *b, enum bounce_kind kind, void *buffer)
{
  struct pool *p = &b->pool[kind];

  mutex_lock (&p->mutex);
  p->buffer[p->nfree++] = buffer;
  mutex_unlock (&p->mutex);
  sem_post (&p->free);
}
