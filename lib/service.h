/* SPDX-License-Identifier: BSD-3-Clause
 *
 * service.h - from what a user asked for to a running drum with its export, and back.
 *
 * Locking: none; one thread, before the first request and after the last.
 * Errors:  0 or -errno, and one line through log.h that names what is wrong. A start that fails, or is undone, leaves
 *          files, devices and their contents as they were.
 */
#ifndef DRUM_SERVICE_H
#define DRUM_SERVICE_H

#include <stdbool.h>
#include <stdint.h>

struct drum;
struct export;
struct swapdev_spec;

struct service_config {
  const struct swapdev_spec *devices;
  unsigned ndevices;
  uint32_t stripe_bytes;
  uint64_t size_bytes; /* of the default export; 0: all usable slots less those kept back */
  bool checksum;
};

struct service {
  struct drum *drum;
  struct export *export;
};

int service_start (const struct service_config *config, struct service *service);

/* The server ends. */
void service_stop (struct service *service);

/* The server did not come to serve (its socket can't be bound, say). */
void service_undo (struct service *service);

#endif
