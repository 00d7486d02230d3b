/* SPDX-License-Identifier: BSD-3-Clause
 *
 * faults_threads.c - a whole device begins to fail while many clients use it, on a drum that has room elsewhere.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "lib/export.h"
#include "lib/job.h"
#include "lib/live.h"
#include "lib/service.h"
#include "tests/random.h"
#include "tests/scratch.h"
#include "tests/stamp.h"

#include "devices.h"
#include "faulty.h"
#include "logged.h"
#include "tests/unit/served.h"

enum { NTHREADS = 4, EACH = 200, NPAGES = NTHREADS * EACH, NSLOTS = 1200, MAX_REQUEST = 40 };
enum { BAD_FIRST = 100, BAD_END = 150 }; /* slots of a that can't be read any more */

static struct service service;
static struct live *live;
static sem_t job_ended;
static atomic_uint nsteps; /* of all threads */
static atomic_bool failed, may_be_unreadable, done;
static char failure[256];

#define FAIL_UNLESS(condition, ...)                       \
  do {                                                    \
    if (!(condition) && !atomic_exchange (&failed, true)) \
      snprintf (failure, sizeof failure, __VA_ARGS__);    \
  } while (0)

struct client {
  pthread_t thread;
  unsigned index;
  uint32_t version;
  uint32_t is[EACH]; /* version of each of its pages */
};

static struct client client[NTHREADS];

static void
ended (void *opaque, enum job_kind kind, enum job_state state)
{
  (void) opaque, (void) kind, (void) state;
  sem_post (&job_ended);
}

static void
setup (void)
{
  struct swapdev_spec spec[2];
  struct service_config config = { .io = RINGS_NEVER, /* all of it is seen here */
                                   .devices = spec,
                                   .ndevices = 2,
                                   .stripe_bytes = 8 * PAGE_BYTES,
                                   .size_bytes = NPAGES * PAGE_BYTES,
                                   .checksum = true };

  scratch_setup ();
  logged_start ();
  sem_init (&job_ended, 0, 0);
  for (unsigned i = 0; i < 2; i++)
    spec[i] = (struct swapdev_spec){ .path = scratch_path (i ? "b" : "a"),
                                     .create_bytes = (NSLOTS + SWAPDEV_NRESERVED) * PAGE_BYTES };
  cr_assert_eq (service_start (&config, &service), 0);
  cr_assert_eq (live_create (&service, ended, NULL, &live), 0);
}

static void
teardown (void)
{
  if (live)
    live_destroy (live);
  service_undo (&service);
  scratch_teardown ();
}

TestSuite (faults_threads, .init = setup, .fini = teardown, .timeout = 120);

static void
write_some (struct client *c, unsigned first, unsigned n)
{
  char data[MAX_REQUEST][PAGE_BYTES];
  uint64_t page = (uint64_t) c->index * EACH + first;
  int ret;

  c->version++;
  for (unsigned i = 0; i < n; i++)
    stamp_fill (data[i], (struct stamp){ c->index + 1, c->version, page + i });
  ret = export_write (served (&service), data, n * PAGE_BYTES, page * PAGE_BYTES);
  FAIL_UNLESS (ret == 0, "a write of %u pages at %u: %s", n, (unsigned) page, strerror (-ret));
  for (unsigned i = 0; i < n; i++)
    c->is[first + i] = c->version;
}

/* Read one page; false if that can't be. */
static bool
read_one (const struct client *c, unsigned i)
{
  char data[PAGE_BYTES];
  uint64_t page = (uint64_t) c->index * EACH + i;
  struct stamp stamp;
  int ret = export_read (served (&service), data, PAGE_BYTES, page * PAGE_BYTES);

  if (ret < 0) {
    FAIL_UNLESS (ret == -EIO && atomic_load (&may_be_unreadable), "page %u: %s", (unsigned) page,
                 strerror (-ret));
    return false;
  }
  FAIL_UNLESS (stamp_read (data, &stamp) && stamp.sequence == c->is[i] &&
                 (c->is[i] == 0 || stamp.page == page),
               "page %u, version %u, has page %u, version %u", (unsigned) page, c->is[i],
               (unsigned) stamp.page, stamp.sequence);
  return true;
}

static void *
client_main (void *arg)
{
  struct client *c = arg;
  struct rng rng = rng_for (c->index);

  while (!atomic_load (&done) && !atomic_load (&failed)) {
    unsigned n = 1 + (unsigned) rng_below (&rng, MAX_REQUEST);
    unsigned first = (unsigned) rng_below (&rng, EACH - n);

    if (rng_below (&rng, 2))
      write_some (c, first, n);
    else
      read_one (c, first);
    atomic_fetch_add (&nsteps, 1);
  }
  return NULL;
}

static void
start_clients (void)
{
  for (unsigned i = 0; i < NTHREADS; i++) {
    client[i].index = i;
    write_some (&client[i], 0, MAX_REQUEST);
    cr_assert_eq (pthread_create (&client[i].thread, NULL, client_main, &client[i]), 0);
  }
}

/* They have done so much more, or have failed. */
static void
wait_for_steps (unsigned n)
{
  unsigned from = atomic_load (&nsteps);

  while (atomic_load (&nsteps) - from < n && !atomic_load (&failed))
    sched_yield ();
}

static void
join_clients (void)
{
  atomic_store (&done, true);
  for (unsigned i = 0; i < NTHREADS; i++)
    pthread_join (client[i].thread, NULL);
  cr_assert_not (atomic_load (&failed), "seed %u: %s", (unsigned) random_seed (), failure);
}

static unsigned
count_unreadable (void)
{
  unsigned n = 0;

  for (unsigned i = 0; i < NTHREADS; i++)
    for (unsigned k = 0; k < EACH; k++)
      n += !read_one (&client[i], k);
  cr_assert_not (atomic_load (&failed), "%s", failure);
  return n;
}

/* Pages of a move to b, without a client's noticing, but those that can't be read. */
static void
a_fails (int error, bool reads_too)
{
  struct drum_device_info a;
  struct job_info info;
  unsigned nunreadable;

  start_clients ();
  wait_for_steps (100);
  if (reads_too) {
    atomic_store (&may_be_unreadable, true);
    faulty_add (&(struct faulty){
      .name = "a", .calls = FAULTY_READ, .error = EIO, .first = BAD_FIRST, .end = BAD_END });
  }
  faulty_add (&(struct faulty){ .name = "a", .calls = FAULTY_WRITE, .error = error });
  while (sem_wait (&job_ended) == -1)
    ;
  wait_for_steps (100);
  join_clients ();
  cr_assert (drum_find (service.drum, scratch_path ("a"), &a));
  cr_assert (a.state == DEVICE_FAILED, "%d: %s", a.state, logged_last ());
  drum_assert_adds_up (service.drum);
  cr_assert_eq (drum_nused_anywhere (service.drum), export_npages_used (served (&service)));
  nunreadable = count_unreadable ();
  cr_assert_eq (nunreadable, a.nslots - a.nfree, "%u pages can't be read, and %u are there",
                nunreadable, a.nslots - a.nfree);
  cr_assert_leq (nunreadable, BAD_END - BAD_FIRST);
  cr_assert (reads_too || nunreadable == 0);
  cr_assert_eq (jobs_get (live_jobs (live), 1, &info), 0);
  cr_assert (info.kind == JOB_EVACUATE && info.state == JOB_DONE, "%s", info.error);
  cr_assert_eq (info.nlost, 0);
  job_info_free (&info);

  faulty_clear ();
  cr_assert_eq (count_unreadable (), 0, "all is there still");
}

Test (faults_threads, a_device_takes_no_more_writes)
{
  a_fails (EIO, false);
}

Test (faults_threads, a_device_is_read_only)
{
  a_fails (EROFS, false);
}

Test (faults_threads, a_device_fails_in_part)
{
  a_fails (EIO, true);
}

/* Slots here and there take no data: nobody notices, and they are few. */
Test (faults_threads, bad_slots)
{
  enum { NBAD = 5 };
  static const uint32_t bad[NBAD] = { 50, 51, 200, 333, 420 };
  struct drum_device_info a;

  for (unsigned i = 1; i < NBAD; i++)
    faulty_add (&(struct faulty){ .name = "a",
                                  .calls = FAULTY_WRITE,
                                  .error = EIO,
                                  .first = i == 1 ? bad[0] : bad[i],
                                  .end = bad[i] + 1 });
  start_clients ();
  wait_for_steps (1000);
  join_clients ();
  cr_assert (drum_find (service.drum, scratch_path ("a"), &a));
  cr_assert (a.state == DEVICE_OPEN, "%d: %s", a.state, logged_last ());
  live_destroy (live);
  live = NULL;
  cr_assert_gt (faulty_nacted (), 0);
  for (uint32_t i = 0; i < swapdev_nbad (a.swapdev); i++) {
    bool known = false;

    for (unsigned k = 0; k < NBAD; k++)
      known |= swapdev_bad_slot (a.swapdev, i) == bad[k];
    cr_assert (known, "slot %u is well", swapdev_bad_slot (a.swapdev, i));
  }
  drum_assert_adds_up (service.drum);
  cr_assert_eq (count_unreadable (), 0);
  cr_assert_eq (drum_nused_anywhere (service.drum), export_npages_used (served (&service)));
}
