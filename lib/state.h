/* SPDX-License-Identifier: BSD-3-Clause
 *
 * state.h - the folder that keeps what survives a restart, and what it takes to make that durable.
 *
 * Contents: lock (who has it locked is the server), manifest (manifest.h), map-N (mapfile.h).
 * Order:    a change of a page is written to its map file before it is acknowledged, and before the old slot is freed: a SIGKILL at any
 *           moment loses nothing. After state_sync it outlives the power, too: first the devices, then the maps. A folder
 *           in memory (tmpfs) outlives no power failure, and nothing is synced for it.
 * Locking:  any thread, where it does not say otherwise.
 * Memory:   state_sync allocates nothing.
 * Errors:   0 or -errno. What goes wrong at a start is also said through log.h, and names the folder.
 */
#ifndef DRUM_STATE_H
#define DRUM_STATE_H

#include <stdbool.h>
#include <stdint.h>

struct drum;
struct manifest;
struct manifest_export;
struct mapfile;
struct state;

/* Take the folder, which is created (0700) if there is none, and read what it says. -EBUSY if another server has it; -EPROTO or
 * -EBADMSG if its manifest is of another version, or damaged. sync: every write is durable before it is acknowledged. */
int state_open (const char *dir, bool sync, struct state **s);

/* The server ends; the folder stays. */
void state_close (struct state *s);

/* The start failed, or came to nothing: first, labels and files may be put back as they were; then the folder is as it was. */
void state_begin_undo (struct state *s);
void state_undo (struct state *s);

const char *state_dir (const struct state *s);
bool state_is_durable (const struct state *s);   /* not in memory */
bool state_syncs_writes (const struct state *s); /* sync=yes */

/* What it says; NULL if there was nothing in it when it was opened. For the start, which nobody else changes it in. */
const struct manifest *state_manifest (const struct state *s);

/* Replace the manifest: compose fills in a zeroed one, from the one before (zeroed, if there was none); what it returns, unless 0,
 * this returns. On failure the old one is there. One at a time; others wait. */
int state_update (struct state *s,
                  int (*compose) (void *opaque, const struct manifest *before, struct manifest *m),
                  void *opaque);

/* What the manifest says of an export by now, without its strings; false: nothing. moving_to is its own number where another's pages are
 * passing to it. Waits for nobody: another one may be under way. */
bool state_export (struct state *s, uint64_t number, struct manifest_export *known);

/* The map file of an export, a new one (npages, all holes; state_sync_names before the manifest names it) or one that is there. -EINVAL if it is of another size. */
int state_map (struct state *s, uint64_t number, uint64_t npages, bool create, struct mapfile **mf);

/* Give one that should be there its size: see mapfile_repair. */
int state_repair_map (struct state *s, uint64_t number, uint64_t npages, uint64_t *nlost);

/* Remove the map file of an export that the manifest does not know (any more); or, at a start, all such. If that fails it does no harm. */
void state_remove_map (struct state *s, uint64_t number);
int state_sweep (struct state *s);

/* Go on, at a start, with what was interrupted (see export.h), before the maps are opened: an export has as many pages as it was to have, of
 * either number; the pages of from are to's. */
int state_finish_resize (struct state *s, uint64_t number, uint64_t from_npages,
                         uint64_t to_npages);
int state_finish_pass (struct state *s, const struct manifest_export *from,
                       const struct manifest_export *to);

/* What state_sync makes durable: the devices of this drum, and a map file, until state_forget. -ENOMEM */
void state_set_drum (struct state *s, struct drum *d);
int state_keep (struct state *s, struct mapfile *mf);
void state_forget (struct state *s, struct mapfile *mf);

/* Everything that was acknowledged before is durable when this returns 0. -EIO if that can't be said, now or ever again until the
 * device in question has left. Whoever comes while one sync is under way shares the next one. */
int state_sync (struct state *s);

/* What the maps say is durable; not what is on the devices. -EIO */
int state_sync_maps (struct state *s);

/* The names of all maps are durable, and this map, which may be new; NULL: none. Waits for no device. */
int state_sync_names (struct state *s, struct mapfile *mf);

#endif
