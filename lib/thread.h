/* SPDX-License-Identifier: BSD-3-Clause
 *
 * thread.h - a thread of lib/'s own. Signals are the program's: no thread of ours takes one.
 */
#ifndef DRUM_THREAD_H
#define DRUM_THREAD_H

#include <pthread.h>
#include <signal.h>

/* name is what top -H shows, at most 15 characters. 0 or -errno. */
static inline int
thread_start (pthread_t *thread, const char *name, void *(*main) (void *arg), void *arg)
{
  sigset_t all, before;
  int err;

  sigfillset (&all);
  pthread_sigmask (SIG_SETMASK, &all, &before);
  err = pthread_create (thread, NULL, main, arg);
  pthread_sigmask (SIG_SETMASK, &before, NULL);
  if (err == 0)
    pthread_setname_np (*thread, name);
  return -err;
}

#endif
