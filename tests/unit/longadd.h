/* SPDX-License-Identifier: BSD-3-Clause
 *
 * longadd.h - adds of new files that take as long as a test wants: their fallocate waits. The program is linked with
 * --wrap=fallocate.
 */
#ifndef DRUM_UNIT_LONGADD_H
#define DRUM_UNIT_LONGADD_H

/* Once, before the others. */
void longadd_setup (void);

/* From here on adds wait, in the middle of it. */
void longadd_begin (void);

/* Until one more does. */
void longadd_await (void);

/* They do no more, and the n that do go on. */
void longadd_end (unsigned n);

#endif
