/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sysctls.h - two settings of the kernel without which swapping over a network stalls.
 */
#ifndef DRUM_SYSCTLS_H
#define DRUM_SYSCTLS_H

#include <stdbool.h>

/* Say what should be set, or set it. */
void sysctls_check (bool set);

#endif
