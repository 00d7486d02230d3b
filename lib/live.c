/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "live.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "drum-devices.h"
#include "drum-health.h"
#include "evacuate.h"
#include "export.h"
#include "exports.h"
#include "job.h"
#include "log.h"
#include "medic.h"
#include "mutex.h"
#include "prealloc.h"
#include "scrub.h"
#include "service.h"
#include "session.h"
#include "stats.h"
#include "swapdev.h"
#include "watchdog.h"

enum { REAPER_MS = 1000 }; /* how often exports are looked at that nobody may use any more */

/* A device that is being added (NetBSD's SWF_FAKE): keeps a second one of the same path away. */
struct adding {
  struct live *live;
  struct adding *next;
  struct swapdev_spec spec;
};

struct live {
  struct mutex mutex;
  struct service *service;
  struct jobs *jobs;
  struct medic *medic;
  struct watchdog *reaper; /* of exports that nobody uses; NULL: none ever goes */
  struct adding *adding;
  atomic_bool stopping;
  bool rebalancing;
  bool halting; /* or halted, for good */
  unsigned halt_timeout_ms;
  uint64_t last_shutdown;
  uint64_t started_ns;
};

/* What a job about a device that is there needs to know; its own. */
struct task {
  struct live *live;
  struct swapdev *dev; /* NULL, and no path: about all of them */
  char *path;          /* the device may be gone in the end; or name of an export */
  bool force;
  char *to;            /* the other export; NULL */
  uint64_t size_bytes; /* that the export is to have */
  enum job_kind kind;  /* of an export's */
};

static void resume_removals (struct live *live);
static struct evacuation everything (struct live *live);
static void failing (void *opaque, struct swapdev *dev);

/* A watchdog's scan. */
static void
reap (void *service, uint64_t now_ns)
{
  (void) now_ns;
  service_expire (service);
}

int
live_create (struct service *service, job_end *ended, void *opaque, struct live **livep)
{
  struct live *live = calloc (1, sizeof *live);
  int ret = live ? jobs_create (ended, opaque, &live->jobs) : -ENOMEM;

  if (ret < 0) {
    free (live);
    return ret;
  }
  mutex_init (&live->mutex);
  live->service = service;
  live->started_ns = now_ns ();
  ret = medic_start (service->drum, failing, live, &live->medic);
  if (ret == 0 && service_expires (service) &&
      (ret = watchdog_start (REAPER_MS, reap, service, &live->reaper)) < 0)
    medic_stop (live->medic);
  if (ret < 0) {
    jobs_destroy (live->jobs);
    mutex_destroy (&live->mutex);
    free (live);
    return ret;
  }
  resume_removals (live);
  *livep = live;
  return 0;
}

void
live_destroy (struct live *live)
{
  atomic_store (&live->stopping, true);
  if (live->reaper)
    watchdog_stop (live->reaper);
  medic_stop (live->medic);
  jobs_destroy (live->jobs);
  mutex_destroy (&live->mutex);
  free (live);
}

struct service *
live_service (struct live *live)
{
  return live->service;
}

struct jobs *
live_jobs (struct live *live)
{
  return live->jobs;
}

uint64_t
live_started_ns (const struct live *live)
{
  return live->started_ns;
}

/* => holds live->mutex. */
static bool
is_adding_locked (struct live *live, const char *path)
{
  mutex_assert_held (&live->mutex);
  for (const struct adding *a = live->adding; a; a = a->next)
    if (strcmp (a->spec.path, path) == 0)
      return true;
  return false;
}

static void
forget_adding (struct adding *adding)
{
  struct live *live = adding->live;

  mutex_lock (&live->mutex);
  for (struct adding **link = &live->adding; *link; link = &(*link)->next)
    if (*link == adding) {
      *link = adding->next;
      break;
    }
  mutex_unlock (&live->mutex);
  free ((char *) adding->spec.path);
  free (adding);
}

static int
add_progress (void *opaque, uint64_t done_bytes, uint64_t total_bytes)
{
  struct job *job = opaque;

  job_progress (job, done_bytes, total_bytes);
  return job_is_cancelled (job) ? -ECANCELED : 0;
}

/* Open it again, if it is there and closed; else add it. */
static int
add_or_reopen (struct adding *adding, struct job *job)
{
  struct prealloc_watch watch = { .progress = add_progress, .opaque = job };
  struct service *service = adding->live->service;
  struct swapdev_spec spec = adding->spec;
  struct swapdev_place place;
  int ret;

  swapdev_place_init (&place, spec.path);
  ret = drum_reopen_device (service->drum, &place);
  if (ret == 0) {
    log_notice ("%s: is open again", spec.path);
    return service_save (service) < 0 ? -EIO : 0; /* what was said of it is the job's error */
  }
  if (ret == -EBUSY)
    log_error ("%s: is open already, or its pages are being moved off: cancel that instead",
               spec.path);
  if (ret != -ENOENT)
    return ret;
  spec.watch = &watch;
  ret = service_add (service, &spec);
  if (ret == 0)
    log_notice ("%s: has been added", spec.path);
  return ret;
}

static int
add_main (struct job *job, void *opaque)
{
  struct adding *adding = opaque;
  int ret = add_or_reopen (adding, job);

  forget_adding (adding);
  return ret;
}

/* => holds live->mutex. */
static int
start_adding_locked (struct live *live, const struct swapdev_spec *spec, uint64_t *job)
{
  struct adding *adding = calloc (1, sizeof *adding);
  char *path = strdup (spec->path);
  int ret = -ENOMEM;

  mutex_assert_held (&live->mutex);
  if (adding && path) {
    *adding = (struct adding){ .live = live, .next = live->adding, .spec = *spec };
    adding->spec.path = path;
    ret = jobs_start (live->jobs, JOB_ADD, path, 0, add_main, adding, job);
    if (ret == 0) {
      live->adding = adding;
      return 0;
    }
  }
  free (path);
  free (adding);
  return ret;
}

/* A job could not be started. */
static int
complain (const char *what, int ret)
{
  if (ret == -EBUSY)
    log_error ("%s: %d jobs are under way already: wait until one has ended", what, JOBS_MAX);
  else if (ret < 0)
    log_error ("%s: the job can't be started: %s", what, strerror (-ret));
  return ret;
}

/* Could it be added, as far as can be told now? */
static int
check_new (struct live *live, const char *path)
{
  struct swapdev_place place;
  enum drum_device_state state;

  swapdev_place_init (&place, path);
  if (drum_state_at (live->service->drum, &place, &state) < 0 || state >= DEVICE_CLOSED)
    return 0;
  log_error (state == DEVICE_CLOSING ? "%s: is being removed: cancel that instead"
                                     : "%s: is a device of this drum already",
             path);
  return -EBUSY;
}

int
live_add (struct live *live, const struct swapdev_spec *spec, uint64_t *job)
{
  int ret = check_new (live, spec->path);

  if (ret < 0)
    return ret;
  ret = -EBUSY;
  mutex_lock (&live->mutex);
  if (is_adding_locked (live, spec->path))
    log_error ("%s: is being added already", spec->path);
  else
    ret = complain (spec->path, start_adding_locked (live, spec, job));
  mutex_unlock (&live->mutex);
  return ret;
}

static struct evacuation
everything (struct live *live)
{
  return (struct evacuation){
    .drum = live->service->drum,
    .exports = live->service->exports,
    .state = live->service->state,
  };
}

static void
task_free (struct task *task)
{
  free (task->path);
  free (task->to);
  free (task);
}

static struct task *
task_create (struct live *live, struct swapdev *dev, bool force)
{
  struct task *task = calloc (1, sizeof *task);

  if (!task)
    return NULL;
  *task = (struct task){ .live = live, .dev = dev, .force = force };
  if (!dev || (task->path = strdup (swapdev_path (dev))))
    return task;
  free (task);
  return NULL;
}

/* => dev stays until this returns. main frees the task. */
static int
start_task (struct live *live, enum job_kind kind, struct swapdev *dev, uint64_t rate, bool force,
            job_main *main, uint64_t *job)
{
  struct task *task = task_create (live, dev, force);
  int ret;

  if (!task)
    return -ENOMEM;
  ret = jobs_start (live->jobs, kind, task->path, rate, main, task, job);
  if (ret < 0)
    task_free (task);
  return ret;
}

static int
remove_main (struct job *job, void *opaque)
{
  struct task *task = opaque;
  struct evacuation ev = everything (task->live);
  struct drum_device_info info;
  int ret;

  drum_device (ev.drum, task->dev, &info);
  ret = evacuate_device (job, &ev, task->dev, task->force);
  if (ret == 0)
    ret = service_drop (task->live->service, task->dev, info.first, info.prio);
  else if (ret != -ECANCELED || !atomic_load (&task->live->stopping))
    service_save (
      task->live->service); /* it does not leave any more; but for a server that ends, it does */
  if (ret == 0)
    log_notice ("%s: has been removed", task->path);
  task_free (task);
  return ret;
}

int
live_remove (struct live *live, const char *path, uint64_t rate, bool force, uint64_t *job)
{
  struct swapdev_place place;
  struct swapdev *dev;
  int ret;

  swapdev_place_init (&place, path);
  mutex_lock (&live->mutex);
  ret = drum_close_device (live->service->drum, &place, &dev);
  if (ret == 0) {
    drum_note_leave (live->service->drum, dev, (struct drum_leave){ true, force, rate });
    ret = service_save (live->service);
    if (ret == 0)
      ret = complain (path, start_task (live, JOB_REMOVE, dev, rate, force, remove_main, job));
    if (ret < 0) {
      drum_end_closing (live->service->drum, dev, false);
      service_save (live->service);
    }
  }
  mutex_unlock (&live->mutex);
  return ret;
}

/* Go on with what a restart interrupted. */
static void
resume_removals (struct live *live)
{
  struct drum_device_info dev[DRUM_MAX_DEVICES];
  unsigned n = drum_devices (live->service->drum, dev, DRUM_MAX_DEVICES);
  uint64_t job;

  for (unsigned i = 0; i < n; i++)
    if (dev[i].leave.wanted && live_remove (live, swapdev_path (dev[i].swapdev), dev[i].leave.rate,
                                            dev[i].leave.force, &job) < 0)
      drum_note_leave (live->service->drum, dev[i].swapdev, (struct drum_leave){ .wanted = false });
}

static int
failing_main (struct job *job, void *opaque)
{
  struct task *task = opaque;
  struct evacuation ev = everything (task->live);
  int ret = evacuate_failing (job, &ev, task->dev);

  service_save (task->live->service);
  task_free (task);
  return ret;
}

/* By the medic: a device is failing, and nobody else moves its pages off. */
static void
failing (void *opaque, struct swapdev *dev)
{
  struct live *live = opaque;
  uint64_t job;

  if (start_task (live, JOB_EVACUATE, dev, 0, false, failing_main, &job) < 0)
    drum_end_failing (live->service->drum, dev, false);
}

/* What a device has now; nothing of one that is not there. */
static void
find_rank (struct drum *d, const struct swapdev_place *place, int *prio, unsigned *maxio)
{
  struct drum_device_info dev[DRUM_MAX_DEVICES];
  unsigned n;

  drum_hold_devices (d);
  n = drum_devices (d, dev, DRUM_MAX_DEVICES);
  for (unsigned i = 0; i < n; i++)
    if (swapdev_is_at (dev[i].swapdev, place)) {
      *prio = dev[i].prio;
      *maxio = swapdev_maxio (dev[i].swapdev);
    }
  drum_release_devices (d);
}

int
live_set_priority (struct live *live, const char *path, int prio)
{
  struct drum *d = live->service->drum;
  struct swapdev_place place;
  int before = prio, ret;
  unsigned maxio;

  swapdev_place_init (&place, path);
  mutex_lock (&live->mutex);
  find_rank (d, &place, &before, &maxio);
  ret = drum_set_priority (d, &place, prio);
  if (ret == 0 && (ret = service_save (live->service)) < 0)
    drum_set_priority (d, &place, before);
  mutex_unlock (&live->mutex);
  return ret;
}

int
live_set_maxio (struct live *live, const char *path, unsigned maxio)
{
  struct drum *d = live->service->drum;
  struct swapdev_place place;
  unsigned before = maxio;
  int prio, ret;

  swapdev_place_init (&place, path);
  mutex_lock (&live->mutex);
  find_rank (d, &place, &prio, &before);
  ret = drum_set_maxio (d, &place, maxio);
  if (ret == 0 && (ret = service_save (live->service)) < 0)
    drum_set_maxio (d, &place, before);
  mutex_unlock (&live->mutex);
  return ret;
}

static int
rebalance_main (struct job *job, void *opaque)
{
  struct live *live = opaque;
  struct evacuation ev = everything (live);
  int ret = evacuate_upwards (job, &ev);

  mutex_lock (&live->mutex);
  live->rebalancing = false;
  mutex_unlock (&live->mutex);
  return ret;
}

int
live_rebalance (struct live *live, uint64_t rate, uint64_t *job)
{
  int ret = -EBUSY;

  mutex_lock (&live->mutex);
  if (live->rebalancing)
    log_error ("pages are being rebalanced already");
  else {
    ret = complain ("rebalance",
                    jobs_start (live->jobs, JOB_REBALANCE, NULL, rate, rebalance_main, live, job));
    live->rebalancing = ret == 0;
  }
  mutex_unlock (&live->mutex);
  return ret;
}

static int
scrub_main (struct job *job, void *opaque)
{
  struct task *task = opaque;
  struct evacuation all = everything (task->live);
  struct scrub scrub = { .drum = all.drum,
                         .exports = all.exports,
                         .name = task->path ? task->path : "the drum",
                         .dev = task->dev };
  int ret = scrub_run (job, &scrub);

  task_free (task);
  return ret;
}

/* => holds the devices. NULL, and said why. */
static struct swapdev *
find_device (struct drum *d, const char *path)
{
  struct drum_device_info dev[DRUM_MAX_DEVICES];
  unsigned n = drum_devices (d, dev, DRUM_MAX_DEVICES);
  struct swapdev_place place;

  swapdev_place_init (&place, path);
  for (unsigned i = 0; i < n; i++)
    if (swapdev_is_at (dev[i].swapdev, &place))
      return dev[i].swapdev;
  log_error ("%s: is no device of this drum", path);
  return NULL;
}

int
live_scrub (struct live *live, const char *path, uint64_t rate, uint64_t *job)
{
  struct drum *d = live->service->drum;
  struct swapdev *dev = NULL;
  int ret = -ENOENT;

  drum_hold_devices (d);
  if (!path || (dev = find_device (d, path)))
    ret = complain (path ? path : "scrub",
                    start_task (live, JOB_SCRUB, dev, rate, false, scrub_main, job));
  drum_release_devices (d);
  return ret;
}

static int
change_export_main (struct job *job, void *opaque)
{
  struct task *task = opaque;
  struct service *service = task->live->service;
  uint64_t freed_bytes = 0;
  int ret;

  if (task->kind == JOB_EXPORT_MOVE)
    ret = service_move_export (service, task->path, task->to);
  else if (task->kind == JOB_EXPORT_RESIZE) {
    ret = service_resize_export (service, task->path, task->size_bytes, &freed_bytes);
    job_progress (job, freed_bytes, freed_bytes);
  } else
    ret = service_remove_export (service, task->path);
  task_free (task);
  return ret;
}

/* Remove it, give it another size, or move its pages (to; else NULL), as kind says. */
static int
change_export (struct live *live, enum job_kind kind, const char *name, const char *to,
               uint64_t size_bytes, uint64_t *job)
{
  struct task *task;
  int ret = service_check_idle (live->service, name);

  if (ret == 0 && to)
    ret = service_check_idle (live->service, to);
  if (ret < 0)
    return ret;
  task = calloc (1, sizeof *task);
  if (!task)
    return complain (name, -ENOMEM);
  *task = (struct task){ .live = live,
                         .kind = kind,
                         .path = strdup (name),
                         .to = to ? strdup (to) : NULL,
                         .size_bytes = size_bytes };
  ret = task->path && (task->to || !to)
          ? jobs_start (live->jobs, kind, name, 0, change_export_main, task, job)
          : -ENOMEM;
  if (ret < 0)
    task_free (task);
  return complain (name, ret);
}

int
live_remove_export (struct live *live, const char *name, uint64_t *job)
{
  return change_export (live, JOB_EXPORT_REMOVE, name, NULL, 0, job);
}

int
live_resize_export (struct live *live, const char *name, uint64_t size_bytes, uint64_t *job)
{
  return change_export (live, JOB_EXPORT_RESIZE, name, NULL, size_bytes, job);
}

int
live_move_export (struct live *live, const char *from, const char *to, uint64_t *job)
{
  return change_export (live, JOB_EXPORT_MOVE, from, to, 0, job);
}

static int
halt (struct live *live, struct job *job)
{
  struct service *service = live->service;
  int ret = sessions_halt (service->sessions, live->halt_timeout_ms);

  if (ret == -ETIMEDOUT)
    log_error ("requests are still under way after %g s (\"drumctl list -o +INFLIGHT\" shows which "
               "device hangs): the server goes on as before",
               live->halt_timeout_ms / 1000.0);
  if (ret < 0)
    return ret;
  ret = job_is_cancelled (job) ? -ECANCELED : service_sync (service);
  if (ret < 0 && ret != -ECANCELED)
    log_error ("what was written can't be made durable (%s): the server goes on as before",
               strerror (-ret));
  if (ret < 0)
    sessions_resume (service->sessions);
  return ret;
}

static int
shutdown_main (struct job *job, void *opaque)
{
  struct live *live = opaque;
  int ret = halt (live, job);

  if (ret == 0) {
    log_notice ("shuts down, as it was asked to");
    return 0;
  }
  mutex_lock (&live->mutex);
  live->halting = false;
  mutex_unlock (&live->mutex);
  return ret;
}

/* What would a restart lose? */
static int
check_losses (struct live *live)
{
  uint64_t npages = 0;
  unsigned nclients = 0;

  for (struct export *e = NULL; (e = exports_next (live->service->exports, e));) {
    npages += export_npages_used (e);
    nclients += export_nclients (e);
  }
  if (service_keeps_pages (live->service) || (npages == 0 && nclients == 0))
    return 0;
  log_error ("the drum has %u connection%s and holds %" PRIu64 " page%s, which a restart without "
             "state= loses: run swapoff on the clients first, or give force (drumctl: --force)",
             nclients, nclients == 1 ? "" : "s", npages, npages == 1 ? "" : "s");
  return -EBUSY;
}

int
live_shutdown (struct live *live, unsigned timeout_ms, bool force, uint64_t *job)
{
  int ret = force ? 0 : check_losses (live);

  if (ret < 0)
    return ret;
  ret = -EBUSY;
  mutex_lock (&live->mutex);
  if (live->halting)
    log_error ("the server is being shut down already");
  else {
    live->halt_timeout_ms = timeout_ms;
    ret = complain ("shutdown",
                    jobs_start (live->jobs, JOB_SHUTDOWN, NULL, 0, shutdown_main, live, job));
    live->halting = ret == 0;
    if (ret == 0)
      live->last_shutdown = *job;
  }
  mutex_unlock (&live->mutex);
  return ret;
}

uint64_t
live_last_shutdown (struct live *live)
{
  uint64_t job;

  mutex_lock (&live->mutex);
  job = live->last_shutdown;
  mutex_unlock (&live->mutex);
  return job;
}

void
live_adding (struct live *live, void (*each) (void *opaque, const struct swapdev_spec *spec),
             void *opaque)
{
  mutex_lock (&live->mutex);
  for (const struct adding *a = live->adding; a; a = a->next)
    each (opaque, &a->spec);
  mutex_unlock (&live->mutex);
}
