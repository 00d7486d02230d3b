/* SPDX-License-Identifier: BSD-3-Clause
 *
 * remote.h - what runs beside nbdkit's own threads while it serves: the control socket with its jobs, the watchdog, and
 * who says what is logged.
 *
 * Locking: none; nbdkit's main thread. Errors: 0 or -errno, said through lib/log.h.
 */
#ifndef DRUM_REMOTE_H
#define DRUM_REMOTE_H

struct service;

/* Before the fork: bind the control socket at path; NULL: there is none. */
int remote_open (const char *path);

/* After the fork. */
int remote_start (struct service *service);

/* Before the service ends, or if it does not begin. */
void remote_stop (void);

#endif
