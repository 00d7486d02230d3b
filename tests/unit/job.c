/* SPDX-License-Identifier: BSD-3-Clause
 *
 * job.c - tests of lib/job.c.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/job.h"
#include "tests/scratch.h"
#include "lib/log.h"
#include "lib/stats.h"
#include "lib/units.h"

#include "logged.h"

static struct jobs *jobs;
static atomic_uint nended;
static sem_t may_end;

/* Slowly, so that who does not wait for it is found out. */
static void
count_ended (void *opaque, enum job_kind kind, enum job_state state)
{
  (void) kind, (void) state;
  for (unsigned i = 0; i < 100; i++)
    sched_yield ();
  atomic_fetch_add ((atomic_uint *) opaque, 1);
}

static void
setup (void)
{
  logged_start ();
  sem_init (&may_end, 0, 0);
  cr_assert_eq (jobs_create (count_ended, &nended, &jobs), 0);
}

static void
teardown (void)
{
  jobs_destroy (jobs);
}

TestSuite (job, .init = setup, .fini = teardown, .timeout = 60);

/* What a test expects of one start. */
static uint64_t
start (uint64_t rate, job_main *main, void *opaque)
{
  uint64_t id = 0;

  cr_assert_eq (jobs_start (jobs, JOB_REMOVE, "/srv/a", rate, main, opaque, &id), 0);
  return id;
}

static struct job_info
get (uint64_t id)
{
  struct job_info info;

  cr_assert_eq (jobs_get (jobs, id, &info), 0, "job %" PRIu64, id);
  keep_for_test (info.device);
  keep_for_test (info.error);
  keep_for_test (info.warnings);
  return info;
}

static struct job_info
wait_and_get (uint64_t id)
{
  cr_assert_eq (jobs_wait (jobs, id), 0);
  return get (id);
}

static void
assert_state (uint64_t id, enum job_state state)
{
  struct job_info info = wait_and_get (id);

  cr_assert (info.state == state, "job %" PRIu64 " is %d", id, info.state);
  job_info_free (&info);
}

static int
return_value (struct job *job, void *opaque)
{
  (void) job;
  return *(int *) opaque;
}

static int
wait_for_may_end (struct job *job, void *opaque)
{
  (void) job;
  (void) opaque;
  while (sem_wait (&may_end) == -1)
    ;
  return 0;
}

static int
sleep_until_cancelled (struct job *job, void *opaque)
{
  if (opaque)
    sem_post (opaque);
  return job_sleep (job, 3600000);
}

static int
fail_when_cancelled (struct job *job, void *opaque)
{
  sleep_until_cancelled (job, opaque);
  return -EIO;
}

static int zero;

/* Jobs have numbers from 1 on, and say what they are. */
Test (job, tells_what_it_is)
{
  uint64_t first = start (7, return_value, &zero), second = 77;
  struct job_info info = wait_and_get (first);

  cr_assert_eq (first, 1);
  cr_assert_eq (info.id, 1);
  cr_assert (info.kind == JOB_REMOVE);
  cr_assert (info.state == JOB_DONE);
  cr_assert_str_eq (info.device, "/srv/a");
  cr_assert_eq (info.rate, 7);
  cr_assert_null (info.error);
  cr_assert_null (info.warnings);
  job_info_free (&info);

  cr_assert_eq (jobs_start (jobs, JOB_REBALANCE, NULL, 0, return_value, &zero, &second), 0);
  info = wait_and_get (second);
  cr_assert_eq (second, 2);
  cr_assert (info.kind == JOB_REBALANCE);
  cr_assert_null (info.device);
}

/* The device's name is the job's own copy, and so is what jobs_get gives. */
Test (job, copies_strings)
{
  char device[] = "/srv/b";
  struct job_info info;
  uint64_t id;

  cr_assert_eq (jobs_start (jobs, JOB_ADD, device, 0, wait_for_may_end, NULL, &id), 0);
  memset (device, 'x', sizeof device - 1);
  info = get (id);
  cr_assert_str_eq (info.device, "/srv/b");
  info.device[0] = 'x';
  sem_post (&may_end);
  job_info_free (&info);
  info = wait_and_get (id);
  cr_assert_str_eq (info.device, "/srv/b");
}

/* No such job: -ENOENT, and outputs stay as they were. */
Test (job, there_is_none)
{
  struct job_info info = { .id = 77 };
  uint64_t id = start (0, return_value, &zero);

  cr_assert_eq (jobs_get (jobs, id + 1, &info), -ENOENT);
  cr_assert_eq (info.id, 77);
  cr_assert_eq (jobs_get (jobs, 0, &info), -ENOENT);
  cr_assert_eq (jobs_wait (jobs, id + 1), -ENOENT);
  cr_assert_eq (jobs_cancel (jobs, id + 1), -ENOENT);
}

/* A failure is what the job logged, or the errno if it logged nothing; errors go nowhere else, warnings do. */
Test (job, failure_has_a_reason)
{
  int eio = -EIO;
  struct job_info info = wait_and_get (start (0, return_value, &eio));

  cr_assert (info.state == JOB_FAILED);
  cr_assert_str_eq (info.error, strerror (EIO));
}

static int
complain (struct job *job, void *opaque)
{
  (void) job;
  log_warning ("first warning");
  log_error ("%s: is broken", "/srv/a");
  log_warning ("second warning");
  return *(int *) opaque;
}

Test (job, keeps_what_was_logged)
{
  int eio = -EIO;
  struct job_info info = wait_and_get (start (0, complain, &eio));

  cr_assert (info.state == JOB_FAILED);
  cr_assert_str_eq (info.error, "/srv/a: is broken");
  cr_assert_str_eq (info.warnings, "first warning\nsecond warning");
  cr_assert_eq (logged_count ("broken"), 1);
  cr_assert_eq (logged_count ("warning"), 2);
}

/* One that did what it was to do has no error, whatever it met. */
Test (job, done_has_no_error)
{
  int ok = 0;
  struct job_info info = wait_and_get (start (0, complain, &ok));

  cr_assert (info.state == JOB_DONE);
  cr_assert_null (info.error);
  cr_assert_str_eq (info.warnings, "first warning\nsecond warning");
  cr_assert_eq (logged_count ("broken"), 1);
}

/* Cancelled is who says so and was: not who ends well all the same, or fails with that errno by itself. */
Test (job, cancelled_only_if_it_stopped)
{
  int ecanceled = -ECANCELED;
  uint64_t id = start (0, sleep_until_cancelled, NULL);

  cr_assert_eq (jobs_cancel (jobs, id), 0);
  assert_state (id, JOB_CANCELLED);
  cr_assert_eq (jobs_cancel (jobs, id), 0, "a job that has ended may be cancelled");
  assert_state (id, JOB_CANCELLED);

  id = start (0, wait_for_may_end, NULL);
  cr_assert_eq (jobs_cancel (jobs, id), 0);
  sem_post (&may_end);
  assert_state (id, JOB_DONE);

  id = start (0, fail_when_cancelled, NULL);
  cr_assert_eq (jobs_cancel (jobs, id), 0);
  assert_state (id, JOB_FAILED);

  assert_state (start (0, return_value, &ecanceled), JOB_FAILED);
}

/* Cancel one of several that sleep: that one ends at once, and the others sleep on. */
Test (job, cancel_wakes_the_one)
{
  sem_t sleeping;
  uint64_t id[3], began;

  sem_init (&sleeping, 0, 0);
  for (unsigned i = 0; i < 3; i++)
    id[i] = start (0, sleep_until_cancelled, &sleeping);
  for (unsigned i = 0; i < 3; i++)
    sem_wait (&sleeping);
  began = now_ns ();
  jobs_cancel (jobs, id[1]);
  assert_state (id[1], JOB_CANCELLED);
  cr_assert_lt (now_ns () - began, UINT64_C (10000000000));
  for (unsigned i = 0; i < 3; i += 2) {
    struct job_info info = get (id[i]);

    cr_assert (info.state == JOB_RUNNING);
    job_info_free (&info);
  }
}

static int
pace_until_cancelled (struct job *job, void *opaque)
{
  (void) opaque;
  return job_pace (job, UINT32_MAX);
}

/* So does a job that its rate keeps waiting, be it for a century. */
Test (job, cancel_wakes_who_is_paced)
{
  uint64_t id = start (1, pace_until_cancelled, NULL);

  jobs_cancel (jobs, id);
  assert_state (id, JOB_CANCELLED);
}

/* The end of all jobs is the end of each. */
Test (job, destroy_cancels_and_waits)
{
  for (unsigned i = 0; i < 10; i++)
    start (0, sleep_until_cancelled, NULL);
  jobs_destroy (jobs);
  cr_assert_eq (atomic_load (&nended), 10);
  cr_assert_eq (jobs_create (NULL, NULL, &jobs), 0);
  jobs_destroy (jobs);
  jobs_destroy (NULL);
  cr_assert_eq (jobs_create (NULL, NULL, &jobs), 0);
  assert_state (start (0, return_value, &zero), JOB_DONE);
}

/* So many run at once, and no more; when one has ended, another may begin. */
Test (job, at_most_so_many)
{
  uint64_t id, refused = 77;

  for (unsigned i = 0; i < JOBS_MAX; i++)
    id = start (0, wait_for_may_end, NULL);
  cr_assert_eq (jobs_start (jobs, JOB_ADD, "/srv/c", 0, return_value, &zero, &refused), -EBUSY);
  cr_assert_eq (refused, 77);
  for (unsigned i = 0; i < JOBS_MAX; i++)
    sem_post (&may_end);
  jobs_wait (jobs, id); /* -ENOENT if so many ended after it that it is forgotten */
  cr_assert_eq (start (0, return_value, &zero), id + 1);
}

static uint64_t listed[2 * JOBS_KEPT];
static unsigned nlisted;

static void
add_to_list (void *opaque, const struct job_info *info)
{
  cr_assert_eq (opaque, listed);
  cr_assert_str_eq (info->device, "/srv/a");
  listed[nlisted++] = info->id;
}

/* Of the jobs that have ended, those that ended last are kept; those that run are, in any case. Oldest first. */
Test (job, keeps_the_last)
{
  uint64_t slow = start (0, wait_for_may_end, NULL),
           running = start (0, sleep_until_cancelled, NULL);

  for (unsigned i = 0; i < JOBS_KEPT + 5; i++)
    assert_state (start (0, return_value, &zero), JOB_DONE);
  sem_post (&may_end);
  cr_assert_eq (jobs_wait (jobs, slow), 0);
  cr_assert_eq (jobs_list (jobs, add_to_list, listed), 0);
  cr_assert_eq (nlisted, JOBS_KEPT + 1);
  cr_assert_eq (listed[0], slow, "what ended last is gone");
  cr_assert_eq (listed[1], running);
  for (unsigned i = 2; i < nlisted; i++)
    cr_assert_eq (listed[i], running + 5 + i, "%u: %" PRIu64, i, listed[i]);
  cr_assert_eq (jobs_wait (jobs, running + 1), -ENOENT);
}

static uint64_t
mapped_bytes (void)
{
  FILE *f = fopen ("/proc/self/statm", "re");
  uint64_t npages;

  cr_assert_eq (fscanf (f, "%" SCNu64, &npages), 1);
  fclose (f);
  return npages * (uint64_t) sysconf (_SC_PAGESIZE);
}

/* A thread that has ended leaves no stack behind, though nobody asks for its job. */
Test (job, threads_are_joined)
{
  enum { N = 1000 };
  uint64_t before = mapped_bytes ();
  pthread_attr_t attr;
  size_t stack;

  pthread_getattr_default_np (&attr);
  pthread_attr_getstacksize (&attr, &stack);
  for (unsigned i = 0; i < N; i++) {
    start (0, return_value, &zero);
    while (atomic_load (&nended) < i)
      sched_yield ();
  }
  cr_assert_lt (mapped_bytes (), before + N / 2 * stack);
}

static struct jobs *seen_jobs;
static sem_t seen;
static atomic_int seen_state, told_kind, told_state;

static void
look (void *opaque, enum job_kind kind, enum job_state state)
{
  struct job_info info;

  (void) opaque;
  jobs_get (seen_jobs, 1, &info);
  atomic_store (&told_kind, (int) kind);
  atomic_store (&told_state, (int) state);
  atomic_store (&seen_state, (int) info.state);
  job_info_free (&info);
  sem_post (&seen);
}

/* ended is called when the end can already be seen. */
Test (job, ended_is_called_at_the_end)
{
  uint64_t id;

  sem_init (&seen, 0, 0);
  atomic_store (&seen_state, -1);
  cr_assert_eq (jobs_create (look, NULL, &seen_jobs), 0);
  cr_assert_eq (jobs_start (seen_jobs, JOB_ADD, NULL, 0, return_value, &zero, &id), 0);
  sem_wait (&seen);
  cr_assert_eq (atomic_load (&seen_state), JOB_DONE);
  cr_assert_eq (atomic_load (&told_state), JOB_DONE);
  cr_assert_eq (atomic_load (&told_kind), JOB_ADD);
  jobs_destroy (seen_jobs);
}

static int
report (struct job *job, void *opaque)
{
  char long_name[100];

  (void) opaque;
  memset (long_name, 'n', sizeof long_name - 1);
  long_name[sizeof long_name - 1] = '\0';
  job_unreadable (job, "gone", 99);
  job_reset_unreadable (job);
  for (unsigned i = 0; i < JOB_LISTED + 3; i++)
    job_unreadable (job, i ? "e" : long_name, 1000 + i);
  job_lost (job, 2);
  job_lost (job, 3);
  job_progress (job, 4096, 40960);
  sem_post (&seen);
  return wait_for_may_end (job, NULL);
}

/* Progress can be watched; of the unreadable pages the first are listed, and all are counted. */
Test (job, shows_its_progress)
{
  struct job_info info;
  uint64_t id, elapsed;

  sem_init (&seen, 0, 0);
  id = start (0, report, NULL);
  sem_wait (&seen);
  info = get (id);
  cr_assert (info.state == JOB_RUNNING);
  cr_assert_eq (info.done_bytes, 4096);
  cr_assert_eq (info.total_bytes, 40960);
  cr_assert_eq (info.nlost, 5);
  cr_assert_eq (info.nunreadable, JOB_LISTED + 3);
  cr_assert_eq (strlen (info.unreadable[0].export), sizeof info.unreadable[0].export - 1);
  for (unsigned i = 0; i < JOB_LISTED; i++)
    cr_assert_eq (info.unreadable[i].page, 1000 + i);
  cr_assert_str_eq (info.unreadable[JOB_LISTED - 1].export, "e");
  elapsed = info.elapsed_ns;
  cr_assert_gt (elapsed, 0);
  job_info_free (&info);

  sem_post (&may_end);
  info = wait_and_get (id);
  cr_assert_geq (info.elapsed_ns, elapsed);
  elapsed = info.elapsed_ns;
  cr_assert_eq (get (id).elapsed_ns, elapsed, "the clock goes on after the end");
}

static int
check_signals (struct job *job, void *opaque)
{
  sigset_t blocked;

  (void) job;
  (void) opaque;
  pthread_sigmask (SIG_BLOCK, NULL, &blocked);
  return sigismember (&blocked, SIGTERM) && sigismember (&blocked, SIGALRM) ? 0 : -EINVAL;
}

/* Signals are for the program's own threads, whose mask stays as it was. */
Test (job, takes_no_signals)
{
  sigset_t blocked;

  assert_state (start (0, check_signals, NULL), JOB_DONE);
  pthread_sigmask (SIG_BLOCK, NULL, &blocked);
  cr_assert_eq (sigismember (&blocked, SIGTERM), 0);
}

struct piece {
  uint64_t rate;
  uint32_t max, bytes;
};

static int
measure_piece (struct job *job, void *opaque)
{
  struct piece *p = opaque;

  p->bytes = job_piece_bytes (job, p->max);
  return 0;
}

/* A piece is what the rate allows in 4 ms, in whole pages, but at least one. */
Test (job, pieces_fit_the_rate)
{
  static const struct piece pieces[] = {
    { 0, 1 << 20, 1 << 20 },
    { 1, 1 << 20, PAGE_BYTES },
    { 250 * PAGE_BYTES - 1, 1 << 20, PAGE_BYTES },
    { 250 * 2 * PAGE_BYTES - 1, 1 << 20, PAGE_BYTES },
    { 250 * 2 * PAGE_BYTES, 1 << 20, 2 * PAGE_BYTES },
    { 250 << 20, 1 << 20, 1 << 20 },
    { 251 << 20, 1 << 20, 1 << 20 },
    { UINT64_MAX, 1 << 20, 1 << 20 },
  };

  for (unsigned i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
    struct piece p = pieces[i];

    assert_state (start (p.rate, measure_piece, &p), JOB_DONE);
    cr_assert_eq (p.bytes, pieces[i].bytes, "rate %" PRIu64 ": %u", p.rate, p.bytes);
  }
}

enum { RATE = 1 << 20, PIECE = RATE / 250, NPIECES = 75 }; /* 300 ms of them */

struct paced {
  unsigned pause_ms; /* before the first */
  uint64_t began, ended;
};

static int
move_pieces (struct job *job, void *opaque)
{
  struct paced *p = opaque;

  nanosleep (&(struct timespec){ .tv_nsec = p->pause_ms * 1000000L }, NULL);
  p->began = now_ns ();
  for (unsigned i = 0; i < NPIECES; i++)
    if (job_pace (job, PIECE) < 0)
      return -EIO;
  p->ended = now_ns ();
  return 0;
}

/* Pieces go at the rate, and not at half of it, whether they begin at once or after a pause; there is never a credit of more
 * than one piece. */
Test (job, keeps_its_rate)
{
  static const unsigned pauses[] = { 0, 500 };

  for (unsigned i = 0; i < 2; i++) {
    struct paced p = { .pause_ms = pauses[i] };
    double ms, least = (NPIECES - 1) * 1000.0 * PIECE / RATE;
    unsigned tries = 0;

    do { /* a machine that is busy may take any time, but not always */
      assert_state (start (RATE, move_pieces, &p), JOB_DONE);
      ms = (double) (p.ended - p.began) / 1e6;
      cr_assert_geq (ms, least - 0.001, "after %u ms: %f", pauses[i], ms);
    } while (ms >= 2 * least && ++tries < 10);
    cr_assert_lt (ms, 2 * least, "after %u ms: %f", pauses[i], ms);
  }
}

/* Without a rate, nobody waits. */
Test (job, no_rate_no_wait)
{
  struct paced p = { .pause_ms = 0 };

  assert_state (start (0, move_pieces, &p), JOB_DONE);
  cr_assert_lt (p.ended - p.began, 200000000);
}

static int
sleep_20_ms (struct job *job, void *opaque)
{
  uint64_t began = now_ns ();
  int ret = job_sleep (job, 20);

  *(uint64_t *) opaque = now_ns () - began;
  return ret;
}

/* A sleep takes its time, though others' jobs are cancelled meanwhile. */
Test (job, sleeps)
{
  uint64_t slept, other = start (0, sleep_until_cancelled, NULL),
                  id = start (0, sleep_20_ms, &slept);

  jobs_cancel (jobs, other);
  assert_state (id, JOB_DONE);
  cr_assert_geq (slept, 20000000);
}

static atomic_bool stop;

static void *
watch (void *opaque)
{
  (void) opaque;
  while (!atomic_load (&stop))
    for (uint64_t id = 1; id < 200; id += 7) {
      struct job_info info;

      if (jobs_get (jobs, id, &info) == 0)
        job_info_free (&info);
      jobs_cancel (jobs, id + 3);
    }
  return NULL;
}

static int
work_a_little (struct job *job, void *opaque)
{
  (void) opaque;
  for (unsigned i = 0; i < 20; i++) {
    job_progress (job, i, 20);
    job_unreadable (job, "", i);
    if (job_pace (job, 4096) < 0)
      return -ECANCELED;
  }
  return 0;
}

/* Starts, ends, looks and cancellations from several threads at once: each job ends, and each end is told. */
Test (job, many_at_once)
{
  pthread_t watcher[2];
  uint64_t id;

  for (unsigned i = 0; i < 2; i++)
    cr_assert_eq (pthread_create (&watcher[i], NULL, watch, NULL), 0);
  for (unsigned i = 0; i < 200; i++)
    while (jobs_start (jobs, JOB_ADD, "/srv/a", 1 << 26, work_a_little, NULL, &id) == -EBUSY)
      jobs_wait (jobs, id > 32 ? id - 32 : id);
  atomic_store (&stop, true);
  for (unsigned i = 0; i < 2; i++)
    pthread_join (watcher[i], NULL);
  jobs_destroy (jobs);
  jobs = NULL;
  cr_assert_eq (atomic_load (&nended), 200);
}
