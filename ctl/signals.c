/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "signals.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <unistd.h>

static volatile sig_atomic_t caught, resized, suspended;
static bool leave_now;
static int wake[2] = { -1, -1 };

static void catch (int sig)
{
  int saved = errno;

  if (sig == SIGWINCH)
    resized = 1;
  else if (sig == SIGTSTP)
    suspended = 1;
  else
    caught = sig;
  if (wake[1] != -1 && write (wake[1], "", 1) == -1) {
    /* It is full, and so readable. */
  }
  errno = saved;
}

/* What is ignored since before us (nohup) stays so. */
static void
catch_one (int sig, int flags)
{
  struct sigaction action = { .sa_handler = catch, .sa_flags = flags }, old;

  if (sigaction (sig, NULL, &old) == 0 && old.sa_handler != SIG_IGN)
    sigaction (sig, &action, NULL);
}

void
signals_catch (void)
{
  catch_one (SIGINT, (int) SA_RESETHAND);
  catch_one (SIGTERM, (int) SA_RESETHAND);
  signal (SIGPIPE, SIG_IGN);
}

int
signals_catch_all (void)
{
  static const int all[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGTSTP };

  leave_now = true;
  if (pipe2 (wake, O_CLOEXEC | O_NONBLOCK) == -1)
    wake[0] = wake[1] = -1;
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
    catch_one (all[i], 0);
  return wake[0];
}

bool
signals_caught (void)
{
  return caught;
}

bool
signals_leave_now (void)
{
  return leave_now && caught;
}

static bool
take (volatile sig_atomic_t *flag)
{
  bool set = *flag;

  *flag = 0;
  return set;
}

bool
signals_resized (void)
{
  return take (&resized);
}

bool
signals_suspended (void)
{
  return take (&suspended);
}

void
signals_suspend (void)
{
  signal (SIGTSTP, SIG_DFL);
  raise (SIGTSTP);
  catch_one (SIGTSTP, 0);
}

void
signals_reraise (void)
{
  if (!caught)
    return;
  signal (caught, SIG_DFL);
  raise (caught);
}
