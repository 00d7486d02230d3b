/* SPDX-License-Identifier: BSD-3-Clause
 *
 * manifest.h - the header file of a state folder: what drum, devices and exports its page maps are about.
 *
 * Format:  JSON (one object), a line with the XXH3 of it, nothing else. Its "version" is checked before all else; keys that are
 *          not known are passed over. Names that are not UTF-8 are kept as they are.
 * Changes: the file is replaced as a whole (write, fsync, rename, fsync of the folder), so that at any moment the old one or
 *          the new one is there.
 * Locking: none; the caller's.
 * Memory:  allocates; not for the I/O path.
 * Errors:  0 or -errno, and one line through log.h that names the file and the way out.
 */
#ifndef DRUM_MANIFEST_H
#define DRUM_MANIFEST_H

#include <stdbool.h>
#include <stdint.h>
#include <uuid/uuid.h>

#include "terms.h"

#define MANIFEST_NAME "manifest" /* in the folder */

enum { MANIFEST_VERSION = 1 };

/* What stays of a device over a restart. */
struct manifest_device {
  uuid_t uuid; /* in its label */
  char *path;  /* absolute */
  uint32_t first,
    nslots; /* its range of the drum is [first, first + nslots), label and bad slots included */
  int prio;
  int
    given_prio; /* what the last start named; another one at the next start counts, the same one does not */
  unsigned maxio, given_maxio;
  int state;        /* enum drum_device_state */
  bool leaving;     /* it is being removed: that goes on */
  bool leave_force; /* how: see live_remove */
  uint64_t leave_rate;
};

struct manifest_export {
  char *name;
  uint64_t size_bytes; /* whole pages */
  uint64_t number;     /* of its map file */
  uint64_t next_bytes; /* it is being changed to this size; 0: it is not */
  uint64_t moving_to;  /* its pages are passing to the export of this number; 0: they are not */
  struct export_terms terms;
  char *
    given; /* what the start said of one of this name, "": nothing. A term is the export's until a start says something else of it */
  char *pattern; /* of the template that it was made from; "": none */
  uint64_t idle; /* seconds that nobody has used it, at least */
};

/* A client that was fenced (session.h). */
struct manifest_client {
  char *id; /* its key: NAME@ID */
  uint64_t epoch;
};

/* Zeroed is an empty one. The arrays are on the heap, and the strings in them. */
struct manifest {
  uuid_t state; /* of this folder: the labels of its devices name it */
  uuid_t drum;
  uint64_t generation;
  bool starting; /* labels of the generation before are fine, too: a start was under way */
  uuid_t boot; /* of the machine, when the server last started (/proc/sys/kernel/random/boot_id) */
  struct manifest_device *devices;
  unsigned ndevices;
  char **
    removed; /* paths of devices that were removed live: a start does not take them, though it names them */
  unsigned nremoved;
  struct manifest_export *exports;
  unsigned nexports;
  char **removed_exports; /* names of exports that were removed live, and that the start named */
  unsigned nremoved_exports;
  struct manifest_client *clients;
  unsigned nclients;
};

/* Read what is in the folder dirfd (not opened with O_PATH), which is dir in messages. -ENOENT, and nothing is said: there is none.
 * -EPROTO: another version; -EBADMSG: it is damaged, or makes no sense (ranges that overlap, a name twice, numbers out of range). */
int manifest_load (int dirfd, const char *dir, struct manifest *m);

/* Replace it. On failure the old one is there (or none, if there was none); but where the file system can't exchange two names (NFS),
 * and the fsync of the folder fails, the new one. -EINVAL: manifest_load would not take it. */
int manifest_save (int dirfd, const char *dir, const struct manifest *m);

/* -ENOMEM */
int manifest_copy (const struct manifest *from, struct manifest *to);
void manifest_free (struct manifest *m);

#endif
