/* SPDX-License-Identifier: BSD-3-Clause
 *
 * utf8.h - is this text that JSON can carry?
 */
#ifndef DRUM_UTF8_H
#define DRUM_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Well-formed, as RFC 3629 has it. */
bool utf8_is_valid (const char *text);

/* How many bytes of a valid text, at most max, end with a character? */
size_t utf8_prefix (const char *text, size_t max);

#endif
