/* SPDX-License-Identifier: BSD-3-Clause
 *
 * swapon-status.h - drum-swapon --status: a table of the devices that drum-swapon keeps.
 */
#ifndef DRUM_SWAPON_STATUS_H
#define DRUM_SWAPON_STATUS_H

#include "table.h"

/* => the status to exit with */
int swapon_status (const struct table_options *options);
void swapon_status_help (FILE *out);

#endif
