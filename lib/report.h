/* SPDX-License-Identifier: BSD-3-Clause
 *
 * report.h - what is going on, as JSON (docs/control.md): everything there is to know, a picture of the devices, a job.
 *
 * Locking: takes those of what it looks at, for short; stops no I/O.
 * Memory:  json-c's. If there is none, parts are missing.
 */
#ifndef DRUM_REPORT_H
#define DRUM_REPORT_H

#include <stdbool.h>

struct job_info;
struct json_object;
struct live;

enum { REPORT_MAX_CELLS = 1024, REPORT_CELLS = 64 };

/* Each adds its members to an object. */
void report_status (struct live *live, bool fragmentation, struct json_object *to);
void report_map (struct live *live, unsigned ncells, struct json_object *to);
void report_job (const struct job_info *info, const char *key, struct json_object *to);

/* An array of the lines in text, under key. */
void report_lines (const char *text, const char *key, struct json_object *to);

#endif
