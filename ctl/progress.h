/* SPDX-License-Identifier: BSD-3-Clause
 *
 * progress.h - how far a job is: a bar on a terminal, elsewhere a line now and then.
 */
#ifndef DRUMCTL_PROGRESS_H
#define DRUMCTL_PROGRESS_H

#include <stdbool.h>

#include "snapshot.h"

/* What a kind of job does, is doing, and has done; and to bytes. */
struct job_words {
  const char *kind, *doing, *done, *to_bytes, *bytes_done;
};

const struct job_words *job_words (const struct job *job);

/* What it is about, printable, the caller's. */
char *job_subject (const struct job *job);

/* Zeroes at first. */
struct progress {
  bool begun;
  unsigned percent; /* in the last line */
  double seconds;   /* at the last line */
};

void progress_show (struct progress *p, const struct job *job);

/* Before something else is printed: no bar any more. */
void progress_clear (struct progress *p);

#endif
