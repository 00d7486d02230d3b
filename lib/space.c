/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "space.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>

#include "units.h"

#define get(object)        atomic_load_explicit (&(object), memory_order_acquire)
#define set(object, value) atomic_store_explicit (&(object), (value), memory_order_release)

/* Readers that saw any of what is stored between these two look again: every store is a release, behind the odd
 * version, and every load an acquire, before the second look at it. */
static void
begin_change (struct space *s)
{
  set (s->version, get (s->version) + 1);
}

static void
end_change (struct space *s)
{
  set (s->version, get (s->version) + 1);
}

static void
copy_range (struct space_range *to, const struct space_range *from)
{
  set (to->first, get (from->first));
  set (to->end, get (from->end));
  set (to->owner, get (from->owner));
}

/* Find the first gap: where it starts, and the range that it is before. */
static int
find_gap (const struct space *s, uint32_t nslots, uint64_t *start, unsigned *at)
{
  unsigned n = get (s->n);

  if (n == SPACE_MAX)
    return -EMFILE;
  *start = 1; /* slot 0 does not exist */
  for (*at = 0; *at < n; ++*at) {
    if (*start + nslots < get (s->range[*at].first)) /* and a guard before the next */
      break;
    *start = (uint64_t) get (s->range[*at].end) + 1;
  }
  return *start + nslots > (uint64_t) SLOT_MAX + 1 ? -EFBIG : 0;
}

int
space_check (const struct space *s, uint32_t nslots)
{
  uint64_t start;
  unsigned at;

  return find_gap (s, nslots, &start, &at);
}

static void
insert_before (struct space *s, unsigned at, uint32_t first, uint32_t nslots, void *owner)
{
  unsigned n = get (s->n);

  begin_change (s);
  for (unsigned i = n; i > at; i--)
    copy_range (&s->range[i], &s->range[i - 1]);
  set (s->range[at].first, first);
  set (s->range[at].end, first + nslots);
  set (s->range[at].owner, owner);
  set (s->n, n + 1);
  end_change (s);
}

int
space_insert (struct space *s, uint32_t nslots, void *owner, uint32_t *first)
{
  unsigned at;
  uint64_t start;
  int ret = find_gap (s, nslots, &start, &at);

  if (ret < 0)
    return ret;
  insert_before (s, at, (uint32_t) start, nslots, owner);
  *first = (uint32_t) start;
  return 0;
}

int
space_insert_at (struct space *s, uint32_t first, uint32_t nslots, void *owner)
{
  uint64_t end = (uint64_t) first + nslots;
  unsigned n = get (s->n), at = 0;

  if (first == 0 || nslots == 0 || end > (uint64_t) SLOT_MAX + 1)
    return -EINVAL;
  if (n == SPACE_MAX)
    return -EMFILE;
  while (at < n && get (s->range[at].end) < first) /* a guard lies between */
    at++;
  if (at < n && get (s->range[at].first) <= end)
    return -EEXIST;
  insert_before (s, at, first, nslots, owner);
  return 0;
}

int
space_remove (struct space *s, uint32_t first)
{
  unsigned n = get (s->n), at = 0;

  while (at < n && get (s->range[at].first) != first)
    at++;
  if (at == n)
    return -ENOENT;
  begin_change (s);
  for (unsigned i = at; i + 1 < n; i++)
    copy_range (&s->range[i], &s->range[i + 1]);
  set (s->n, n - 1);
  end_change (s);
  return 0;
}

/* One look, which is right if the array did not change meanwhile. */
static void *
look (const struct space *s, uint32_t slot, uint32_t *first)
{
  unsigned low = 0, high = get (s->n);

  while (low < high) { /* the last range that begins at or before slot is in [low - 1, high) */
    unsigned middle = (low + high) / 2;

    if (get (s->range[middle].first) <= slot)
      low = middle + 1;
    else
      high = middle;
  }
  if (low == 0 || slot >= get (s->range[low - 1].end))
    return NULL;
  *first = get (s->range[low - 1].first);
  return get (s->range[low - 1].owner);
}

void *
space_lookup (const struct space *s, uint32_t slot, uint32_t *first)
{
  uint32_t found_first = 0;
  unsigned version;
  void *owner;

  do {
    version = get (s->version);
    owner = look (s, slot, &found_first);
  } while ((version & 1) || get (s->version) != version);
  if (owner)
    *first = found_first;
  return owner;
}
