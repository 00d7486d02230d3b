/* SPDX-License-Identifier: BSD-3-Clause
 *
 * watchdog.h - a thread that looks at all devices once a second, since an I/O that does not come back can't say so itself.
 *
 * Locking: scan is called by that thread alone, without any lock held; it may sleep, and its time does not add to the interval.
 * Errors:  0 or -errno.
 */
#ifndef DRUM_WATCHDOG_H
#define DRUM_WATCHDOG_H

#include <stdint.h>

struct watchdog;

enum {
  WATCHDOG_INTERVAL_MS = 1000,
  WATCHDOG_LIMIT_MS = 20 * 1000, /* how long I/O may be out (FreeBSD's swap pager waits as long) */
};

/* Call scan each interval_ms, first after one; now_ns is CLOCK_MONOTONIC's. After the fork. */
int watchdog_start (unsigned interval_ms, void (*scan) (void *opaque, uint64_t now_ns),
                    void *opaque, struct watchdog **w);

/* No scan runs any more when this returns, which is at once unless one is running. */
void watchdog_stop (struct watchdog *w);

#endif
