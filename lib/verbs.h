/* SPDX-License-Identifier: BSD-3-Clause
 *
 * verbs.h - what a client of the control socket may ask for (docs/control.md): from JSON to live.h, and back.
 */
#ifndef DRUM_VERBS_H
#define DRUM_VERBS_H

struct json_object;

/* A control_handler; opaque is a struct live. Blocks for no longer than a stat(2) of a path; "wait" is answered later. */
int verbs_handle (void *opaque, struct json_object *request, unsigned waited_ms,
                  struct json_object *reply, unsigned *wait_ms);

#endif
