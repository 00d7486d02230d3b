/* SPDX-License-Identifier: BSD-3-Clause
 *
 * files.h - files in the scratch folder.
 */
#ifndef DRUM_UNIT_FILES_H
#define DRUM_UNIT_FILES_H

#include <stddef.h>
#include <stdint.h>

/* How many entries the folder has. */
unsigned scratch_count (void);

/* How many files this process has open. */
unsigned count_open_files (void);

/* Make a file of this size, mode 0600, all of it a hole. */
char *file_make (const char *name, uint64_t size_bytes);

/* Read a part of a file, all of which must be there. */
void file_read (const char *path, uint64_t offset, void *data, size_t len);

#endif
