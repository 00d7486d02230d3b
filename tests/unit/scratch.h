/* SPDX-License-Identifier: BSD-3-Clause
 *
 * scratch.h - a folder for each test, gone when the test's process is, however that ends.
 *
 * Every test is a process of its own, so strings are made and never freed, and there is one scratch folder.
 */
#ifndef DRUM_UNIT_SCRATCH_H
#define DRUM_UNIT_SCRATCH_H

#include <stddef.h>
#include <stdint.h>

/* The .init and .fini of a suite that needs files. */
void scratch_setup (void);
void scratch_teardown (void);

char *str (const char *fmt, ...) __attribute__ ((format (printf, 1, 2)));

/* The path of something in the folder. */
char *scratch_path (const char *fmt, ...) __attribute__ ((format (printf, 1, 2)));

/* How many entries the folder has. */
unsigned scratch_count (void);

/* Make a file of this size, mode 0600, all of it a hole. */
char *file_make (const char *name, uint64_t size_bytes);
void file_write (const char *path, uint64_t offset, const void *data, size_t len);
void file_read (const char *path, uint64_t offset, void *data, size_t len);

/* The whole file; the test may free it. */
unsigned char *file_contents (const char *path, size_t *len);

/* Run a shell command, silently; its wait status. */
int shell (const char *fmt, ...) __attribute__ ((format (printf, 1, 2)));

#endif
