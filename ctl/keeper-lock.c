/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "keeper-impl.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "lib/memlock.h"

enum { STACK_BYTES = 256 << 10, REAL_TIME_PRIORITY = 10, POLL_MS = 10 };

static int
be_real_time (void)
{
  const struct sched_param param = { .sched_priority = REAL_TIME_PRIORITY };

  return sched_setscheduler (0, SCHED_FIFO, &param) == 0 ? 0 : -errno;
}

/* All of it, at once; memory that other processes share until one of them writes becomes ours, too. */
static int
lock_memory (void)
{
  return mlockall (MCL_CURRENT | MCL_FUTURE) == 0 ? 0 : -errno;
}

static const struct {
  const char *what;
  int (*set) (void);
} measures[] = {
  { "OOM score -1000", memlock_oom_score },
  { "memory locked (mlockall)", lock_memory },
  { "I/O flusher (PR_SET_IO_FLUSHER)", memlock_io_flusher },
  { "real-time (SCHED_FIFO)", be_real_time },
};

int
keeper_lock (char why[NBDCLIENT_WHY_BYTES])
{
  memlock_touch_stack ();
  for (unsigned i = 0; i < sizeof measures / sizeof measures[0]; i++) {
    int ret = measures[i].set ();

    if (ret < 0) {
      snprintf (why, NBDCLIENT_WHY_BYTES,
                "can't have: %s (%s): be root, with CAP_IPC_LOCK, CAP_SYS_RESOURCE and "
                "CAP_SYS_NICE, or the machine may hang for good when the server goes",
                measures[i].what, strerror (-ret));
      return ret;
    }
  }
  return 0;
}

bool
keeper_alive (const struct keeper *k, unsigned process)
{
  struct pollfd pfd = { .fd = k->process[process].pidfd, .events = POLLIN };

  return k->process[process].pid && poll (&pfd, 1, 0) == 0;
}

static void
wait_for_death (const struct keeper *k, unsigned process)
{
  struct pollfd pfd = { .fd = k->process[process].pidfd, .events = POLLIN };

  while (poll (&pfd, 1, -1) != 1)
    ;
}

/* What a process that waits is told; it is on the stack of the one that starts it. */
struct wait_order {
  struct keeper *k;
  unsigned self;
  int (*lead) (struct keeper *k);
};

static int
stand_by (void *arg)
{
  const struct wait_order order = *(struct wait_order *) arg;
  struct keeper *k = order.k;
  char why[NBDCLIENT_WHY_BYTES];

  if (keeper_lock (why) < 0)
    return 1;
  k->process[order.self].ready = true;
  for (unsigned i = 0; i < order.self; i++)
    wait_for_death (k, i);
  if (k->over || !k->attached)
    return 0;
  k->leader = order.self;
  keeper_log (k, LOG_WARNING, "process %d was killed; %d goes on in its place",
              (int) k->process[order.self - 1].pid, (int) getpid ());
  return order.lead (k);
}

static int
start (struct keeper *k, unsigned self, int (*lead) (struct keeper *k))
{
  static _Alignas(64) char stack[KEEPER_NPROCESSES][STACK_BYTES];
  struct wait_order order = { k, self, lead };
  pid_t pid = clone (stand_by, stack[self] + STACK_BYTES, CLONE_FILES | SIGCHLD, &order);

  if (pid == -1)
    return -errno;
  k->process[self].pid = pid;
  k->process[self].pidfd = (int) syscall (SYS_pidfd_open, pid, 0);
  if (k->process[self].pidfd == -1)
    return -errno;
  while (!k->process[self].ready) {
    if (!keeper_alive (k, self))
      return -ESRCH;
    poll (NULL, 0, POLL_MS);
  }
  return 0;
}

int
keeper_stand_by (struct keeper *k, int (*lead) (struct keeper *k), char why[NBDCLIENT_WHY_BYTES])
{
  int ret = 0;

  k->process[0].pid = getpid ();
  k->process[0].pidfd = (int) syscall (SYS_pidfd_open, getpid (), 0);
  if (k->process[0].pidfd == -1)
    ret = -errno;
  for (unsigned i = 1; ret == 0 && i < KEEPER_NPROCESSES; i++)
    ret = start (k, i, lead);
  if (ret < 0)
    snprintf (why, NBDCLIENT_WHY_BYTES,
              "can't start the process that takes over if this one is killed: %s", strerror (-ret));
  return ret;
}
