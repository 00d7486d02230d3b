/* SPDX-License-Identifier: BSD-3-Clause
 *
 * room.c - a room of 30 hosts on one drum that is less than a seventh of what their exports could hold: all of them write, read and trim at
 * random, and compare every page, while exports come, go, change their size and pass to others.
 *
 * Each host has some ten thousand pages, in runs that are spread over all of its export, and knows what each of them holds: a stamp
 * with the host's own number, so that a page of another's, or of one before, is seen for what it is. One that swaps no more has most of
 * the drum, and the hosts want three times as much as is left: it is full all the time. A third of them has a reserve, and
 * never hears of that as long as it has less.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <criterion/criterion.h>

#include "tests/random.h"
#include "tests/scratch.h"
#include "tests/stamp.h"

#include "livedrum.h"

enum {
  NHOSTS = 30,
  SECONDS = 15,
  NFILES = 8,
  RUN = 32,           /* pages */
  MAX_RUNS = 3000,    /* of a host */
  RESERVED_RUNS = 60, /* every third one */
  MIB = 1 << 20,
  CHUNK_BYTES = 4 * MIB,
  ROOM_BYTES = 400 * MIB, /* for all hosts */
};
#define GIB UINT64_C (0x40000000)

TestSuite (room, .init = livedrum_setup, .fini = livedrum_teardown, .timeout = 900);

enum turn {
  SWAPPING, /* the host has its export */
  WANTED,   /* it is asked to let go of it */
  IDLE,     /* it has */
};

struct host {
  _Atomic enum turn turn;
  char *name;
  uint64_t size_bytes;
  unsigned nruns; /* that it uses */
  bool reserve;
  struct worker *worker;
  /* 0: zeroes. Whoever has the turn has all of these. */
  uint32_t (*sequence)[RUN];
  uint32_t (*writer)[RUN];
  uint32_t last;
  unsigned nused; /* pages that are not zeroes */
  uint64_t nrequests, nfull;
};

static struct host hosts[NHOSTS];
static struct worker workers[NHOSTS];
static atomic_bool stop;
static unsigned nremoved, nresized, nmoved, nrefused;
static struct rng rng;

/* They are spread over the whole export. */
static uint64_t
first_page (unsigned run)
{
  return (uint64_t) run * (10 * GIB / PAGE_BYTES / MAX_RUNS);
}

static void
set_page (struct host *h, unsigned run, unsigned i, uint32_t writer, uint32_t sequence)
{
  h->nused = h->nused + (writer != 0) - (h->writer[run][i] != 0);
  h->writer[run][i] = writer;
  h->sequence[run][i] = sequence;
}

/* Is it what the host knows of it? */
static bool
is_page (const struct host *h, unsigned run, unsigned i, const void *data)
{
  struct stamp stamp;

  return stamp_read (data, &stamp) && stamp.writer == h->writer[run][i] &&
         stamp.sequence == h->sequence[run][i] &&
         stamp.page == (stamp.writer ? first_page (run) + i : 0);
}

static void
complain (struct worker *w, const struct host *h, unsigned run, unsigned i, const void *data)
{
  struct stamp stamp;

  stamp_read (data, &stamp);
  worker_fail (w,
               "%s: page %" PRIu64 " holds writer %u, sequence %u, page %" PRIu64
               " and not writer %u, sequence %u",
               h->name, first_page (run) + i, stamp.writer, stamp.sequence, stamp.page,
               h->writer[run][i], h->sequence[run][i]);
}

static void
read_run (struct worker *w, struct host *h, unsigned run)
{
  static _Thread_local char data[RUN][PAGE_BYTES];

  if (nbd_pread (w->nbd, data, sizeof data, first_page (run) * PAGE_BYTES, 0) == -1) {
    worker_fail (w, "%s: read: %s", h->name, nbd_get_error ());
    return;
  }
  for (unsigned i = 0; i < RUN && !worker_failed (w); i++)
    if (!is_page (h, run, i, data[i]))
      complain (w, h, run, i, data[i]);
}

/* A write found no room for all of it: each page is as it was, or as it was to be. */
static void
see_what_was_written (struct worker *w, struct host *h, unsigned run, unsigned first, unsigned n)
{
  static _Thread_local char data[RUN][PAGE_BYTES];

  if (nbd_pread (w->nbd, data, n * PAGE_BYTES, (first_page (run) + first) * PAGE_BYTES, 0) == -1)
    worker_fail (w, "%s: read: %s", h->name, nbd_get_error ());
  for (unsigned i = 0; i < n && !worker_failed (w); i++)
    if (!is_page (h, run, first + i, data[i])) {
      uint32_t sequence = h->sequence[run][first + i], writer = h->writer[run][first + i];

      set_page (h, run, first + i, w->index + 1, h->last);
      if (!is_page (h, run, first + i, data[i])) {
        set_page (h, run, first + i, writer, sequence);
        complain (w, h, run, first + i, data[i]);
      }
    }
}

static void
write_run (struct worker *w, struct host *h, unsigned run)
{
  static _Thread_local char data[RUN][PAGE_BYTES];
  unsigned first = rng_below (&w->rng, 3) ? 0 : (unsigned) rng_below (&w->rng, RUN);
  unsigned n = first ? 1 + (unsigned) rng_below (&w->rng, RUN - first) : RUN, nnew = 0;

  h->last++;
  for (unsigned i = 0; i < n; i++) {
    stamp_fill (data[i], (struct stamp){ w->index + 1, h->last, first_page (run) + first + i });
    nnew += h->writer[run][first + i] == 0;
  }
  if (nbd_pwrite (w->nbd, data, n * PAGE_BYTES, (first_page (run) + first) * PAGE_BYTES, 0) == 0)
    for (unsigned i = 0; i < n; i++)
      set_page (h, run, first + i, w->index + 1, h->last);
  else if (nbd_get_errno () != ENOSPC)
    worker_fail (w, "%s: write: %s", h->name, nbd_get_error ());
  else if (h->reserve && h->nused + nnew <= RESERVED_RUNS * RUN)
    worker_fail (w,
                 "%s: has %u pages, and %u are reserved for it, but there is no room for %u more",
                 h->name, h->nused, RESERVED_RUNS * RUN, nnew);
  else {
    h->nfull++;
    see_what_was_written (w, h, run, first, n);
  }
}

static void
trim_run (struct worker *w, struct host *h, unsigned run)
{
  if (nbd_trim (w->nbd, (uint64_t) RUN * PAGE_BYTES, first_page (run) * PAGE_BYTES, 0) == -1)
    worker_fail (w, "%s: trim: %s", h->name, nbd_get_error ());
  for (unsigned i = 0; i < RUN; i++)
    set_page (h, run, i, 0, 0);
}

/* Where nobody ever wrote there is nothing. */
static void
read_between (struct worker *w, struct host *h)
{
  static const char zeroes[RUN * PAGE_BYTES];
  static _Thread_local char data[RUN * PAGE_BYTES];
  uint64_t gap = first_page (1) - RUN,
           page = first_page ((unsigned) rng_below (&w->rng, h->nruns)) + RUN +
                  rng_below (&w->rng, gap - RUN);

  if (nbd_pread (w->nbd, data, sizeof data, page * PAGE_BYTES, 0) == -1)
    worker_fail (w, "%s: read: %s", h->name, nbd_get_error ());
  else if (memcmp (data, zeroes, sizeof data) != 0)
    worker_fail (w, "%s: there is something behind page %" PRIu64, h->name, page);
}

static void
do_something (struct worker *w, struct host *h)
{
  unsigned run = (unsigned) rng_below (&w->rng, h->nruns);

  switch (rng_below (&w->rng, 16)) {
  case 0:
    trim_run (w, h, run);
    break;
  case 1:
    read_between (w, h);
    break;
  case 2:
  case 3:
  case 4:
  case 5:
    read_run (w, h, run);
    break;
  default:
    write_run (w, h, run);
  }
  h->nrequests++;
}

/* It lets go of its export, until it may have it back. */
static void
pause_host (struct worker *w, struct host *h)
{
  if (nbd_shutdown (w->nbd, 0) == -1)
    worker_fail (w, "%s: %s", h->name, nbd_get_error ());
  nbd_close (w->nbd);
  atomic_store (&h->turn, IDLE);
  while (atomic_load (&h->turn) == IDLE) /* it may be wanted again by then */
    sched_yield ();
  w->nbd = client_try_open (&srv, h->name);
  if (!w->nbd)
    worker_fail (w, "%s can't be opened: %s", h->name, nbd_get_error ());
  else if (nbd_get_size (w->nbd) != (int64_t) h->size_bytes)
    worker_fail (w, "%s has another size", h->name);
}

static void
host_main (struct worker *w)
{
  struct host *h = w->context;

  while (!atomic_load (&stop) && !worker_failed (w)) {
    do_something (w, h);
    if (atomic_load (&h->turn) == WANTED)
      pause_host (w, h);
  }
}

/* ---- meanwhile ---- */

static bool
any_failed (void)
{
  for (unsigned i = 0; i < NHOSTS; i++)
    if (worker_failed (&workers[i]))
      return true;
  return false;
}

/* False: one has failed, and may never come. */
static bool
take (struct host *h)
{
  atomic_store (&h->turn, WANTED);
  while (atomic_load (&h->turn) != IDLE) {
    if (any_failed ())
      return false;
    sched_yield ();
  }
  while (member_uint (control_export_as (control, h->name), "clients") > 0)
    control_forget ();
  return true;
}

static char *
terms_of (const struct host *h)
{
  return h->reserve ? str (", 'reserve': %u", RESERVED_RUNS * RUN * PAGE_BYTES) : str ("%s", "");
}

static void
forget_runs (struct host *h, unsigned first)
{
  for (unsigned run = first; run < MAX_RUNS; run++)
    for (unsigned i = 0; i < RUN; i++)
      set_page (h, run, i, 0, 0);
}

/* Another one comes in its place, with nothing in it; what it had reserved others may have got meanwhile. */
static void
replace (struct host *h)
{
  json *reply;

  control_run (control, "done", "'verb': 'export-remove', 'export': '%s'", h->name);
  forget_runs (h, 0);
  control_send (control, "'verb': 'export-add', 'export': '%s', 'size': %" PRIu64 "%s", h->name,
                h->size_bytes, terms_of (h));
  reply = control_reply (control);
  if (!json_object_get_boolean (member (reply, "ok"))) {
    expect_str (reply, "errno", "ENOSPC");
    h->reserve = false;
    nrefused++;
    control_ok (control, "'verb': 'export-add', 'export': '%s', 'size': %" PRIu64, h->name,
                h->size_bytes);
  }
  nremoved++;
}

static void
resize (struct host *h)
{
  h->nruns = MAX_RUNS - (unsigned) rng_below (&rng, MAX_RUNS / 4);
  h->size_bytes = first_page (h->nruns) * PAGE_BYTES;
  control_run (control, "done", "'verb': 'export-resize', 'export': '%s', 'size': %" PRIu64,
               h->name, h->size_bytes);
  forget_runs (h, h->nruns);
  nresized++;
}

/* All that one has passes to another, with the stamps of who wrote it. May be refused: what the one has reserved is there no more. */
static void
pass (struct host *from, struct host *to)
{
  uint64_t job;

  if (from->size_bytes > to->size_bytes)
    return;
  job = control_start (control, "'verb': 'export-move', 'from': '%s', 'to': '%s'", from->name,
                       to->name);
  if (strcmp (
        member_str (member (control_ok (control, "'verb': 'wait', 'job': %" PRIu64, job), "job"),
                    "state"),
        "done") != 0) {
    cr_assert (strstr (member_str (control_job (control, job), "error"), "reserved and not used"),
               "%s", member_str (control_job (control, job), "error"));
    nrefused++;
    return;
  }
  for (unsigned run = 0; run < MAX_RUNS; run++)
    for (unsigned i = 0; i < RUN; i++) {
      if (to->writer[run][i] == 0)
        set_page (to, run, i, from->writer[run][i], from->sequence[run][i]);
      set_page (from, run, i, 0, 0);
    }
  nmoved++;
}

static void
change_something (void)
{
  struct host *h = &hosts[rng_below (&rng, NHOSTS)], *other = &hosts[rng_below (&rng, NHOSTS)];

  switch (h == other ? 0 : rng_below (&rng, 8)) {
  case 0:
    if (take (h))
      replace (h);
    break;
  case 1:
  case 2:
  case 3:
    if (take (h))
      resize (h);
    break;
  default:
    if (take (h) && take (other)) {
      pass (h, other);
      atomic_store (&other->turn, SWAPPING);
    }
  }
  atomic_store (&h->turn, SWAPPING);
  control_forget ();
}

/* ---- one that was there first, and has most of the drum ---- */

static struct nbd_handle *hog;
static uint64_t hog_bytes;

static void
make_chunk (unsigned char *chunk, uint64_t at)
{
  memset (chunk, 0x77, CHUNK_BYTES);
  for (uint64_t page = 0; page < CHUNK_BYTES; page += PAGE_BYTES)
    memcpy (chunk + page, &(uint64_t){ at + page }, sizeof at);
}

static void
feed_hog (uint64_t nbytes)
{
  unsigned char *chunk = malloc (CHUNK_BYTES);

  control_ok (control, "'verb': 'export-add', 'export': 'hog', 'size': %" PRIu64, 10 * GIB);
  hog = client_open_as (&srv, "hog");
  for (; hog_bytes < nbytes; hog_bytes += CHUNK_BYTES) {
    make_chunk (chunk, hog_bytes);
    client_write (hog, chunk, CHUNK_BYTES, hog_bytes);
  }
  free (chunk);
}

static void
check_hog (void)
{
  unsigned char *chunk = malloc (CHUNK_BYTES), *seen = malloc (CHUNK_BYTES);

  for (uint64_t at = 0; at < hog_bytes; at += CHUNK_BYTES) {
    make_chunk (chunk, at);
    client_read (hog, seen, CHUNK_BYTES, at);
    cr_assert_eq (memcmp (seen, chunk, CHUNK_BYTES), 0, "hog: another page at %" PRIu64, at);
  }
  client_close (hog);
}

/* ---- the test ---- */

static void
make_host (unsigned i)
{
  struct host *h = &hosts[i];

  h->name = str ("host-%02u", i);
  h->nruns = MAX_RUNS;
  h->size_bytes = first_page (h->nruns) * PAGE_BYTES;
  h->reserve = i % 3 == 0;
  h->sequence = calloc (MAX_RUNS, sizeof *h->sequence);
  h->writer = calloc (MAX_RUNS, sizeof *h->writer);
  cr_assert (h->sequence && h->writer);
  control_ok (control, "'verb': 'export-add', 'export': '%s', 'size': %" PRIu64 "%s", h->name,
              h->size_bytes, terms_of (h));
  workers[i] = (struct worker){ .main = host_main, .context = h, .export = h->name };
}

static bool
has_pages (const struct host *h, unsigned run)
{
  for (unsigned i = 0; i < RUN; i++)
    if (h->writer[run][i] != 0)
      return true;
  return false;
}

/* The accounts are exact, and every page is what it should be. */
static void
check_all (void)
{
  uint64_t nused = hog_bytes / PAGE_BYTES;

  for (unsigned i = 0; i < NHOSTS; i++) {
    struct host *h = &hosts[i];
    struct worker *w = &workers[i];

    w->nbd = client_open_as (&srv, h->name);
    expect_uint (control_export_as (control, h->name), "used", (uint64_t) h->nused * PAGE_BYTES);
    nused += h->nused;
    for (unsigned run = 0; run < h->nruns && !worker_failed (w); run++)
      if (has_pages (h, run) || run % 16 == 0)
        read_run (w, h, run);
    cr_assert_not (worker_failed (w), "%s", w->failure);
    client_close (w->nbd);
    control_forget ();
  }
  expect_uint (control_status (control), "drum.used", nused * PAGE_BYTES);
}

/* What is reserved can be written to the last page, whatever the others have. */
static void
use_reserves (void)
{
  for (unsigned i = 0; i < NHOSTS; i++) {
    struct host *h = &hosts[i];
    struct worker *w = &workers[i];

    if (!h->reserve)
      continue;
    w->nbd = client_open_as (&srv, h->name);
    for (unsigned run = 0; run < h->nruns && h->nused + RUN <= RESERVED_RUNS * RUN; run++)
      write_run (w, h, run);
    cr_assert_not (worker_failed (w), "%s", w->failure);
    client_close (w->nbd);
  }
}

Test (room, thirty_hosts)
{
  uint64_t file_mib = random_steps (100) < 100 ? 128 : 512, drum_bytes = NFILES * file_mib * MIB,
           nrequests = 0, nfull = 0;
  const char *params[NFILES + 1] = { NULL };
  double end;

  rng = rng_for (4000);
  for (unsigned i = 0; i < NFILES; i++)
    params[i] = dev_path ("%c,size=%uM,prio=%u", 'a' + i, (unsigned) file_mib, i % 2);
  livedrum_serve (&(struct server_options){ .threads = 1, .params = params });
  for (unsigned i = 0; i < NHOSTS; i++)
    make_host (i);
  feed_hog (drum_bytes - ROOM_BYTES);
  workers_start (&srv, workers, NHOSTS);
  end = seconds_now () + random_steps (SECONDS);
  while (seconds_now () < end && !any_failed ()) {
    change_something ();
    nanosleep (&(struct timespec){ .tv_nsec = 100000000 },
               NULL); /* else the drum never gets full */
  }
  atomic_store (&stop, true);
  workers_join (workers, NHOSTS);
  for (unsigned i = 0; i < NHOSTS; i++) {
    nrequests += hosts[i].nrequests;
    nfull += hosts[i].nfull;
  }
  printf ("%" PRIu64 " requests, %" PRIu64
          " found no room; %u replaced, %u resized, %u moved, %u refused\n",
          nrequests, nfull, nremoved, nresized, nmoved, nrefused);
  use_reserves ();
  check_all ();
  check_hog ();
}
