/* SPDX-License-Identifier: BSD-3-Clause
 *
 * parse.h - what users write: sizes, switches and devices.
 *
 * Errors: 0 or -EINVAL and one line through log.h that names the parameter; outputs untouched on failure.
 */
#ifndef DRUM_PARSE_H
#define DRUM_PARSE_H

#include <stdbool.h>
#include <stdint.h>

#include "memlock.h"

struct swapdev_spec;

/* "64K": digits and at most one of b k m g t p e (powers of 1024) or s (sectors of 512), in either case. */
int parse_size (const char *parameter, const char *text, uint64_t *bytes);

/* Decimal, in [min, max]. */
int parse_int (const char *parameter, const char *text, int min, int max, int *value);

/* yes/no, on/off, true/false, 1/0. */
int parse_bool (const char *parameter, const char *text, bool *value);

/* no, yes (as parse_bool has them) or strict. */
int parse_lock (const char *parameter, const char *text, enum memlock_mode *mode);

/* PATH[,prio=N][,size=SIZE][,maxio=N], a comma in PATH written ,, - into *spec, whose path is then the caller's to free. */
int parse_device (const char *text, struct swapdev_spec *spec);

#endif
