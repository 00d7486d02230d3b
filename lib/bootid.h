/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bootid.h - which boot of the machine is this? What was only in memory is gone when it changes.
 */
#ifndef DRUM_BOOTID_H
#define DRUM_BOOTID_H

#include <uuid/uuid.h>

/* The kernel's random/boot_id; all zero if it can't be read. */
void bootid_read (uuid_t id);

#endif
