/* SPDX-License-Identifier: BSD-3-Clause
 *
 * parse.h - what users write: sizes, times, switches, devices, exports and templates of exports.
 *
 * Errors: 0 or -EINVAL and one line through log.h that names the parameter; outputs untouched on failure.
 */
#ifndef DRUM_PARSE_H
#define DRUM_PARSE_H

#include <stdbool.h>
#include <stdint.h>

#include "memlock.h"
#include "ring.h"

struct export_spec;
struct export_template;
struct swapdev_spec;

/* "64K": digits and at most one of b k m g t p e (powers of 1024) or s (sectors of 512), in either case. */
int parse_size (const char *parameter, const char *text, uint64_t *bytes);

/* Decimal, in [min, max]. */
int parse_int (const char *parameter, const char *text, int min, int max, int *value);

/* "12h": digits, and s (or nothing), min, h or d; up to 68 years, so that nanoseconds of it fit 63 bits. */
int parse_time (const char *parameter, const char *text, uint64_t *seconds);

/* yes/no, on/off, true/false, 1/0. */
int parse_bool (const char *parameter, const char *text, bool *value);

/* no, yes (as parse_bool has them) or strict. */
int parse_lock (const char *parameter, const char *text, enum memlock_mode *mode);

/* auto, uring or sync. */
int parse_io (const char *parameter, const char *text, enum rings_use *use);

/* PATH[,prio=N][,size=SIZE][,maxio=N], a comma in PATH written ,, - into *spec, whose path is then the caller's to free. */
int parse_device (const char *text, struct swapdev_spec *spec);

/* NAME,size=SIZE[,reserve=SIZE][,limit=SIZE][,weight=N][,iops=N][,bandwidth=SIZE][,exclusive=yes|no], a comma in NAME written
 * ,, - into *spec, whose name is then the caller's to free. */
int parse_export (const char *text, struct export_spec *spec);

/* The same with a pattern for NAME, [,max=N][,expire=TIME|never], and exclusive unless it says no. */
int parse_template (const char *text, struct export_template *t);

/* May an export be called so? 1 to EXPORT_NAME_MAX bytes of UTF-8 without control characters, that do not end like @ID.EPOCH
 * (session.h). Not the default export's, "". */
int export_name_check (const char *name);
bool export_name_is_valid (const char *name); /* the same; says nothing */

/* Is that such a name, and one of this template's? Says nothing. */
bool template_matches (const struct export_template *t, const char *name);

#endif
