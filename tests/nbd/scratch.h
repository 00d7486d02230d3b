/* SPDX-License-Identifier: BSD-3-Clause
 *
 * scratch.h - a folder for each test, gone when the test's process is, however that ends.
 *
 * run/ in it is for sockets, pid files and logs; dev/ is for backing files, and holds nothing else.
 * Every test is a process of its own, so strings are made and never freed, and there is one scratch folder.
 */
#ifndef DRUM_TESTS_SCRATCH_H
#define DRUM_TESTS_SCRATCH_H

#include <stddef.h>
#include <stdint.h>

enum { PAGE_BYTES = 4096 };

/* The .init and .fini of every suite here. */
void scratch_setup (void);
void scratch_teardown (void);

char *str (const char *fmt, ...) __attribute__ ((format (printf, 1, 2)));

/* The path of something below run/ or dev/. */
char *run_path (const char *name);
char *dev_path (const char *fmt, ...) __attribute__ ((format (printf, 1, 2)));

/* Make a file below dev/ of this size, mode 0600: holes only, or allocated zeroes. */
char *dev_sparse (const char *name, uint64_t size_bytes);
char *dev_allocated (const char *name, uint64_t size_bytes);

/* The whole file, with a zero byte behind it; *len without that byte. */
unsigned char *file_read (const char *path, size_t *len);
void file_write (const char *path, uint64_t offset, const void *data, size_t len);

/* Names, kinds, modes, sizes, blocks and contents of all below dev/, as text that can be compared and printed. */
char *dev_snapshot (void);
/* The same without the blocks. */
char *dev_contents (void);

/* Run a shell command; its output is printed only if it fails. 0, or its wait status. */
int shell (const char *fmt, ...) __attribute__ ((format (printf, 1, 2)));
/* The same, and give its standard output. */
char *shell_output (const char *fmt, ...) __attribute__ ((format (printf, 1, 2)));

#endif
