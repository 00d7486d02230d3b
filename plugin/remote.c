/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "remote.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "leave.h"
#include "lib/control.h"
#include "lib/drum-devices.h"
#include "lib/live.h"
#include "lib/log.h"
#include "lib/logqueue.h"
#include "lib/service.h"
#include "lib/verbs.h"
#include "lib/watchdog.h"

/* Set by nbdkit from -D drum.waitms=N: say that an I/O is still out after so long. */
NBDKIT_DLL_PUBLIC int drum_debug_waitms = WATCHDOG_LIMIT_MS;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of control, which jobs wake */
static struct control *control;
static struct live *live;
static struct watchdog *watchdog;

int
remote_open (const char *path)
{
  leave_prepare ();
  return path ? control_open (path, &control) : 0;
}

/* By the thread of a shutdown, which was asked for through c: no request is under way, and none will ever begin. */
static void __attribute__ ((noreturn)) leave (struct control *c)
{
  leave_wait_sent ();
  leave_remove_sockets ();
  control_leave (c);
  _exit (EXIT_SUCCESS);
}

static void
job_ended (void *opaque, enum job_kind kind, enum job_state state)
{
  pthread_mutex_lock (&mutex);
  if (control && kind == JOB_SHUTDOWN && state == JOB_DONE)
    leave (control);
  else if (control)
    control_wake (control);
  pthread_mutex_unlock (&mutex);
}

static void
scan (void *opaque, uint64_t now_ns)
{
  const struct service *service = opaque;

  drum_scan_inflight (service->drum, now_ns, (uint64_t) drum_debug_waitms * 1000000);
}

int
remote_start (struct service *service)
{
  unsigned interval_ms = drum_debug_waitms < WATCHDOG_INTERVAL_MS ? 10 : WATCHDOG_INTERVAL_MS;
  int ret = logqueue_start ();

  if (ret == 0)
    ret = watchdog_start (interval_ms, scan, service, &watchdog);
  if (ret == 0)
    ret = live_create (service, job_ended, NULL, &live);
  pthread_mutex_lock (&mutex); /* the first request may be to shut down */
  if (ret == 0 && control)
    ret = control_start (control, verbs_handle, live);
  pthread_mutex_unlock (&mutex);
  if (ret < 0)
    log_error ("a thread can't be started: %s", strerror (-ret));
  return ret;
}

void
remote_stop (void)
{
  struct control *closing = control;

  pthread_mutex_lock (&mutex);
  control = NULL;
  pthread_mutex_unlock (&mutex);
  if (closing)
    control_close (closing);
  if (live)
    live_destroy (live);
  if (watchdog)
    watchdog_stop (watchdog);
  live = NULL;
  watchdog = NULL;
  logqueue_stop ();
}
