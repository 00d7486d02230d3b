/* SPDX-License-Identifier: BSD-3-Clause
 *
 * utf8.h - where does a character of UTF-8 end, is this all such, and what of it is better not printed? Whatever the locale.
 */
#ifndef DRUM_UTF8_H
#define DRUM_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* The bytes of the character that text, which is not empty, begins with; 0 if RFC 3629 knows none such. */
unsigned utf8_char (const char *text);

/* Nothing but such characters: what JSON can carry. */
bool utf8_is_valid (const char *text);

/* Does text begin with a character that is not to be printed, but obeyed: of Unicode's C0, DEL or C1? */
bool utf8_is_control (const char *text);

/* Copy as much of text as there is room for, the NUL included, with \xNN for each byte of such characters and of what is none: it is one line, which no
 * terminal obeys. */
void utf8_escape (const char *text, char *to, size_t room);

/* How many bytes of a valid text, at most max, end with a character? */
size_t utf8_prefix (const char *text, size_t max);

#endif
