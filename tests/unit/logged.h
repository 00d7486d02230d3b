/* SPDX-License-Identifier: BSD-3-Clause
 *
 * logged.h - what lib/ says, kept for the test to look at instead of printed. From any thread.
 */
#ifndef DRUM_UNIT_LOGGED_H
#define DRUM_UNIT_LOGGED_H

#include <stdbool.h>

#include "lib/log.h"

/* Keep messages from here on, and forget those before. */
void logged_start (void);

/* How many messages contain this text ("" for all). */
unsigned logged_count (const char *text);

/* The last one and its level; "" if there is none. */
const char *logged_last (void);
enum log_level logged_last_level (void);

/* Exactly one message since logged_start, an error, with this text in it. Forgets it. */
#define assert_logged_error(text)                                                         \
  do {                                                                                    \
    cr_assert_eq (logged_count (""), 1, "%u messages, the last: %s", logged_count (""),   \
                  logged_last ());                                                        \
    cr_assert (logged_last_level () == LEVEL_ERROR, "not an error: %s", logged_last ());  \
    cr_assert (logged_count (text) == 1, "\"%s\" is not in: %s", (text), logged_last ()); \
    logged_start ();                                                                      \
  } while (0)

#endif
