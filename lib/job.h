/* SPDX-License-Identifier: BSD-3-Clause
 *
 * job.h - work in the background that takes long, can be watched, slowed down and cancelled: add, remove, rebalance ...
 *
 * Structure: a thread for each running job; those that have ended are kept, the last JOBS_KEPT of them, for who asks.
 * Unit:      progress in bytes.
 * Locking:   all functions may be called by any thread; job_* with a job only by its own. The jobs' mutex is a leaf.
 * Memory:    taken when a job starts. Not for the I/O path.
 * Errors:    0 or -errno.
 */
#ifndef DRUM_JOB_H
#define DRUM_JOB_H

#include <stdbool.h>
#include <stdint.h>

struct job;
struct jobs;

enum {
  JOBS_MAX = 64,   /* running at once */
  JOBS_KEPT = 64,  /* that have ended */
  JOB_LISTED = 16, /* pages listed as unreadable */
};

enum job_kind {
  JOB_ADD,
  JOB_REMOVE,
  JOB_REBALANCE,
  JOB_EVACUATE,
  JOB_SCRUB,
  JOB_SHUTDOWN,
  JOB_EXPORT_REMOVE,
  JOB_EXPORT_RESIZE,
  JOB_EXPORT_MOVE,
};
enum job_state { JOB_RUNNING, JOB_DONE, JOB_FAILED, JOB_CANCELLED };

struct job_page {
  char export[64]; /* cut if it is longer */
  uint64_t page;
};

/* A copy, the caller's. */
struct job_info {
  uint64_t id;
  enum job_kind kind;
  enum job_state state;
  int result;   /* of its function, once it has ended */
  char *device; /* or export, if its kind says so; NULL if it is about none in particular */
  uint64_t done_bytes, total_bytes;
  uint64_t rate; /* bytes a second; 0: no limit */
  uint64_t elapsed_ns;
  uint64_t nunreadable, nlost; /* pages */
  struct job_page unreadable[JOB_LISTED];
  char *error;    /* why it failed; NULL */
  char *warnings; /* lines; NULL */
};

/* What a job does; its result: 0, -ECANCELED if it stopped because it was cancelled, or another -errno. What it logs as
 * warnings, and as errors if it fails, becomes the job's, when it has ended; a failure without a word is described by its errno. */
typedef int job_main (struct job *job, void *opaque);

/* Called by a job's thread after its end, with no lock held; jobs_destroy waits for it, too. */
typedef void job_end (void *opaque, enum job_kind kind, enum job_state state);

/* ended may be NULL. */
int jobs_create (job_end *ended, void *opaque, struct jobs **jobs);

/* Cancel all, wait for them, and forget them. Nobody may be in another of these functions. NULL is fine. */
void jobs_destroy (struct jobs *jobs);

/* Run main in a thread of its own. device is copied. *id counts from 1. -EBUSY: too many run; -ENOMEM, -EAGAIN: there can be no thread. */
int jobs_start (struct jobs *jobs, enum job_kind kind, const char *device, uint64_t rate,
                job_main *main, void *opaque, uint64_t *id);

/* Ask a job to stop. -ENOENT if there is none with this number; fine if it has ended. */
int jobs_cancel (struct jobs *jobs, uint64_t id);

/* Wait until it has ended. -ENOENT */
int jobs_wait (struct jobs *jobs, uint64_t id);

/* -ENOENT; -ENOMEM. */
int jobs_get (struct jobs *jobs, uint64_t id, struct job_info *info);
void job_info_free (struct job_info *info);

/* Call each for every job, oldest first, with no lock held, with a copy that is its until it returns. -ENOMEM */
int jobs_list (struct jobs *jobs, void (*each) (void *opaque, const struct job_info *info),
               void *opaque);

/* For the job's own thread. */
bool job_is_cancelled (struct job *job);
void job_progress (struct job *job, uint64_t done_bytes, uint64_t total_bytes);

/* Pages that could not be read: counted, and the first ones listed. A new pass over them begins with none. */
void job_unreadable (struct job *job, const char *export, uint64_t page);
void job_reset_unreadable (struct job *job);
void job_lost (struct job *job, uint64_t npages);

/* How many bytes to move (or read) at once: at the job's rate, what it may in 4 ms, in whole pages; at least one, at most max_bytes. */
uint32_t job_piece_bytes (const struct job *job, uint32_t max_bytes);

/* bytes were moved: sleep as long as the rate asks for; a pause since the last call gives no right to a burst. Also how a
 * job waits for what has no event: job_sleep. Both return at once when the job is cancelled, and then return -ECANCELED. */
int job_pace (struct job *job, uint32_t bytes);
int job_sleep (struct job *job, unsigned ms);

#endif
