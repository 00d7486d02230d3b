/* SPDX-License-Identifier: BSD-3-Clause
 *
 * screen.h - a terminal that is ours as a whole, and given back as it was however we end.
 */
#ifndef DRUMCTL_SCREEN_H
#define DRUMCTL_SCREEN_H

/* On standard output, which must be a terminal. Keys are read from standard input, if that is one. */
void screen_enter (void);
void screen_leave (void); /* may be called at any time */

/* Show as much of the text, which is lines, as there is room for; the first one is a heading. */
void screen_draw (const char *text);

#endif
