/* SPDX-License-Identifier: BSD-3-Clause
 *
 * export_threads.c - tests of lib/export.c with many clients at once, over ranges that overlap.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "lib/export.h"
#include "tests/random.h"
#include "tests/scratch.h"
#include "tests/stamp.h"

#include "devices.h"
#include "failed.h"
#include "logged.h"

enum { NTHREADS = 6, MAX_PAGES = 512, MAX_REQUEST = 300 };

static struct drum *drum;
static struct export *export;
static uint64_t npages;
static bool may_be_full;
static unsigned nsteps;

static void
setup (void)
{
  scratch_setup ();
  logged_start ();
  drum = drum_make (16);
}

TestSuite (export_threads, .init = setup, .fini = scratch_teardown, .timeout = 600);

static void
start (uint64_t pages)
{
  struct export_config config = { .name = "", .size_bytes = pages * PAGE_BYTES, .checksum = true };

  npages = pages;
  cr_assert_eq (export_create (drum, &config, &export), 0);
}

static void
run_threads (void *(*thread_main) (void *) )
{
  pthread_t thread[NTHREADS];

  for (uintptr_t i = 0; i < NTHREADS; i++)
    cr_assert_eq (pthread_create (&thread[i], NULL, thread_main, (void *) (i + 1)), 0);
  for (unsigned i = 0; i < NTHREADS; i++)
    pthread_join (thread[i], NULL);
  assert_not_failed ();
}

/* Nothing is left over, and what is used is what is counted. */
static void
finish (void)
{
  cr_assert (drum_check (drum));
  cr_assert_eq (drum_nused (drum), export_npages_used (export));
  cr_assert_eq (export_trim (export, npages * PAGE_BYTES, 0), 0);
  cr_assert_eq (drum_nused (drum), 0);
  cr_assert_eq (export_npages_used (export), 0);
  export_destroy (export);
  drum_destroy (drum);
}

struct client {
  uint32_t writer, sequence;
  struct rng rng;
  char *buf;
  uint32_t (*seen)[NTHREADS + 1]; /* page, writer: the newest sequence that this client read */
};

static void
write_some (struct client *c, uint64_t first, uint64_t n)
{
  int ret;

  c->sequence++;
  for (uint64_t i = 0; i < n; i++)
    stamp_fill (c->buf + i * PAGE_BYTES, (struct stamp){ c->writer, c->sequence, first + i });
  ret = export_write (export, c->buf, n * PAGE_BYTES, first * PAGE_BYTES);
  FAIL_UNLESS (ret == 0 || (may_be_full && ret == -ENOSPC), "write: %s", strerror (-ret));
}

/* Each page is zero, or one version of itself; and no writer's version is older than one seen there before. */
static void
read_some (struct client *c, uint64_t first, uint64_t n)
{
  int ret = export_read (export, c->buf, n * PAGE_BYTES, first * PAGE_BYTES);

  FAIL_UNLESS (ret == 0, "read: %s", strerror (-ret));
  for (uint64_t page = first; page < first + n && !failed; page++) {
    struct stamp stamp;

    FAIL_UNLESS (stamp_read (c->buf + (page - first) * PAGE_BYTES, &stamp),
                 "page %" PRIu64 " is a mixture", page);
    if (stamp_is_zero (&stamp))
      continue;
    FAIL_UNLESS (stamp.page == page, "page %" PRIu64 " is page %" PRIu64, page, stamp.page);
    if (stamp.writer > NTHREADS)
      continue;
    FAIL_UNLESS (stamp.sequence >= c->seen[page][stamp.writer], "page %" PRIu64 " is old", page);
    c->seen[page][stamp.writer] = stamp.sequence;
  }
}

static void *
all_at_once (void *arg)
{
  struct client c = { .writer = (uint32_t) (uintptr_t) arg, .rng = rng_for ((uintptr_t) arg) };

  c.buf = malloc (MAX_REQUEST * PAGE_BYTES);
  c.seen = calloc (MAX_PAGES, sizeof *c.seen);
  for (unsigned step = 0; step < nsteps && !failed; step++) {
    uint64_t n = 1 + rng_below (&c.rng, rng_below (&c.rng, 20) ? 16 : MAX_REQUEST);
    uint64_t first = rng_below (&c.rng, npages), what = rng_below (&c.rng, 100);

    n = n < npages - first ? n : npages - first;
    if (what < 45)
      write_some (&c, first, n);
    else if (what < 85)
      read_some (&c, first, n);
    else if (what < 92)
      export_trim (export, n * PAGE_BYTES, first * PAGE_BYTES);
    else if (what < 97)
      export_zero (export, n * PAGE_BYTES, first * PAGE_BYTES, what % 2);
    else
      export_cache (export, n * PAGE_BYTES, first * PAGE_BYTES);
  }
  free (c.seen);
  free (c.buf);
  return NULL;
}

/* Readers, writers and trimmers of overlapping ranges: pages are never mixed, nor others', nor older than seen. */
Test (export_threads, overlapping_ranges)
{
  drum_add_file (drum, "a", 1, 300);
  drum_add_file (drum, "b", 1, 300);
  drum_add_file (drum, "c", 0, 300);
  nsteps = random_steps (2000);
  start (MAX_PAGES);
  run_threads (all_at_once);
  finish ();
}

/* The same on a drum that is full most of the time. */
Test (export_threads, overlapping_ranges_on_a_full_drum)
{
  drum_add_file (drum, "a", 1, 150);
  drum_add_file (drum, "b", 0, 100);
  may_be_full = true;
  nsteps = random_steps (2000);
  start (MAX_PAGES);
  run_threads (all_at_once);
  finish ();
}

enum { SECTOR_BYTES = 512, SECTORS = PAGE_BYTES / SECTOR_BYTES, NSECTOR_PAGES = 6 };

_Static_assert((int) NTHREADS <= (int) SECTORS, "each thread has a sector of each page");

/* Fill own sectors with a number that grows, and read them: nobody else writes there. */
static void *
own_sectors (void *arg)
{
  uint64_t sector = (uintptr_t) arg - 1;
  struct rng rng = rng_for ((uintptr_t) arg);
  unsigned char value[NSECTOR_PAGES] = { 0 }, data[SECTOR_BYTES], got[SECTOR_BYTES];

  for (unsigned step = 0; step < nsteps && !failed; step++) {
    uint64_t page = rng_below (&rng, NSECTOR_PAGES), at = page * PAGE_BYTES + sector * SECTOR_BYTES;
    bool zero = rng_below (&rng, 8) == 0;
    int ret;

    value[page] = zero ? 0 : (unsigned char) (1 + step % 255);
    memset (data, value[page], sizeof data);
    ret = zero ? export_zero (export, sizeof data, at, false)
               : export_write (export, data, sizeof data, at);
    FAIL_UNLESS (ret == 0, "write: %s", strerror (-ret));
    page = rng_below (&rng, NSECTOR_PAGES);
    at = page * PAGE_BYTES + sector * SECTOR_BYTES;
    ret = export_read (export, got, sizeof got, at);
    memset (data, value[page], sizeof data);
    FAIL_UNLESS (ret == 0 && memcmp (got, data, sizeof got) == 0,
                 "page %" PRIu64 " sector %" PRIu64 " is lost", page, sector);
  }
  return NULL;
}

/* Clients that write different sectors of the same pages at once lose none of them. */
Test (export_threads, sectors_of_one_page)
{
  drum_add_file (drum, "a", 0, 64);
  nsteps = random_steps (8000);
  start (NSECTOR_PAGES);
  run_threads (own_sectors);
  finish ();
}

/* A request longer than a chunk is one for all that overlap with it: a read sees all of it, or nothing. */
static void *
whole_requests (void *arg)
{
  uint32_t writer = (uint32_t) (uintptr_t) arg;
  char *buf = malloc (MAX_REQUEST * PAGE_BYTES);

  for (uint32_t i = 1; i <= nsteps && !failed; i++) {
    struct stamp first = { 0 }, stamp = { 0 };
    int ret;

    for (unsigned page = 0; page < MAX_REQUEST; page++)
      stamp_fill (buf + page * PAGE_BYTES, (struct stamp){ writer, i, page });
    ret = writer % 2 ? export_write (export, buf, MAX_REQUEST * PAGE_BYTES, 0)
                     : export_read (export, buf, MAX_REQUEST * PAGE_BYTES, 0);
    FAIL_UNLESS (ret == 0, "%s", strerror (-ret));
    stamp_read (buf, &first);
    for (unsigned page = 1; page < MAX_REQUEST; page++)
      FAIL_UNLESS (stamp_read (buf + page * PAGE_BYTES, &stamp) && stamp.writer == first.writer &&
                     stamp.sequence == first.sequence,
                   "page %u is of another request than page 0", page);
  }
  free (buf);
  return NULL;
}

/* Reads of many pages see writes of many pages as a whole. */
Test (export_threads, requests_are_atomic)
{
  drum_add_file (drum, "a", 0, 700);
  nsteps = random_steps (150);
  start (MAX_REQUEST);
  run_threads (whole_requests);
  finish ();
}
