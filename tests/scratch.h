/* SPDX-License-Identifier: BSD-3-Clause
 *
 * scratch.h - a folder for each test, gone when the test's process is, however that ends.
 *
 * Every test is a process of its own, so strings are made and never freed, and there is one scratch folder.
 * All here is for the test's main thread, as Criterion's assertions are.
 */
#ifndef DRUM_TESTS_SCRATCH_H
#define DRUM_TESTS_SCRATCH_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

/* The .init and .fini of a suite that needs files, or the first and last call in its own. */
void scratch_setup (void);
void scratch_teardown (void);

/* This is the test's, and needs to be freed by nobody: the leak sanitizer must find it somewhere. Returns it. */
void *keep_for_test (void *mem);

char *str (const char *fmt, ...) __attribute__ ((format (printf, 1, 2)));
char *vstr (const char *fmt, va_list args) __attribute__ ((format (printf, 1, 0)));

/* The path of something in the folder. */
char *scratch_path (const char *name);

/* Write into a file that is there. */
void file_write (const char *path, uint64_t offset, const void *data, size_t len);

/* The whole file, with a zero byte behind it; *len, unless len is NULL, without that byte. The test may free it. */
unsigned char *file_contents (const char *path, size_t *len);

struct stat file_stat (const char *path);

/* Run a shell command; its output is printed only if it fails. 0, or its wait status. */
int shell (const char *fmt, ...) __attribute__ ((format (printf, 1, 2)));

#endif
