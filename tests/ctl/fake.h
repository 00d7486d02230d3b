/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fake.h - a server that speaks docs/control.md from canned replies, in a thread of the test.
 */
#ifndef DRUM_TESTS_CTL_FAKE_H
#define DRUM_TESTS_CTL_FAKE_H

#include <stdbool.h>

/* Of the replies to a verb the first one that fits is given. A table ends with { 0 }. */
struct fake_reply {
  const char *verb;  /* NULL in one that has text: any */
  const char *text;  /* a newline follows; FAKE_SILENCE: none ever comes */
  bool once;         /* only the first time */
  bool cancelled;    /* only after a cancel */
  bool hangs_up;     /* after text, without a newline */
  bool greets;       /* before anything is asked; then it hangs up. The first of a table. */
  unsigned delay_ms; /* before it */
};

#define FAKE_SILENCE ((const char *) -1)

/* Serve from here on, at fake_socket, which DRUM_CONTROL says as well. The table must stay. Once. */
void fake_start (const struct fake_reply *replies);
const char *fake_socket (void);

/* All requests that have come, each on a line, as they came. */
char *fake_requests (void);

/* This ends well, and the first request that it sends is {"version":1,REQUEST}. */
void fake_expect_request (const char *const *args, const char *request);

/* A file beside this one, as one line: {"version": 1, ...}. */
char *fake_canned (const char *name);

/* The .init of a suite: setup, and a server whose status is status.json, and whose map is map.json. */
void fake_setup (void);

#endif
