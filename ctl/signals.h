/* SPDX-License-Identifier: BSD-3-Clause
 *
 * signals.h - being asked to stop while something must be put in order first: a job cancelled, a terminal restored.
 *
 * The program ends by the signal that asked, once that is done, so that a shell's loop around it stops too.
 */
#ifndef DRUMCTL_SIGNALS_H
#define DRUMCTL_SIGNALS_H

#include <stdbool.h>

/* From here on INT and TERM only set a flag; the second one of a kind ends the program as ever. PIPE does nothing: whoever reads
 * what we say may go, and the job is waited for all the same. */
void signals_catch (void);

/* From here on these and HUP, QUIT, WINCH and TSTP set flags, and make the returned descriptor readable. */
int signals_catch_all (void);

/* Is one to stop; and at once, not only when the server has answered? */
bool signals_caught (void);
bool signals_leave_now (void);

/* Has the window another size, or is one to stop for a while (TSTP)? Asked once for each. */
bool signals_resized (void);
bool signals_suspended (void);

/* Stop, until the shell says go on. */
void signals_suspend (void);

/* If one was to stop: end by that signal. */
void signals_reraise (void);

#endif
