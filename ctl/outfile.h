/* SPDX-License-Identifier: BSD-3-Clause
 *
 * outfile.h - a file that readers see whole or not at all.
 */
#ifndef DRUMCTL_OUTFILE_H
#define DRUMCTL_OUTFILE_H

#include <stdbool.h>
#include <stdio.h>

/* Have print write the file, mode 0644, or standard output for "-". It takes the place of the old one when it is on the disk;
 * a failure leaves that as it is, and is said. What is no regular file (/dev/stdout) is written into. */
bool outfile_write (const char *path, void (*print) (FILE *out, const void *what),
                    const void *what);

#endif
