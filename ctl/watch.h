/* SPDX-License-Identifier: BSD-3-Clause
 *
 * watch.h - one interval of drumctl watch, as text and as JSON.
 */
#ifndef DRUMCTL_WATCH_H
#define DRUMCTL_WATCH_H

#include <stdio.h>

#include "snapshot.h"

/* before NULL: since the server started. Names are no longer than fits in width, if they can be. If the exports do not fit in
 * height lines with the rest (0: there is no end) only those that have most to do are there, and how many more there are. */
void watch_text (const struct snapshot *before, const struct snapshot *now, unsigned width,
                 unsigned height, FILE *out);

/* One object, on one line. */
void watch_json (const struct snapshot *before, const struct snapshot *now, FILE *out);

#endif
