/* SPDX-License-Identifier: BSD-3-Clause
 *
 * terminal.h - is standard output one, how large is it, and may it have colours?
 */
#ifndef DRUMCTL_TERMINAL_H
#define DRUMCTL_TERMINAL_H

#include <stdbool.h>

bool terminal_is (void);

/* As they are now; 80 and 24 if it does not say. */
unsigned terminal_columns (void);
unsigned terminal_lines (void);

/* It is one, and neither NO_COLOR nor TERM=dumb says no. */
bool terminal_has_colors (void);

#endif
