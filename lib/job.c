/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "job.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "mutex.h"
#include "stats.h"
#include "thread.h"
#include "units.h"

enum { NS_PER_MS = 1000000, NS_PER_SECOND = 1000000000, PIECES_PER_SECOND = 250 };

struct job {
  struct jobs *jobs;
  struct job *next;
  struct job_info info; /* its strings are ours; elapsed_ns only once it has ended */
  job_main *main;
  void *opaque;
  uint64_t started_ns;
  uint64_t nth_ended;    /* the how-manieth of all */
  atomic_bool cancelled; /* set under the mutex, which sleepers hold when they look */
  uint64_t paced_ns;     /* its thread's own: what was moved until now is paid for until then */
};

struct jobs {
  struct mutex mutex;
  pthread_cond_t woken; /* some job was cancelled */
  pthread_cond_t ended; /* some job, or thread, has */
  struct job *first;    /* oldest first */
  uint64_t last_id, last_ended;
  unsigned nrunning, nkept;
  unsigned nthreads;   /* that have not yet left */
  pthread_t last_left; /* joined by the next thread that leaves */
  bool has_last_left;
  job_end *call_ended;
  void *opaque;
};

static void
job_free (struct job *job)
{
  job_info_free (&job->info);
  free (job);
}

int
jobs_create (job_end *ended, void *opaque, struct jobs **ret)
{
  struct jobs *jobs = calloc (1, sizeof *jobs);
  pthread_condattr_t attr;

  if (!jobs)
    return -ENOMEM;
  mutex_init (&jobs->mutex);
  pthread_condattr_init (&attr);
  pthread_condattr_setclock (&attr, CLOCK_MONOTONIC);
  pthread_cond_init (&jobs->woken, &attr);
  pthread_cond_init (&jobs->ended, &attr);
  pthread_condattr_destroy (&attr);
  jobs->call_ended = ended;
  jobs->opaque = opaque;
  *ret = jobs;
  return 0;
}

void
jobs_destroy (struct jobs *jobs)
{
  if (!jobs)
    return;
  mutex_lock (&jobs->mutex);
  for (struct job *job = jobs->first; job; job = job->next)
    atomic_store (&job->cancelled, true);
  pthread_cond_broadcast (&jobs->woken);
  while (jobs->nthreads > 0)
    mutex_wait (&jobs->mutex, &jobs->ended);
  mutex_unlock (&jobs->mutex);

  if (jobs->has_last_left)
    pthread_join (jobs->last_left, NULL);
  while (jobs->first) {
    struct job *job = jobs->first;

    jobs->first = job->next;
    job_free (job);
  }
  pthread_cond_destroy (&jobs->woken);
  pthread_cond_destroy (&jobs->ended);
  mutex_destroy (&jobs->mutex);
  free (jobs);
}

/* => jobs->mutex held. The place of the job's link, in which NULL stands if there is none. */
static struct job **
find_locked (struct jobs *jobs, uint64_t id)
{
  struct job **link = &jobs->first;

  mutex_assert_held (&jobs->mutex);
  while (*link && (*link)->info.id != id)
    link = &(*link)->next;
  return link;
}

/* => jobs->mutex held. */
static void
forget_first_ended_locked (struct jobs *jobs)
{
  struct job **oldest = NULL, *job;

  mutex_assert_held (&jobs->mutex);
  for (struct job **link = &jobs->first; *link; link = &(*link)->next)
    if ((*link)->info.state != JOB_RUNNING &&
        (!oldest || (*link)->nth_ended < (*oldest)->nth_ended))
      oldest = link;
  job = *oldest;
  *oldest = job->next;
  job_free (job);
  jobs->nkept--;
}

static enum job_state
state_of_result (const struct job *job, int ret)
{
  if (ret == 0)
    return JOB_DONE;
  return ret == -ECANCELED && atomic_load (&job->cancelled) ? JOB_CANCELLED : JOB_FAILED;
}

/* Its state; the job may be gone when this returns. */
static enum job_state
end (struct jobs *jobs, struct job *job, int ret, const struct log_capture *said)
{
  enum job_state state = state_of_result (job, ret);

  mutex_lock (&jobs->mutex);
  job->info.state = state;
  job->info.result = ret;
  job->info.warnings = said->warnings;
  if (state != JOB_FAILED)
    free (said->errors);
  else
    job->info.error = said->errors ? said->errors : strdup (strerror (-ret));
  job->info.elapsed_ns = now_ns () - job->started_ns;
  job->nth_ended = ++jobs->last_ended;
  jobs->nrunning--;
  jobs->nkept++;
  if (jobs->nkept > JOBS_KEPT)
    forget_first_ended_locked (jobs);
  pthread_cond_broadcast (&jobs->ended);
  mutex_unlock (&jobs->mutex);
  return state;
}

/* Somebody must join each thread: the next one that leaves, and jobs_destroy the last. */
static void
leave (struct jobs *jobs)
{
  pthread_t before;
  bool has_before;

  mutex_lock (&jobs->mutex);
  before = jobs->last_left;
  has_before = jobs->has_last_left;
  jobs->last_left = pthread_self ();
  jobs->has_last_left = true;
  jobs->nthreads--;
  pthread_cond_broadcast (&jobs->ended);
  mutex_unlock (&jobs->mutex);
  if (has_before)
    pthread_join (before, NULL);
}

static void *
thread_main (void *arg)
{
  struct job *job = arg;
  struct jobs *jobs = job->jobs;
  enum job_kind kind = job->info.kind;
  enum job_state state;
  struct log_capture said;
  int ret;

  log_capture_begin (&said, false);
  ret = job->main (job, job->opaque);
  log_capture_end ();
  state = end (jobs, job, ret, &said);
  if (jobs->call_ended)
    jobs->call_ended (jobs->opaque, kind, state);
  leave (jobs);
  return NULL;
}

/* => jobs->mutex held. */
static int
start_locked (struct jobs *jobs, struct job *job)
{
  pthread_t thread;
  int ret;

  mutex_assert_held (&jobs->mutex);
  if (jobs->nrunning == JOBS_MAX)
    return -EBUSY;
  job->info.id = jobs->last_id + 1;
  job->started_ns = job->paced_ns = now_ns ();
  ret = thread_start (&thread, "drum-job", thread_main, job);
  if (ret < 0)
    return ret;
  *find_locked (jobs, job->info.id) = job;
  jobs->last_id++;
  jobs->nrunning++;
  jobs->nthreads++;
  return 0;
}

int
jobs_start (struct jobs *jobs, enum job_kind kind, const char *device, uint64_t rate,
            job_main *main, void *opaque, uint64_t *id)
{
  struct job *job = calloc (1, sizeof *job);
  int ret = -ENOMEM;

  if (!job)
    return ret;
  job->jobs = jobs;
  job->main = main;
  job->opaque = opaque;
  job->info.kind = kind;
  job->info.rate = rate;
  if (device && !(job->info.device = strdup (device)))
    goto fail;

  mutex_lock (&jobs->mutex);
  ret = start_locked (jobs, job);
  if (ret == 0)
    *id = job->info.id;
  mutex_unlock (&jobs->mutex);
  if (ret == 0)
    return 0;
fail:
  job_free (job);
  return ret;
}

int
jobs_cancel (struct jobs *jobs, uint64_t id)
{
  struct job *job;

  mutex_lock (&jobs->mutex);
  job = *find_locked (jobs, id);
  if (job) {
    atomic_store (&job->cancelled, true);
    pthread_cond_broadcast (&jobs->woken);
  }
  mutex_unlock (&jobs->mutex);
  return job ? 0 : -ENOENT;
}

int
jobs_wait (struct jobs *jobs, uint64_t id)
{
  struct job *job;
  int ret;

  mutex_lock (&jobs->mutex);
  job = *find_locked (jobs, id);
  ret = job ? 0 : -ENOENT;
  while (job && job->info.state == JOB_RUNNING) {
    mutex_wait (&jobs->mutex, &jobs->ended);
    job = *find_locked (jobs, id); /* it may have ended so long ago that it is forgotten */
  }
  mutex_unlock (&jobs->mutex);
  return ret;
}

static bool
copy_string (char **to, const char *from)
{
  *to = from ? strdup (from) : NULL;
  return *to || !from;
}

/* => jobs->mutex held. */
static int
copy_locked (const struct job *job, struct job_info *info)
{
  const struct job_info *from = &job->info;
  struct job_info copy = *from;
  bool ok;

  mutex_assert_held (&job->jobs->mutex);
  ok = copy_string (&copy.device, from->device);
  ok &= copy_string (&copy.error, from->error);
  ok &= copy_string (&copy.warnings, from->warnings);
  if (!ok) {
    job_info_free (&copy);
    return -ENOMEM;
  }
  if (copy.state == JOB_RUNNING)
    copy.elapsed_ns = now_ns () - job->started_ns;
  *info = copy;
  return 0;
}

int
jobs_get (struct jobs *jobs, uint64_t id, struct job_info *info)
{
  struct job *job;
  int ret;

  mutex_lock (&jobs->mutex);
  job = *find_locked (jobs, id);
  ret = job ? copy_locked (job, info) : -ENOENT;
  mutex_unlock (&jobs->mutex);
  return ret;
}

void
job_info_free (struct job_info *info)
{
  free (info->device);
  free (info->error);
  free (info->warnings);
}

/* The oldest job whose number is larger than id. */
static int
get_next (struct jobs *jobs, uint64_t id, struct job_info *info)
{
  struct job *job;
  int ret;

  mutex_lock (&jobs->mutex);
  for (job = jobs->first; job && job->info.id <= id; job = job->next)
    ;
  ret = job ? copy_locked (job, info) : -ENOENT;
  mutex_unlock (&jobs->mutex);
  return ret;
}

int
jobs_list (struct jobs *jobs, void (*each) (void *opaque, const struct job_info *info),
           void *opaque)
{
  struct job_info info = { .id = 0 };
  int ret;

  while ((ret = get_next (jobs, info.id, &info)) == 0) {
    each (opaque, &info);
    job_info_free (&info);
  }
  return ret == -ENOENT ? 0 : ret;
}

bool
job_is_cancelled (struct job *job)
{
  return atomic_load_explicit (&job->cancelled, memory_order_relaxed);
}

void
job_progress (struct job *job, uint64_t done_bytes, uint64_t total_bytes)
{
  mutex_lock (&job->jobs->mutex);
  job->info.done_bytes = done_bytes;
  job->info.total_bytes = total_bytes;
  mutex_unlock (&job->jobs->mutex);
}

void
job_unreadable (struct job *job, const char *export, uint64_t page)
{
  struct job_info *info = &job->info;

  mutex_lock (&job->jobs->mutex);
  if (info->nunreadable < JOB_LISTED) {
    struct job_page *listed = &info->unreadable[info->nunreadable];

    snprintf (listed->export, sizeof listed->export, "%s", export);
    listed->page = page;
  }
  info->nunreadable++;
  mutex_unlock (&job->jobs->mutex);
}

void
job_reset_unreadable (struct job *job)
{
  mutex_lock (&job->jobs->mutex);
  job->info.nunreadable = 0;
  mutex_unlock (&job->jobs->mutex);
}

void
job_lost (struct job *job, uint64_t npages)
{
  mutex_lock (&job->jobs->mutex);
  job->info.nlost += npages;
  mutex_unlock (&job->jobs->mutex);
}

uint32_t
job_piece_bytes (const struct job *job, uint32_t max_bytes)
{
  uint64_t bytes = job->info.rate / PIECES_PER_SECOND;

  if (job->info.rate == 0 || bytes >= max_bytes)
    return max_bytes;
  return bytes < PAGE_BYTES ? PAGE_BYTES : (uint32_t) bytes / PAGE_BYTES * PAGE_BYTES;
}

/* 0 at then_ns, or -ECANCELED. */
static int
sleep_until (struct job *job, uint64_t then_ns)
{
  struct timespec then = { .tv_sec = (time_t) (then_ns / NS_PER_SECOND),
                           .tv_nsec = (long) (then_ns % NS_PER_SECOND) };
  struct jobs *jobs = job->jobs;

  mutex_lock (&jobs->mutex);
  while (!job_is_cancelled (job) && now_ns () < then_ns)
    mutex_timedwait (&jobs->mutex, &jobs->woken, &then);
  mutex_unlock (&jobs->mutex);
  return job_is_cancelled (job) ? -ECANCELED : 0;
}

/* What was moved before is paid for by time that has passed since then; time beyond that buys nothing. So the rate holds for
 * pieces that follow one another, and after a pause there is no burst. */
int
job_pace (struct job *job, uint32_t bytes)
{
  uint64_t rate = job->info.rate, now = now_ns ();

  job->paced_ns += rate ? (uint64_t) bytes * NS_PER_SECOND / rate : 0;
  if (job->paced_ns < now)
    job->paced_ns = now;
  return sleep_until (job, job->paced_ns);
}

int
job_sleep (struct job *job, unsigned ms)
{
  return sleep_until (job, now_ns () + (uint64_t) ms * NS_PER_MS);
}
