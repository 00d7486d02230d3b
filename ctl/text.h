/* SPDX-License-Identifier: BSD-3-Clause
 *
 * text.h - names and numbers as a person reads them.
 *
 * A name comes from whoever made the file: it may hold control characters, which a terminal would obey, and bytes that are
 * no characters.
 */
#ifndef DRUMCTL_TEXT_H
#define DRUMCTL_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/log.h"

enum { TEXT_NUMBER = 32 }; /* bytes that every number below has room in */

/* mem, if there is any; else that is the end. */
void *need (void *mem);
char *text_format (const char *fmt, ...) __attribute__ ((format (printf, 1, 2)));

/* Can the terminal show more than ASCII? */
bool text_is_utf8 (void);

/* A copy, the caller's, in which what is not to be printed is \xNN, as util-linux has it. */
char *text_printable (const char *text);

/* A copy in which what is no UTF-8 is U+FFFD, for files that must be. */
char *text_to_utf8 (const char *text);

/* The bytes of the longest beginning of text that takes no more than width columns. */
size_t text_clip (const char *text, unsigned width);
unsigned text_width (const char *text);

/* Each line of text, made printable, through a function of lib/log.h. NULL has none. */
void text_each_line (const char *text, void (*log) (const char *fmt, ...));

/* "(default)" for the export without a name. */
const char *text_export (const char *name);

unsigned text_percent (uint64_t part, uint64_t whole);

/* All return buf. */
const char *text_rate (double bytes_a_second, char buf[TEXT_NUMBER]); /* 104M/s */
const char *text_decimal (double number, char buf[TEXT_NUMBER]);      /* 0.3 17 1234 56k */
const char *text_latency (double seconds, char buf[TEXT_NUMBER]);     /* 64us 1.0ms 2.1s */
const char *text_duration (double seconds, char buf[TEXT_NUMBER]);    /* 0:17 1:02:03 5d 1:02 */
const char *text_ago (double seconds, char buf[TEXT_NUMBER]);         /* 3s 2min 1h 5d */

#endif
