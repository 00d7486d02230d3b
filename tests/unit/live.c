/* SPDX-License-Identifier: BSD-3-Clause
 *
 * live.c - tests of lib/live.c: devices that are added, removed and ranked while a service runs, and who is refused.
 *
 * An add takes as long as the test wants: its fallocate waits. A slow job is one of a byte a second.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/export.h"
#include "lib/job.h"
#include "lib/live.h"
#include "lib/service.h"
#include "lib/session.h"
#include "lib/stats.h"
#include "tests/scratch.h"

#include "devices.h"
#include "files.h"
#include "logged.h"
#include "longadd.h"
#include "stamped.h"
#include "tests/unit/served.h"

enum { A_SLOTS = 100, B_SLOTS = 200, NPAGES = 400, SLOW = 1 };

static struct service service;
static struct live *live;
static struct stamped pages;
static atomic_uint nended;
static uint64_t before_ns;

static void
count_ended (void *opaque, enum job_kind kind, enum job_state state)
{
  (void) kind, (void) state;
  atomic_fetch_add ((atomic_uint *) opaque, 1);
}

/* Devices a, of priority 5, and b, of 0. */
static void
setup (void)
{
  struct swapdev_spec spec[2];
  struct service_config config = { .devices = spec,
                                   .ndevices = 2,
                                   .stripe_bytes = STRIPE_DEFAULT_BYTES,
                                   .size_bytes = NPAGES * PAGE_BYTES,
                                   .checksum = true };

  scratch_setup ();
  logged_start ();
  longadd_setup ();
  spec[0] = (struct swapdev_spec){ .path = scratch_path ("a"),
                                   .prio = 5,
                                   .create_bytes = bytes_of (A_SLOTS) };
  spec[1] = (struct swapdev_spec){ .path = scratch_path ("b"), .create_bytes = bytes_of (B_SLOTS) };
  cr_assert_eq (service_start (&config, &service), 0);
  before_ns = now_ns ();
  cr_assert_eq (live_create (&service, count_ended, &nended, &live), 0);
  stamped_init (&pages, served (&service));
}

static void
stop_live (void)
{
  if (live)
    live_destroy (live);
  live = NULL;
}

static void
teardown (void)
{
  stop_live ();
  stamped_assert_whole (&pages, service.drum);
  service_stop (&service);
  scratch_teardown ();
}

TestSuite (live, .init = setup, .fini = teardown, .timeout = 60);

/* ---- short ways to ask ---- */

static int
add (const char *path, uint32_t nusable, uint64_t *job)
{
  struct swapdev_spec spec = { .path = path, .prio = 3 };

  spec.create_bytes = nusable ? bytes_of (nusable) : 0;
  return live_add (live, &spec, job);
}

static uint64_t
start_adding (const char *name)
{
  uint64_t job = 0;

  cr_assert_eq (add (scratch_path (name), 50, &job), 0, "%s", logged_last ());
  return job;
}

static uint64_t
start_removing (const char *name, uint64_t rate, bool force)
{
  uint64_t job = 0;

  cr_assert_eq (live_remove (live, scratch_path (name), rate, force, &job), 0, "%s",
                logged_last ());
  return job;
}

/* The last job's, until the next. */
static struct job_info
look (uint64_t job)
{
  static struct job_info info;

  job_info_free (&info);
  cr_assert_eq (jobs_get (live_jobs (live), job, &info), 0);
  return info;
}

/* It ends like this, with this in its error. */
static void
assert_ends (uint64_t job, enum job_state state, const char *error)
{
  struct job_info info;

  cr_assert_eq (jobs_wait (live_jobs (live), job), 0);
  info = look (job);
  cr_assert (info.state == state, "it is %d: %s", info.state, info.error ? info.error : "");
  if (error)
    cr_assert (info.error && strstr (info.error, error), "%s", info.error);
}

static void
assert_device (const char *name, int prio, enum drum_device_state state)
{
  struct drum_device_info info;

  cr_assert (drum_find_file (service.drum, name, &info), "%s is not there", name);
  cr_assert_eq (info.prio, prio, "%s has %d", name, info.prio);
  cr_assert (info.state == state, "%s is %d", name, info.state);
}

static void
count_adding (void *opaque, const struct swapdev_spec *spec)
{
  cr_assert_eq (spec->prio, 3);
  cr_assert_eq (strncmp (spec->path, scratch_path (""), strlen (scratch_path (""))), 0);
  ++*(unsigned *) opaque;
}

static unsigned
nadding (void)
{
  unsigned n = 0;

  live_adding (live, count_adding, &n);
  return n;
}

/* Adds wait from here on, in the middle of it; and this one does. */
static uint64_t
start_a_long_add (const char *name)
{
  uint64_t job;

  longadd_begin ();
  job = start_adding (name);
  longadd_await ();
  return job;
}

/* ---- add ---- */

/* It comes with its priority, and with a label that says that it is this drum's. */
Test (live, adds_a_device)
{
  uint64_t job = start_adding ("c");
  struct drum_device_info c, a;
  struct job_info info;

  assert_ends (job, JOB_DONE, NULL);
  info = look (job);
  cr_assert (info.kind == JOB_ADD);
  cr_assert_str_eq (info.device, scratch_path ("c"));
  assert_device ("c", 3, DEVICE_OPEN);
  cr_assert (drum_find_file (service.drum, "c", &c) && drum_find_file (service.drum, "a", &a));
  cr_assert_eq (c.nslots, 50);
  cr_assert_eq (c.nfree, 50);
  cr_assert_eq (uuid_compare (swapdev_identity (c.swapdev)->drum, service.identity.drum), 0);
  cr_assert_eq (swapdev_identity (c.swapdev)->generation, service.identity.generation);
  cr_assert_neq (
    uuid_compare (swapdev_identity (c.swapdev)->device, swapdev_identity (a.swapdev)->device), 0);
  cr_assert_eq (file_stat (scratch_path ("c")).st_mode & 07777, 0600);
  cr_assert_eq (nadding (), 0);
  cr_assert_eq (stamped_write (&pages, 0, 130), 0);
  cr_assert (drum_find_file (service.drum, "c", &c));
  cr_assert_eq (c.nfree, 20);
}

/* An add that fails leaves nothing behind, and says why; then it can be tried again. */
Test (live, a_failed_add_leaves_nothing)
{
  unsigned nfiles = scratch_count ();
  uint64_t job;

  cr_assert_eq (add (scratch_path ("c"), 0, &job), 0);
  assert_ends (job, JOB_FAILED, "/c: does not exist");
  cr_assert_eq (nadding (), 0);
  cr_assert_eq (add (scratch_path ("c"), UINT32_MAX - 10, &job), 0);
  assert_ends (job, JOB_FAILED, "/c");
  cr_assert_eq (nadding (), 0);
  drum_assert_gone (service.drum, "c");
  cr_assert_eq (scratch_count (), nfiles);
  assert_ends (start_adding ("c"), JOB_DONE, NULL);
}

/* Somebody's data is not taken, but with force; warnings are the job's. */
Test (live, adds_with_the_checks_of_a_start)
{
  struct swapdev_spec spec = { .path = file_make ("c", bytes_of (50)), .prio = 3 };
  uint64_t job;

  file_write (spec.path, 99, "data", 4);
  chmod (spec.path, 0644);
  cr_assert_eq (live_add (live, &spec, &job), 0);
  assert_ends (job, JOB_FAILED, "/c");
  spec.force = true;
  cr_assert_eq (live_add (live, &spec, &job), 0);
  assert_ends (job, JOB_DONE, NULL);
  cr_assert_not_null (look (job).warnings);
  cr_assert_not_null (strstr (look (job).warnings, "insecure permissions"));
}

/* What is there already is refused, by whatever name. */
Test (live, what_is_there_is_not_added)
{
  uint64_t job = 77;

  cr_assert_eq (symlink (scratch_path ("a"), scratch_path ("link")), 0);
  cr_assert_eq (add (scratch_path ("a"), 0, &job), -EBUSY);
  assert_logged_error ("/a: is a device of this drum already");
  cr_assert_eq (add (scratch_path ("link"), 0, &job), -EBUSY);
  assert_logged_error ("/link: is a device of this drum already");
  cr_assert_eq (add (scratch_path ("../a/."), 0, &job), 0, "a path that is none is the job's");
  assert_ends (job, JOB_FAILED, NULL);
}

/* While it takes long, it can be seen, and not be added again; nobody else waits. */
Test (live, a_long_add_can_be_seen)
{
  uint64_t job = start_a_long_add ("c"), other = 77;

  cr_assert_eq (nadding (), 1);
  drum_assert_gone (service.drum, "c");
  cr_assert_eq (add (scratch_path ("c"), 50, &other), -EBUSY);
  assert_logged_error ("/c: is being added already");
  cr_assert_eq (other, 77, "output changed on failure");
  cr_assert_eq (live_remove (live, scratch_path ("c"), 0, false, &other), -ENOENT);
  logged_start ();
  cr_assert_eq (live_set_priority (live, scratch_path ("a"), 6), 0);
  cr_assert_eq (stamped_write (&pages, 0, 10), 0);
  assert_ends (start_removing ("a", 0, false), JOB_DONE, NULL);
  cr_assert (look (job).state == JOB_RUNNING);
  longadd_end (1);
  assert_ends (job, JOB_DONE, NULL);
  cr_assert_eq (nadding (), 0);
  assert_device ("c", 3, DEVICE_OPEN);
}

/* An add that is cancelled while it allocates leaves nothing. */
Test (live, a_cancelled_add_leaves_nothing)
{
  uint64_t job = start_a_long_add ("c");

  cr_assert_eq (jobs_cancel (live_jobs (live), job), 0);
  longadd_end (1);
  assert_ends (job, JOB_CANCELLED, NULL);
  drum_assert_gone (service.drum, "c");
  cr_assert_eq (access (scratch_path ("c"), F_OK), -1);
}

/* The same file by two names: the second job fails, and spoils nothing for the first. */
Test (live, one_file_by_two_names)
{
  uint64_t first, second;

  first = start_a_long_add ("c");
  cr_assert_eq (symlink (scratch_path ("c"), scratch_path ("link")), 0);
  cr_assert_eq (add (scratch_path ("link"), 50, &second), 0);
  assert_ends (second, JOB_FAILED, "/link");
  longadd_end (1);
  assert_ends (first, JOB_DONE, NULL);
  cr_assert_eq (file_stat (scratch_path ("c")).st_size, (off_t) bytes_of (50));
  assert_device ("c", 3, DEVICE_OPEN);
  cr_assert_eq (drum_devices (service.drum, NULL, 0), 3);
}

static const char *racing_path[2];
static uint64_t racing_job[2];

static void *
race (void *arg)
{
  uintptr_t i = (uintptr_t) arg;

  if (add (racing_path[i], 0, &racing_job[i]) < 0)
    racing_job[i] = 0;
  else
    jobs_wait (live_jobs (live), racing_job[i]);
  return NULL;
}

/* Both at the same time, again and again: one of them is added. */
Test (live, one_file_by_two_names_at_once)
{
  racing_path[0] = file_make ("c", bytes_of (50));
  racing_path[1] = scratch_path ("link");
  cr_assert_eq (symlink (racing_path[0], racing_path[1]), 0);
  for (unsigned round = 0; round < 20; round++) {
    unsigned ndone = 0;
    pthread_t thread[2];

    for (uintptr_t i = 0; i < 2; i++)
      cr_assert_eq (pthread_create (&thread[i], NULL, race, (void *) i), 0);
    for (unsigned i = 0; i < 2; i++)
      pthread_join (thread[i], NULL);
    for (unsigned i = 0; i < 2; i++)
      ndone += racing_job[i] && look (racing_job[i]).state == JOB_DONE;
    cr_assert_eq (ndone, 1, "round %u: %u were added", round, ndone);
    cr_assert_eq (drum_devices (service.drum, NULL, 0), 3);
    cr_assert_eq (nadding (), 0);
    assert_ends (start_removing ("c", 0, false), JOB_DONE, NULL);
  }
}

/* ---- remove ---- */

/* It leaves with everything moved, by whatever name it was called. */
Test (live, removes_a_device)
{
  uint64_t job;

  cr_assert_eq (stamped_write (&pages, 0, 90), 0);
  cr_assert_eq (symlink (scratch_path ("a"), scratch_path ("link")), 0);
  job = start_removing ("./link", 1 << 30, false);
  cr_assert_str_eq (look (job).device, scratch_path ("a"));
  cr_assert (look (job).kind == JOB_REMOVE);
  cr_assert_eq (look (job).rate, 1 << 30);
  assert_ends (job, JOB_DONE, NULL);
  drum_assert_gone (service.drum, "a");
  cr_assert_eq (access (scratch_path ("a"), F_OK), 0, "the file is the user's");
  stamped_assert_whole (&pages, service.drum);
  assert_ends (start_adding ("c"), JOB_DONE, NULL);
}

/* What is not there, or is leaving, or does not fit elsewhere, is refused at once, and nothing has changed. */
Test (live, remove_is_refused)
{
  uint64_t job = 77, slow;

  cr_assert_eq (live_remove (live, scratch_path ("c"), 0, false, &job), -ENOENT);
  assert_logged_error ("/c: is no device of this drum");
  cr_assert_eq (stamped_write (&pages, 0, 10), 0);
  slow = start_removing ("a", SLOW, false);
  cr_assert_eq (live_remove (live, scratch_path ("./a"), 0, true, &job), -EBUSY);
  assert_logged_error ("/a: its pages are being moved off already");
  cr_assert_eq (add (scratch_path ("a"), 0, &job), -EBUSY);
  assert_logged_error ("/a: is being removed: cancel that instead");
  assert_device ("a", 5, DEVICE_CLOSING);
  cr_assert_eq (jobs_cancel (live_jobs (live), slow), 0);
  assert_ends (slow, JOB_CANCELLED, NULL);
  assert_device ("a", 5, DEVICE_OPEN);
  cr_assert_eq (stamped_write (&pages, 0, 290), 0);
  logged_start ();
  cr_assert_eq (live_remove (live, scratch_path ("a"), 0, false, &job), -ENOSPC);
  assert_logged_error ("add a device first");
  assert_device ("a", 5, DEVICE_OPEN);
  cr_assert_eq (job, 77, "output changed on failure");
}

/* When it is gone it can come back. */
Test (live, comes_back)
{
  uint64_t job;

  cr_assert_eq (stamped_write (&pages, 0, 90), 0);
  assert_ends (start_removing ("a", 0, false), JOB_DONE, NULL);
  cr_assert_eq (live_remove (live, scratch_path ("a"), 0, false, &job), -ENOENT);
  cr_assert_eq (add (scratch_path ("a"), 0, &job), 0);
  assert_ends (job, JOB_DONE, NULL);
  assert_device ("a", 3, DEVICE_OPEN);
}

/* The last device may leave, if it is empty, and another come. */
Test (live, the_last_device_leaves)
{
  uint64_t job = 77;

  assert_ends (start_removing ("a", 0, false), JOB_DONE, NULL);
  cr_assert_eq (stamped_write (&pages, 7, 1), 0);
  logged_start ();
  cr_assert_eq (live_remove (live, scratch_path ("b"), 0, false, &job), -ENOSPC);
  assert_logged_error ("/b: holds 4K, and the other devices have room for 0B");
  stamped_trim (&pages, 7, 1);
  assert_ends (start_removing ("b", 0, false), JOB_DONE, NULL);
  cr_assert_eq (stamped_write (&pages, 7, 1), -ENOSPC);
  assert_ends (start_adding ("c"), JOB_DONE, NULL);
  cr_assert_eq (stamped_write (&pages, 7, 1), 0);
}

/* A client's write opens it again while its job sleeps; no second job may begin before the first has noticed. */
Test (live, one_remover_at_a_time)
{
  unsigned page = 90;
  uint64_t job, second = 77;

  cr_assert_eq (stamped_write (&pages, 0, 90), 0);
  job = start_removing ("a", SLOW, false);
  while (look (job).done_bytes == 0)
    sched_yield ();
  for (struct drum_device_info a;
       drum_find_file (service.drum, "a", &a) && a.state == DEVICE_CLOSING; page++)
    cr_assert_eq (stamped_write (&pages, page, 1), 0);
  stamped_trim (&pages, 90, page - 90);
  logged_start ();
  cr_assert_eq (live_remove (live, scratch_path ("a"), 0, false, &second), -EBUSY);
  assert_logged_error ("/a: its pages are being moved off already");
  cr_assert_eq (jobs_cancel (live_jobs (live), job), 0);
  assert_ends (job, JOB_CANCELLED, NULL);
  assert_device ("a", 5, DEVICE_OPEN);
  assert_ends (start_removing ("a", 0, false), JOB_DONE, NULL);
}

/* ---- closed devices ---- */

/* a is closed, as page 3 can't be read. */
static void
close_a (void)
{
  cr_assert_eq (stamped_write (&pages, 0, 90), 0);
  file_write (scratch_path ("a"), (3 + SWAPDEV_NRESERVED) * PAGE_BYTES, "!", 1);
  pages.sequence[3] = STAMPED_EIO;
  assert_ends (start_removing ("a", 0, false), JOB_FAILED, "1 pages on it can't be read");
  assert_device ("a", 5, DEVICE_CLOSED);
}

/* A closed device that is added is opened, by any of its names, and as it was. */
Test (live, a_closed_device_is_opened)
{
  uint64_t job;

  close_a ();
  cr_assert_eq (symlink (scratch_path ("a"), scratch_path ("link")), 0);
  cr_assert_eq (add (scratch_path ("link"), 0, &job), 0);
  assert_ends (job, JOB_DONE, NULL);
  assert_device ("a", 5, DEVICE_OPEN);
  cr_assert (look (job).kind == JOB_ADD);
  cr_assert_eq (drum_devices (service.drum, NULL, 0), 2);
}

/* Or it is removed with force. */
Test (live, a_closed_device_is_removed)
{
  uint64_t job;

  close_a ();
  assert_ends (start_removing ("a", 0, false), JOB_FAILED, NULL);
  assert_device ("a", 5, DEVICE_CLOSED);
  job = start_removing ("a", 0, true);
  assert_ends (job, JOB_DONE, NULL);
  cr_assert_eq (look (job).nlost, 1);
  drum_assert_gone (service.drum, "a");
}

/* ---- priority, rebalance ---- */

/* A new priority counts at once; pages that are there rise when it is asked for. */
Test (live, ranks_anew)
{
  struct drum_device_info b;
  uint64_t job;

  cr_assert_eq (stamped_write (&pages, 0, 90), 0);
  cr_assert_eq (live_set_priority (live, scratch_path ("./b"), 9), 0);
  assert_device ("b", 9, DEVICE_OPEN);
  cr_assert_eq (live_rebalance (live, 0, &job), 0);
  cr_assert_null (look (job).device);
  cr_assert (look (job).kind == JOB_REBALANCE);
  assert_ends (job, JOB_DONE, NULL);
  cr_assert (drum_find_file (service.drum, "b", &b));
  cr_assert_eq (b.nslots - b.nfree, 90);
  cr_assert_eq (live_set_priority (live, scratch_path ("c"), 9), -ENOENT);
  assert_logged_error ("/c: is no device of this drum");
  cr_assert_eq (live_set_maxio (live, scratch_path ("./b"), 3), 0);
  cr_assert_eq (swapdev_maxio (b.swapdev), 3);
}

/* One rebalance at a time; it can be cancelled, and then begun anew. */
Test (live, one_rebalance_at_a_time)
{
  uint64_t job, second = 77;

  cr_assert_eq (stamped_write (&pages, 0, 90), 0);
  cr_assert_eq (live_set_priority (live, scratch_path ("b"), 9), 0);
  cr_assert_eq (live_rebalance (live, SLOW, &job), 0);
  cr_assert_eq (live_rebalance (live, 0, &second), -EBUSY);
  assert_logged_error ("already");
  cr_assert_eq (second, 77, "output changed on failure");
  cr_assert_eq (jobs_cancel (live_jobs (live), job), 0);
  assert_ends (job, JOB_CANCELLED, NULL);
  cr_assert_eq (live_rebalance (live, 0, &job), 0);
  assert_ends (job, JOB_DONE, NULL);
}

/* ---- scrub ---- */

static uint64_t
start_scrub (const char *path, uint64_t rate)
{
  uint64_t job = 0;

  cr_assert_eq (live_scrub (live, path, rate, &job), 0, "%s", logged_last ());
  return job;
}

/* Everything, or one device, by any of its names; there may be several, also while something moves. */
Test (live, scrubs)
{
  uint64_t all, one, rising;

  cr_assert_eq (stamped_write (&pages, 0, 90), 0);
  cr_assert_eq (live_set_priority (live, scratch_path ("b"), 9), 0);
  cr_assert_eq (stamped_write (&pages, 90, 10), 0);
  all = start_scrub (NULL, SLOW);
  cr_assert (look (all).kind == JOB_SCRUB);
  cr_assert_null (look (all).device);
  cr_assert_eq (live_rebalance (live, SLOW, &rising), 0);
  one = start_scrub (scratch_path ("./b"), 0);
  cr_assert (look (one).kind == JOB_SCRUB);
  cr_assert_str_eq (look (one).device, scratch_path ("b"));
  assert_ends (one, JOB_DONE, NULL);
  cr_assert_geq (look (one).done_bytes, 10 * PAGE_BYTES);
  jobs_cancel (live_jobs (live), rising);
  assert_ends (rising, JOB_CANCELLED, NULL);
  jobs_cancel (live_jobs (live), all);
  assert_ends (all, JOB_CANCELLED, NULL);
  logged_start ();
  assert_ends (start_scrub (NULL, 0), JOB_DONE, NULL);
  cr_assert_eq (logged_count ("the drum: has been scrubbed: all of its 100 pages can be read"), 1);
}

/* Only what is a device of the drum. */
Test (live, scrubs_no_other_device)
{
  uint64_t job = 77;

  cr_assert_eq (live_scrub (live, scratch_path ("c"), 0, &job), -ENOENT);
  assert_logged_error ("/c: is no device of this drum");
  cr_assert_eq (job, 77, "output changed on failure");
}

/* ---- too many, and the end ---- */

/* No more than JOBS_MAX at once; who is refused has changed nothing. */
Test (live, too_many_jobs)
{
  uint64_t job[JOBS_MAX], more = 77;

  for (unsigned i = 0; i < JOBS_MAX; i++)
    job[i] = start_a_long_add (str ("%u", i));
  cr_assert_eq (nadding (), JOBS_MAX);
  cr_assert_eq (add (scratch_path ("c"), 50, &more), -EBUSY);
  assert_logged_error ("/c: 64 jobs are under way already");
  cr_assert_eq (nadding (), JOBS_MAX);
  cr_assert_eq (live_remove (live, scratch_path ("a"), 0, false, &more), -EBUSY);
  assert_logged_error ("/a: 64 jobs are under way already");
  assert_device ("a", 5, DEVICE_OPEN);
  cr_assert_eq (live_rebalance (live, 0, &more), -EBUSY);
  assert_logged_error ("64 jobs are under way already");
  cr_assert_eq (live_scrub (live, scratch_path ("a"), 0, &more), -EBUSY);
  assert_logged_error ("/a: 64 jobs are under way already");
  cr_assert_eq (more, 77, "output changed on failure");
  longadd_end (JOBS_MAX);
  for (unsigned i = 0; i < JOBS_MAX; i++)
    jobs_wait (live_jobs (live), job[i]);
  cr_assert_eq (drum_devices (service.drum, NULL, 0), JOBS_MAX + 2);
  cr_assert_eq (live_rebalance (live, 0, &more), 0);
  assert_ends (more, JOB_DONE, NULL);
  assert_ends (start_adding ("c"), JOB_DONE, NULL);
  assert_ends (start_removing ("a", 0, false), JOB_DONE, NULL);
}

/* ---- shutdown ---- */

static atomic_int sync_result;

int __real_service_sync (struct service *s);
int __wrap_service_sync (struct service *s);

int
__wrap_service_sync (struct service *s)
{
  int ret = atomic_load (&sync_result);

  return ret < 0 ? ret : __real_service_sync (s);
}

static struct session *
open_session (void)
{
  struct session_wish wish = { .export = served (&service),
                               .name = &(struct session_name){ .id = "" },
                               .peer = "" };
  struct session *session;

  cr_assert_eq (session_open (service.sessions, &wish, &session), 0);
  return session;
}

static void
expect_runs (struct session *session)
{
  cr_assert_eq (session_begin (session), 0);
  session_end (session);
}

static uint64_t
start_shutdown (unsigned timeout_ms)
{
  uint64_t job = 0;

  cr_assert_eq (live_shutdown (live, timeout_ms, true, &job), 0, "%s", logged_last ());
  cr_assert_eq (live_last_shutdown (live), job);
  return job;
}

/* With nobody there and nothing in it, it may; and then it is for good. */
Test (live, shuts_down)
{
  uint64_t job, again = 77;

  cr_assert_eq (live_last_shutdown (live), 0);
  cr_assert_eq (live_shutdown (live, 1000, false, &job), 0);
  assert_ends (job, JOB_DONE, NULL);
  cr_assert (look (job).kind == JOB_SHUTDOWN);
  cr_assert_eq (sessions_halt (service.sessions, 0), -EALREADY);
  logged_start ();
  cr_assert_eq (live_shutdown (live, 1000, true, &again), -EBUSY);
  assert_logged_error ("the server is being shut down already");
  cr_assert_eq (again, 77, "output changed on failure");
}

/* Clients, or pages, are not lost without force. */
Test (live, does_not_lose_pages)
{
  uint64_t job = 77;

  export_count_client (served (&service), 1);
  cr_assert_eq (live_shutdown (live, 1000, false, &job), -EBUSY);
  assert_logged_error ("has 1 connection and holds 0 pages, which a restart without state= loses");
  export_count_client (served (&service), -1);
  cr_assert_eq (stamped_write (&pages, 0, 9), 0);
  cr_assert_eq (live_shutdown (live, 1000, false, &job), -EBUSY);
  assert_logged_error ("has 0 connections and holds 9 pages, which a restart without state= loses");
  cr_assert_eq (job, 77, "output changed on failure");
  assert_ends (start_shutdown (1000), JOB_DONE, NULL);
}

/* A request that does not end: it gives up, all goes on, and it can be tried again. */
Test (live, shutdown_gives_up)
{
  struct session *session = open_session ();

  cr_assert_eq (session_begin (session), 0);
  assert_ends (start_shutdown (10), JOB_FAILED, "requests are still under way after 0.01 s");
  cr_assert_eq (look (live_last_shutdown (live)).result, -ETIMEDOUT);
  expect_runs (session);
  session_end (session);
  assert_ends (start_shutdown (10), JOB_DONE, NULL);
  session_close (session);
}

/* What can't be made durable is no reason to leave. */
Test (live, shutdown_needs_a_sync)
{
  struct session *session = open_session ();

  atomic_store (&sync_result, -EIO);
  assert_ends (start_shutdown (1000), JOB_FAILED, "can't be made durable");
  cr_assert_eq (look (live_last_shutdown (live)).result, -EIO);
  expect_runs (session);
  atomic_store (&sync_result, 0);
  assert_ends (start_shutdown (1000), JOB_DONE, NULL);
  session_close (session);
}

/* Cancelled before the last request has ended: it stays. */
Test (live, shutdown_cancelled)
{
  struct session *session = open_session ();
  uint64_t job;

  cr_assert_eq (session_begin (session), 0);
  job = start_shutdown (3600 * 1000);
  cr_assert_eq (jobs_cancel (live_jobs (live), job), 0);
  session_end (session);
  assert_ends (job, JOB_CANCELLED, NULL);
  expect_runs (session);
  session_close (session);
}

/* The end of it all: jobs that move pages stop, and their devices are open; what is being added is there, or leaves nothing. */
Test (live, ends_while_jobs_run)
{
  uint64_t job;

  cr_assert_eq (stamped_write (&pages, 0, 120), 0);
  start_a_long_add ("c");
  cr_assert_eq (live_set_priority (live, scratch_path ("b"), 9), 0);
  cr_assert_eq (live_rebalance (live, SLOW, &job), 0);
  start_removing ("a", SLOW, false);
  start_scrub (NULL, SLOW);
  longadd_end (1);
  stop_live ();
  cr_assert_eq (atomic_load (&nended), 4);
  assert_device ("a", 5, DEVICE_OPEN);
  assert_device ("b", 9, DEVICE_OPEN);
  if (access (scratch_path ("c"), F_OK) == 0)
    assert_device ("c", 3, DEVICE_OPEN);
  else
    drum_assert_gone (service.drum, "c");
  stamped_assert_whole (&pages, service.drum);
}

/* It knows when it began, and what it is about. */
Test (live, knows_its_service)
{
  cr_assert_eq (live_service (live), &service);
  cr_assert_geq (live_started_ns (live), before_ns);
  cr_assert_leq (live_started_ns (live), now_ns ());
}
