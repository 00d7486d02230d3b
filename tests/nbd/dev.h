/* SPDX-License-Identifier: BSD-3-Clause
 *
 * dev.h - what these tests keep in the scratch folder.
 *
 * run/ in it is for sockets, pid files and logs; dev/ is for backing files, and holds nothing else.
 */
#ifndef DRUM_TESTS_DEV_H
#define DRUM_TESTS_DEV_H

#include <stdint.h>

enum { PAGE_BYTES = 4096 };

/* The .init and .fini of every suite here, or the first and last call in its own: scratch_setup and scratch_teardown,
 * with run/ and dev/ made, and with the servers ended that a failed test has left. */
void dev_setup (void);
void dev_teardown (void);

/* The path of something below run/ or dev/. */
char *run_path (const char *name);
char *dev_path (const char *fmt, ...) __attribute__ ((format (printf, 1, 2)));

/* Make a file below dev/ of this size, mode 0600: holes only, or allocated zeroes. */
char *dev_sparse (const char *name, uint64_t size_bytes);
char *dev_allocated (const char *name, uint64_t size_bytes);

/* Names, kinds, modes, sizes, blocks and contents of all below dev/, as text that can be compared and printed. */
char *dev_snapshot (void);
/* The same without the blocks. */
char *dev_contents (void);

/* Run a shell command that must succeed, and give its standard output. */
char *shell_output (const char *fmt, ...) __attribute__ ((format (printf, 1, 2)));

#endif
