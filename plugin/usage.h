/* SPDX-License-Identifier: BSD-3-Clause
 *
 * usage.h - nbdkit -D drum.usage=1: say on stderr how full each device is, when that has changed.
 */
#ifndef DRUM_USAGE_H
#define DRUM_USAGE_H

#include <stdbool.h>

struct drum;

/* A connection came (1) or went (-1); returns how many there are now. */
int usage_connection (int change);

/* Print a line if the usage has changed since the last one; at most one a second, unless now. */
void usage_show (struct drum *d, bool now);

#endif
