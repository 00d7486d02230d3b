/* SPDX-License-Identifier: BSD-3-Clause
 *
 * follow.h - wait for a job, show how far it is, and say how it ended.
 */
#ifndef DRUMCTL_FOLLOW_H
#define DRUMCTL_FOLLOW_H

#include <stdint.h>

struct client;

/* The status to end with. A signal that is caught (see signals.h) cancels the job; its end is waited for all the same. */
int follow (struct client *c, uint64_t id);

#endif
