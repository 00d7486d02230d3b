/* SPDX-License-Identifier: BSD-3-Clause
 *
 * logqueue.h - log lines that nobody waits for: I/O goes on while standard error is a pipe that nobody reads.
 *
 * From start to stop a line is copied into a ring, and a thread of its own says it, in the order in which they came. When the ring
 * is full, lines are lost until it is empty again, and then one says how many.
 * Locking: one short lock, never held while a line is said. Start and stop while nobody logs.
 * Memory:  64 KiB, there from the start: a line takes none.
 * Errors:  0 or -errno.
 */
#ifndef DRUM_LOGQUEUE_H
#define DRUM_LOGQUEUE_H

#include <limits.h>

enum {
  LOGQUEUE_BYTES = 64 << 10,
  LOGQUEUE_LINE_BYTES = PATH_MAX + 512, /* the rest of a line is cut off */
  LOGQUEUE_PATIENCE_MS = 5000,          /* for the sink, once it is to stop */
};

/* Put it in front of the sink that is set (log.h). After the fork. */
int logqueue_start (void);

/* Say what is left, and set the sink that was. If that takes too long what is left is lost, and the thread stays where it hangs
 * until the program ends: its code must not go before. */
void logqueue_stop (void);

#endif
