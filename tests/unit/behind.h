/* SPDX-License-Identifier: BSD-3-Clause
 *
 * behind.h - a request that comes while another one is under way: does it wait for it? For programs linked with --wrap=sem_wait,
 * by which a request waits for its range of pages. One at a time.
 */
#ifndef DRUM_UNIT_BEHIND_H
#define DRUM_UNIT_BEHIND_H

#include <stdbool.h>

/* Run it in a thread of its own until it waits (true), or has ended (false). */
bool behind_begin (void (*request) (void));

/* Until it has ended. */
void behind_end (void);

#endif
