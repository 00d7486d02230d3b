/* SPDX-License-Identifier: BSD-3-Clause
 *
 * evacuate_threads.c - tests of lib/evacuate.c and lib/scrub.c under random clients in threads, while devices come, go and change
 * rank.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "lib/export.h"
#include "lib/job.h"
#include "lib/live.h"
#include "lib/service.h"
#include "tests/random.h"
#include "tests/scratch.h"
#include "tests/stamp.h"

#include "devices.h"
#include "failed.h"
#include "logged.h"
#include "tests/unit/served.h"

enum { NCLIENTS = 3, OWN_PAGES = 100, NPAGES = NCLIENTS * OWN_PAGES, MAX_REQUEST = 40, NFILES = 4 };

static struct service service;
static struct live *live;
static atomic_bool stop;
static bool may_be_full;

/* Writes pages of its own, and knows what they are; reads those of all. */
struct client {
  uint32_t writer, sequence;
  struct rng rng;
  uint64_t first;          /* of its pages */
  uint32_t has[OWN_PAGES]; /* the sequence of each; 0: zeroes */
  char buf[MAX_REQUEST * PAGE_BYTES];
  pthread_t thread;
};

static void
write_own (struct client *c, uint64_t at, uint64_t n)
{
  int ret;

  c->sequence++;
  for (uint64_t i = 0; i < n; i++)
    stamp_fill (c->buf + i * PAGE_BYTES,
                (struct stamp){ c->writer, c->sequence, c->first + at + i });
  ret = export_write (served (&service), c->buf, n * PAGE_BYTES, (c->first + at) * PAGE_BYTES);
  if (ret == -ENOSPC && may_be_full) { /* some are written: make all of them known */
    export_trim (served (&service), n * PAGE_BYTES, (c->first + at) * PAGE_BYTES);
    memset (c->has + at, 0, n * sizeof c->has[0]);
    return;
  }
  FAIL_UNLESS (ret == 0, "write: %s", strerror (-ret));
  for (uint64_t i = 0; i < n; i++)
    c->has[at + i] = c->sequence;
}

/* Change bytes behind the stamp's first copies, and put them back: a read, a change and a write each. */
static void
patch_own (struct client *c, uint64_t at)
{
  uint64_t offset = (c->first + at) * PAGE_BYTES + 1024;
  char was[512], other[512] = { 1 };
  int ret = export_read (served (&service), was, sizeof was, offset);

  if (c->has[at] == 0)
    return;
  if (ret == 0)
    ret = export_write (served (&service), other, sizeof other, offset);
  if (ret == 0)
    ret = export_write (served (&service), was, sizeof was, offset);
  FAIL_UNLESS (ret == 0, "a rewrite of page %u: %s", (unsigned) (c->first + at), strerror (-ret));
}

static void
trim_own (struct client *c, uint64_t at, uint64_t n)
{
  export_trim (served (&service), n * PAGE_BYTES, (c->first + at) * PAGE_BYTES);
  memset (c->has + at, 0, n * sizeof c->has[0]);
}

static void
read_own (struct client *c, uint64_t at, uint64_t n)
{
  int ret = export_read (served (&service), c->buf, n * PAGE_BYTES, (c->first + at) * PAGE_BYTES);

  FAIL_UNLESS (ret == 0, "read: %s", strerror (-ret));
  for (uint64_t i = 0; i < n && !failed; i++) {
    struct stamp stamp;
    bool whole = stamp_read (c->buf + i * PAGE_BYTES, &stamp);

    FAIL_UNLESS (
      whole && stamp.sequence == c->has[at + i] &&
        (stamp.sequence == 0 || (stamp.page == c->first + at + i && stamp.writer == c->writer)),
      "page %" PRIu64 ", version %u: is page %" PRIu64 ", version %u, of %u%s", c->first + at + i,
      c->has[at + i], stamp.page, stamp.sequence, stamp.writer, whole ? "" : ", mixed");
  }
}

/* Somebody's pages: whatever version, but of that page. */
static void
read_any (struct client *c, uint64_t page)
{
  struct stamp stamp;
  int ret = export_read (served (&service), c->buf, 64, page * PAGE_BYTES);

  memcpy (&stamp, c->buf, sizeof stamp);
  FAIL_UNLESS (ret == 0 && (stamp_is_zero (&stamp) || stamp.page == page),
               "page %" PRIu64 " is page %" PRIu64, page, stamp.page);
}

static void *
client_main (void *arg)
{
  struct client *c = arg;

  while (!atomic_load (&stop) && !failed) {
    uint64_t at = rng_below (&c->rng, OWN_PAGES), what = rng_below (&c->rng, 100);
    uint64_t n = 1 + rng_below (&c->rng, rng_below (&c->rng, 4) ? 4 : MAX_REQUEST);

    n = n < OWN_PAGES - at ? n : OWN_PAGES - at;
    if (what < 40)
      write_own (c, at, n);
    else if (what < 50)
      patch_own (c, at);
    else if (what < 62)
      trim_own (c, at, n);
    else if (what < 90)
      read_own (c, at, n);
    else
      read_any (c, rng_below (&c->rng, NPAGES));
  }
  read_own (c, 0, MAX_REQUEST);
  read_own (c, MAX_REQUEST, MAX_REQUEST);
  read_own (c, OWN_PAGES - MAX_REQUEST, MAX_REQUEST);
  return NULL;
}

static struct client client[NCLIENTS];

static void
start_clients (void)
{
  for (unsigned i = 0; i < NCLIENTS; i++) {
    client[i].writer = i + 1;
    client[i].rng = rng_for (i + 1);
    client[i].first = i * OWN_PAGES;
    cr_assert_eq (pthread_create (&client[i].thread, NULL, client_main, &client[i]), 0);
  }
}

static void
stop_clients (void)
{
  atomic_store (&stop, true);
  for (unsigned i = 0; i < NCLIENTS; i++)
    pthread_join (client[i].thread, NULL);
  assert_not_failed ();
}

/* Files of these many usable slots. */
static void
setup_service (const uint32_t *nusable)
{
  struct swapdev_spec spec[NFILES];
  struct service_config config = { .devices = spec,
                                   .ndevices = NFILES,
                                   .stripe_bytes = 4 * PAGE_BYTES,
                                   .size_bytes = NPAGES * PAGE_BYTES,
                                   .checksum = true };

  scratch_setup ();
  logged_start ();
  for (unsigned i = 0; i < NFILES; i++)
    spec[i] = (struct swapdev_spec){ .path = scratch_path (str ("%u", i)),
                                     .prio = (int) i % 2,
                                     .create_bytes = (nusable[i] + 2) * PAGE_BYTES };
  cr_assert_eq (service_start (&config, &service), 0);
  cr_assert_eq (live_create (&service, NULL, NULL, &live), 0);
}

/* Everything adds up, and nothing is left behind. */
static void
teardown_service (void)
{
  struct drum_device_info devices[NFILES];
  unsigned n;
  uint64_t nused = 0;

  live_destroy (live);
  cr_assert (drum_check (service.drum));
  n = drum_devices (service.drum, devices, NFILES);
  for (unsigned i = 0; i < n; i++) {
    nused += devices[i].nslots - devices[i].nfree;
    cr_assert (devices[i].state == DEVICE_OPEN, "%s", swapdev_path (devices[i].swapdev));
  }
  cr_assert_eq (nused, export_npages_used (served (&service)));
  export_trim (served (&service), NPAGES * PAGE_BYTES, 0);
  cr_assert_eq (drum_nused (service.drum), 0);
  service_stop (&service);
  scratch_teardown ();
}

static void
assert_ended (uint64_t job, const char *may_fail)
{
  struct job_info info;

  cr_assert_eq (jobs_wait (live_jobs (live), job), 0);
  cr_assert_eq (jobs_get (live_jobs (live), job, &info), 0);
  if (info.state == JOB_FAILED)
    cr_assert (may_fail && strstr (info.error, may_fail), "job %u: %s", (unsigned) job, info.error);
  cr_assert_eq (info.nunreadable + info.nlost, 0);
  job_info_free (&info);
}

/* Devices leave and come back, one after the other, and change their rank, and all or one are scrubbed meanwhile; some jobs are
 * cancelled. */
static unsigned
shuffle (unsigned nrounds)
{
  struct rng rng = rng_for (77);
  unsigned nremoved = 0;

  for (unsigned round = 0; round < nrounds && !failed; round++) {
    const char *path = scratch_path (str ("%u", (unsigned) rng_below (&rng, NFILES)));
    struct swapdev_spec spec = { .path = path, .prio = (int) rng_below (&rng, 3) };
    uint64_t job, other = 0, scrub;

    cr_assert_eq (live_scrub (live, rng_below (&rng, 2) ? path : NULL, 0, &scrub), 0);
    if (live_rebalance (live, 0, &other) < 0)
      other = 0;
    if (rng_below (&rng, 2))
      live_set_priority (live, path, (int) rng_below (&rng, 3));
    if (live_remove (live, path, rng_below (&rng, 4) ? 0 : 20 << 20, false, &job) == 0) {
      if (rng_below (&rng, 4) == 0)
        jobs_cancel (live_jobs (live), job);
      assert_ended (job, "no more room");
    }
    if (live_add (live, &spec, &job) == 0) {
      nremoved++;
      assert_ended (job, NULL);
    }
    if (other)
      assert_ended (other, NULL);
    if (rng_below (&rng, 4) == 0)
      jobs_cancel (live_jobs (live), scrub);
    assert_ended (scrub, "it has left the drum");
  }
  return nremoved;
}

TestSuite (evacuate_threads, .timeout = 600);

/* There is room for all that moves: no client sees an error, every page is its last version, devices do leave. */
Test (evacuate_threads, devices_come_and_go)
{
  setup_service ((const uint32_t[NFILES]){ 300, 300, 300, 300 });
  start_clients ();
  cr_assert_gt (shuffle (random_steps (60)), 0);
  stop_clients ();
  teardown_service ();
}

/* Hardly any room: evacuations give up, writes of new pages may find none, but no other error is seen and no page is wrong. */
Test (evacuate_threads, devices_come_and_go_on_a_full_drum)
{
  may_be_full = true;
  setup_service ((const uint32_t[NFILES]){ 60, 70, 70, 60 });
  start_clients ();
  shuffle (random_steps (60));
  stop_clients ();
  teardown_service ();
}
