/* SPDX-License-Identifier: BSD-3-Clause
 *
 * utf8.h - where does a character of UTF-8 end, and is this all such? Whatever the locale.
 */
#ifndef DRUM_UTF8_H
#define DRUM_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* The bytes of the character that text, which is not empty, begins with; 0 if RFC 3629 knows none such. */
unsigned utf8_char (const char *text);

/* Nothing but such characters: what JSON can carry. */
bool utf8_is_valid (const char *text);

/* How many bytes of a valid text, at most max, end with a character? */
size_t utf8_prefix (const char *text, size_t max);

#endif
