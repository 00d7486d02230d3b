/* SPDX-License-Identifier: BSD-3-Clause
 *
 * leave.h - the end of the process behind nbdkit's back: on its own way out nbdkit answers clients with ESHUTDOWN, which is an
 * I/O error to a kernel that swaps.
 *
 * Locking: any thread; leave_prepare before the fork.
 */
#ifndef DRUM_LEAVE_H
#define DRUM_LEAVE_H

/* Sockets that are bound from here on, by this process, are its own; others came from whoever started it. */
void leave_prepare (void);

/* No request is under way: let nbdkit send the last replies, and the kernel hand them over, for a second or so. One that is lost
 * all the same does no harm: a client that comes back asks again. */
void leave_wait_sent (void);

/* Remove the files of our own unix sockets, as nbdkit would have done. */
void leave_remove_sockets (void);

#endif
