/* SPDX-License-Identifier: BSD-3-Clause
 *
 * model.c - see model.h.
 */
#include <config.h>

#include "model.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include <criterion/criterion.h>

#include "tests/stamp.h"

#include "client.h"
#include "dev.h"

enum {
  HOT = 240, /* pages of each region, written much more than the others */
  MAX_RUN = 300,
};

struct model model;

static struct worker workers[MODEL_CLIENTS];
static unsigned char shadow[MODEL_PAGES * PAGE_BYTES];
static bool lost[MODEL_PAGES]; /* known to be */
static atomic_bool may_be_lost[MODEL_PAGES];
static atomic_uint nfaulty;       /* model_begin_faulty */
static atomic_uint nfaulty_begun; /* how often; first this, then nfaulty */

/* A change of whole pages: what the server has for them is to become next. */
struct change {
  unsigned first, n; /* pages of the export */
  unsigned char next[MAX_RUN * PAGE_BYTES];
  size_t offset, len; /* of what is changed, in next */
  enum { WRITE, TRIM, ZERO } kind;
  uint32_t flags;
};

static unsigned char *
shadow_of (unsigned page)
{
  return shadow + (size_t) page * PAGE_BYTES;
}

/* Mostly a few pages; in a corner that is written again and again, or anywhere. */
static void
choose_pages (struct worker *w, bool hot, unsigned *first, unsigned *n)
{
  static const unsigned most[] = { 1, 4, 4, 16, 16, 40, MAX_RUN };
  unsigned room = hot ? HOT : MODEL_REGION;

  *n = 1 + rng_below (&w->rng, most[rng_below (&w->rng, 7)]);
  if (*n > room)
    *n = room;
  *first = w->index * MODEL_REGION + rng_below (&w->rng, room - *n + 1);
}

/* Where in its pages the change is: all of them, or any bytes. */
static void
choose_bytes (struct worker *w, struct change *c, bool part)
{
  c->offset = 0;
  c->len = c->n * PAGE_BYTES;
  if (part) {
    c->offset = rng_below (&w->rng, c->len);
    c->len = 1 + rng_below (&w->rng, c->len - c->offset);
  }
}

static void
choose_change (struct worker *w, struct change *c, uint32_t sequence)
{
  static _Thread_local unsigned char data[MAX_RUN * PAGE_BYTES];
  unsigned dice = rng_below (&w->rng, 100);
  bool hot = rng_below (&w->rng, 32);
  unsigned nwrites = atomic_load (&model.growing) ? 100 : 20;

  /* All of it once; and of what is not hot little later on, so that it is moved more often than written. */
  c->first = w->index * MODEL_REGION + (sequence - 1) * MAX_RUN;
  c->n = MODEL_REGION - (sequence - 1) * MAX_RUN;
  if (sequence > (MODEL_REGION - 1) / MAX_RUN + 1)
    choose_pages (w, hot, &c->first, &c->n);
  else if (c->n > MAX_RUN)
    c->n = MAX_RUN;
  c->kind = !hot || dice < nwrites ? WRITE : dice % 2 ? TRIM : ZERO;
  c->flags = rng_below (&w->rng, 2) && c->kind == ZERO ? LIBNBD_CMD_FLAG_NO_HOLE : 0;
  choose_bytes (w, c, c->kind != TRIM && rng_below (&w->rng, 4) == 0);
  if (c->kind == WRITE && dice != 0)
    for (unsigned i = 0; i < c->n; i++)
      stamp_fill (data + i * PAGE_BYTES, (struct stamp){ w->index + 1, sequence, c->first + i });
  else
    memset (data, 0, c->n * PAGE_BYTES);
  memcpy (c->next, shadow_of (c->first), c->n * PAGE_BYTES);
  memcpy (c->next + c->offset, data + c->offset, c->len);
}

/* Could a read fail now, or while something that began with this was under way? */
struct faulty {
  bool before;
  unsigned nbegun;
};

static struct faulty
faulty_begin (void)
{
  return (struct faulty){ .before = atomic_load (&nfaulty),
                          .nbegun = atomic_load (&nfaulty_begun) };
}

static bool
faulty_end (struct faulty faulty)
{
  return faulty.before || atomic_load (&nfaulty_begun) != faulty.nbegun;
}

void
model_begin_faulty (void)
{
  atomic_fetch_add (&nfaulty_begun, 1);
  atomic_fetch_add (&nfaulty, 1);
}

void
model_end_faulty (void)
{
  atomic_fetch_sub (&nfaulty, 1);
}

void
model_may_lose (uint64_t page)
{
  cr_assert_lt (page, MODEL_PAGES);
  atomic_store (&may_be_lost[page], true);
}

/* A page is an error though nothing makes it one now. May it be? */
static bool
find_lost (unsigned page)
{
  if (atomic_exchange (&may_be_lost[page], false) && !lost[page]) {
    lost[page] = true;
    atomic_fetch_add (&model.nlost, 1);
  }
  return lost[page];
}

/* It has been written. */
static void
is_found (unsigned page)
{
  lost[page] = false;
  atomic_store (&may_be_lost[page], false);
}

/* This is what the server has: it must be as the shadow has it, or as next has it (unless that is NULL). */
static void
compare_page (struct worker *w, unsigned page, const unsigned char *seen, const unsigned char *next)
{
  struct stamp stamp;

  if (next && memcmp (seen, next, PAGE_BYTES) == 0) {
    memcpy (shadow_of (page), seen, PAGE_BYTES);
    is_found (page);
  } else if (lost[page] || memcmp (seen, shadow_of (page), PAGE_BYTES) != 0) {
    stamp_read (seen, &stamp);
    worker_fail (w,
                 "page %u holds other bytes than were written: they begin with writer %u, sequence "
                 "%u, page %" PRIu64 "%s",
                 page, stamp.writer, stamp.sequence, stamp.page, lost[page] ? "; it was lost" : "");
  }
}

/* Read pages and compare them; the shadow is as they are then. One that is an error, and may be, is read until it is not. */
static void
check_pages (struct worker *w, unsigned first, unsigned n, const unsigned char *next)
{
  static _Thread_local unsigned char seen[MAX_RUN * PAGE_BYTES];

  for (;;) {
    struct faulty faulty = faulty_begin ();

    if (nbd_pread (w->nbd, seen, n * PAGE_BYTES, (uint64_t) first * PAGE_BYTES, 0) == 0)
      break;
    if (nbd_get_errno () == EIO && n > 1) {
      for (unsigned i = 0; i < n && !worker_failed (w); i++)
        check_pages (w, first + i, 1, next ? next + i * PAGE_BYTES : NULL);
      return;
    }
    if (nbd_get_errno () == EIO && faulty_end (faulty)) {
      atomic_fetch_add (&model.nunread, 1);
      nanosleep (&(struct timespec){ .tv_nsec = 20000000 }, NULL);
      continue;
    }
    if (nbd_get_errno () != EIO || !find_lost (first))
      worker_fail (w, "read of %u pages at %u: %s", n, first, nbd_get_error ());
    return;
  }
  for (unsigned i = 0; i < n && !worker_failed (w); i++)
    compare_page (w, first + i, seen + i * PAGE_BYTES, next ? next + i * PAGE_BYTES : NULL);
}

static int
send_change (struct worker *w, const struct change *c)
{
  uint64_t at = (uint64_t) c->first * PAGE_BYTES + c->offset;

  switch (c->kind) {
  case WRITE:
    return nbd_pwrite (w->nbd, c->next + c->offset, c->len, at, c->flags);
  case TRIM:
    return nbd_trim (w->nbd, c->len, at, c->flags);
  default:
    return nbd_zero (w->nbd, c->len, at, c->flags);
  }
}

/* It is done: pages of it that were lost are not, but those of which it wrote only a part can't have been. */
static void
apply_change (struct worker *w, const struct change *c)
{
  for (unsigned i = 0; i < c->n; i++) {
    size_t at = i * PAGE_BYTES;
    bool touched = at + PAGE_BYTES > c->offset && at < c->offset + c->len;
    bool whole = at >= c->offset && at + PAGE_BYTES <= c->offset + c->len;

    if (touched && !whole && lost[c->first + i])
      worker_fail (w, "page %u was lost, and a part of it could be written", c->first + i);
    if (whole)
      is_found (c->first + i);
  }
  memcpy (shadow_of (c->first), c->next, c->n * PAGE_BYTES);
}

/* Does it change only parts of pages, of which one may be lost, or now an error? */
static bool
may_be_unreadable (const struct change *c, struct faulty faulty)
{
  bool any = faulty_end (faulty);

  for (unsigned i = 0; i < c->n; i++)
    any = any || lost[c->first + i] || atomic_load (&may_be_lost[c->first + i]);
  return any && (c->offset % PAGE_BYTES || c->len % PAGE_BYTES);
}

static void
make_change (struct worker *w, struct change *c, uint32_t sequence)
{
  bool was_tight = atomic_load (&model.tight);
  struct faulty faulty = faulty_begin ();
  int error;

  choose_change (w, c, sequence);
  if (send_change (w, c) == 0) {
    apply_change (w, c);
    return;
  }
  error = nbd_get_errno ();
  if (error == ENOSPC && (was_tight || atomic_load (&model.tight)))
    atomic_fetch_add (&model.nrefused, 1);
  else if (error == EIO && may_be_unreadable (c, faulty))
    atomic_fetch_add (&model.nunread, 1);
  else {
    worker_fail (w, "change %d of %zu bytes at page %u: %s", c->kind, c->len, c->first,
                 nbd_get_error ());
    return;
  }
  check_pages (w, c->first, c->n, c->next);
}

static void
client_main (struct worker *w)
{
  struct change *change = malloc (sizeof *change);
  unsigned first, n;

  for (uint32_t sequence = 0; !atomic_load (&model.stop) && !worker_failed (w);) {
    if (rng_below (&w->rng, 5) < 2) {
      choose_pages (w, rng_below (&w->rng, 2), &first, &n);
      check_pages (w, first, n, NULL);
    } else
      make_change (w, change, ++sequence);
    atomic_fetch_add (&model.nrequests, 1);
  }
  if (worker_failed (w))
    atomic_store (&model.failed, true);
  free (change);
}

void
model_start (const struct server *srv)
{
  for (unsigned i = 0; i < MODEL_CLIENTS; i++)
    workers[i].main = client_main;
  workers_start (srv, workers, MODEL_CLIENTS);
}

void
model_join (void)
{
  workers_join (workers, MODEL_CLIENTS);
}

uint64_t
model_check (struct nbd_handle *nbd)
{
  static const unsigned char zeroes[PAGE_BYTES];
  unsigned char seen[PAGE_BYTES];
  uint64_t nused = 0;

  for (unsigned page = 0; page < MODEL_PAGES; page++) {
    if (nbd_pread (nbd, seen, PAGE_BYTES, (uint64_t) page * PAGE_BYTES, 0) == -1) {
      cr_assert_eq (nbd_get_errno (), EIO, "page %u: %s", page, nbd_get_error ());
      cr_assert (find_lost (page), "page %u can't be read (DRUM_TEST_SEED=%" PRIu64 ")", page,
                 random_seed ());
      continue;
    }
    cr_assert (!lost[page] && memcmp (seen, shadow_of (page), PAGE_BYTES) == 0,
               "page %u is another in the end (DRUM_TEST_SEED=%" PRIu64 ")", page, random_seed ());
    nused += memcmp (seen, zeroes, PAGE_BYTES) != 0;
  }
  return nused;
}
