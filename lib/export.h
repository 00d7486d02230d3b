/* SPDX-License-Identifier: BSD-3-Clause
 *
 * export.h - a named logical device on a drum, whose size is fixed while clients have it: bytes -> pages -> slots.
 *
 * Unit:     offsets and lengths are bytes, of any alignment; only whole pages are fast, a part of a page is read,
 *           changed and written. Requests lie inside the export (the caller has checked).
 * Semantics: nothing is written in place: a write goes to new slots, and only when its data is on the device does the
 *           page map point there, and only then are the old slots freed. A write that fails leaves each page as it was or
 *           as it was to be. A page without a slot reads as zeroes; a page of zeroes takes no slot. A read returns the
 *           bytes last acknowledged, or fails: every page is checked against its checksum.
 * Locking:  any number of threads at once. Each request holds its page range (rangelock.h) while it runs; long trims and
 *           zeroes take it in pieces of EXPORT_PIECE pages, so that they stall nobody.
 * Memory:   none on the I/O path but the thread's own stack (50 KiB), and pages of the sparse map that are touched anew.
 * Errors:   0 or -errno: -ENOSPC when the drum is full, -EIO for a page that is lost or has a wrong checksum, and what a
 *           device's I/O gave; the server answers its client with ENOSPC or EIO.
 */
#ifndef DRUM_EXPORT_H
#define DRUM_EXPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "terms.h"

struct drum;
struct export;
struct mapfile;
struct pagemap_entry;
struct pages_check;
struct pages_move;
struct state;
struct stats_snapshot;

enum {
  EXPORT_PIECE = 8192,     /* pages, 32 MiB */
  EXPORT_SEARCH = 1 << 20, /* pages, 4 GiB: some ms */
};

struct export_config {
  const char *name;
  uint64_t size_bytes; /* thin: may be more than the drum has; a multiple of the page size */
  bool checksum;
  bool reset_on_mkswap;     /* see export_write */
  uint32_t readahead_bytes; /* a block of readahead.h; 0: none */
  struct mapfile
    *file; /* keeps its page map; the export's from here on, if it is created. NULL: nothing does */
  struct state *state; /* that this file is in; NULL */
  uint64_t number;     /* of that file */
  uint64_t idle_ns;    /* since its last use, before a restart */
  const char *pattern; /* of the template that it is made from; NULL: none */
  const char *given;   /* what the start said of one of this name; NULL: nothing */
};

/* What is being done to it as a whole, to be finished at the next start if this one does not live to see it; zeroed: nothing. */
struct export_plan {
  uint64_t next_bytes; /* it is to have this size */
  uint64_t moving_to;  /* its pages pass to the export of this number */
  bool leaving;        /* it is to be there no more: for the state it is not */
};

/* -EINVAL for a size of 0 or one that is no multiple of the page size, -ENOMEM for one beyond the address space. Warns if
 * the page map may come to take more than half of the memory (FreeBSD's swapon_check_swzone). Nothing is reserved for it, and it has no
 * limit. -ENOSPC, which it says, if the drum is not to be overcommitted and has not so much. */
int export_create (struct drum *d, const struct export_config *config, struct export **e);

/* All requests have ended. Its slots are not freed (the drum ends too, or it was emptied: export_clear); what it was promised is taken back. */
void export_destroy (struct export *e);

/* It has one user, who made it, and may have more; the last one who lets go of it destroys it. Any thread. */
void export_hold (struct export *e);
void export_release (struct export *e);

/* Have all memory of its page map now: 2 MiB for each GiB. -ENOMEM. */
int export_touch (struct export *e);

const char *export_name (const struct export *e);
uint64_t export_size_bytes (const struct export *e);
bool export_has_checksums (const struct export *e);
uint64_t export_npages_used (const struct export *e); /* pages that have a slot, or are about to */

/* Promise it something else than before (room.h): slots that only this export may use up, and the most that its pages may take; 0: no
 * limit. Says what is wrong: -EINVAL if these are no whole pages, or the reserve is more than the size or the limit;
 * -ENOSPC if the drum can't promise so much; with force it does all the same, and warns. */
int export_promise (struct export *e, uint64_t reserve_bytes, uint64_t limit_bytes, bool force);
uint64_t export_reserve_bytes (const struct export *e);
uint64_t export_limit_bytes (const struct export *e); /* 0: none */

/* Raise the reserve as far as each page of the range, or a part of one, needs to get a slot if it has none (swap_pager_reserve); *reserve_bytes is
 * what it is then. Says what is wrong: as export_promise; -EINVAL also for a range that does not lie inside the export, -ENOSPC if its limit is less. */
int export_fill (struct export *e, uint64_t length, uint64_t offset, uint64_t *reserve_bytes);

uint64_t export_number (const struct export *e);
const char *export_pattern (const struct export *e); /* NULL: it is made from no template */
const char *export_given (const struct export *e);   /* NULL */

/* What it was promised and may have; any thread. */
void export_get_terms (struct export *e, struct export_terms *terms);
int export_set_terms (struct export *e, const struct export_terms *terms, bool force);
void export_get_plan (struct export *e, struct export_plan *plan);
void export_set_plan (struct export *e, struct export_plan plan);

/* How long has nobody used it, a client that is there, or a request? */
uint64_t export_idle_ns (const struct export *e, uint64_t now);
uint64_t export_last_ns (
  const struct export
    *e); /* when its last request ended, now_ns; 0: there was none since the server started */

/* A client comes, or goes (-1); how many there are. */
void export_count_client (struct export *e, int change);
unsigned export_nclients (const struct export *e);

enum export_op { EXPORT_READ, EXPORT_WRITE, EXPORT_TRIM, EXPORT_ZERO, EXPORT_NOPS };

/* What clients asked for so far, and how many of the pages that they wrote were zeroes. */
void export_stats (const struct export *e, enum export_op op, struct stats_snapshot *snapshot);
uint64_t export_npages_zero (const struct export *e);

/* What the page map file says, at a start, before the first request and before drum_claim of its slot, which is the caller's. */
void export_restore (struct export *e, uint64_t page, struct pagemap_entry entry);
struct pagemap_entry export_entry (const struct export *e, uint64_t page);
struct mapfile *export_file (const struct export *e);

/* Does this page have these contents, as far as its entry knows? */
bool export_matches (const struct export *e, uint64_t page, struct pagemap_entry entry,
                     const void *data);

/* How long has a request to wait for the caps of the export before it may begin, in nanoseconds? Ask again after that, as flow_pace wants it; hold nothing meanwhile. */
uint64_t export_pace (struct export *e, uint64_t length, uint64_t *until_ns);

/* How long requests had to wait so far, all together. That is not in the latencies of export_stats: the drum had not got them yet. */
uint64_t export_paced_ns (const struct export *e);

int export_read (struct export *e, void *buf, uint64_t length, uint64_t offset);

/* With reset_on_mkswap, a write that puts a swap header into page 0 whose UUID is another one than that of the last header
 * there makes an end of the old swap area: all other pages but those that this write is for are freed. Writes of page 0 hold the
 * whole export then, so that nothing is freed that was written after the header, by whichever request. */
int export_write (struct export *e, const void *buf, uint64_t length, uint64_t offset);

/* It is fresh: make a swap area of it, for hosts with pages of our size, whose UUID is made from its name (swaphdr.h). -EINVAL if
 * it is too small for that. */
int export_format (struct export *e);

/* Make durable what was acknowledged before: see state_sync. Nothing to do without a state. */
int export_flush (struct export *e);

/* Give back the slots of whole pages in the range; parts of pages at its ends stay as they are. */
int export_trim (struct export *e, uint64_t length, uint64_t offset);

/* Give back all that it has: nobody uses it any more, but for walks (export_move, export_check). Its file is closed, and stays as it was. */
void export_clear (struct export *e);

/* Make the range read as zeroes. fast: -EOPNOTSUPP, and nothing changed, if that needs a part of a page to be read. */
int export_zero (struct export *e, uint64_t length, uint64_t offset, bool fast);

/* Ask for what the range needs to be in the page cache soon; only a hint. */
int export_cache (struct export *e, uint64_t length, uint64_t offset);

/* Say which parts of the range have data (others read as zeroes): add is called for one extent after the other, without
 * gaps, from offset on and not beyond the range (nbdkit 1.32 asserts that), at most EXPORT_EXTENTS times and at least
 * once; one: just once. Stops and returns what add returned if that is not 0. */
enum { EXPORT_EXTENTS = 4096 };
int export_extents (struct export *e, uint64_t length, uint64_t offset, bool one,
                    int (*add) (void *opaque, uint64_t offset, uint64_t length, bool data),
                    void *opaque);

/* Resize and pass: no client has the exports, and none comes meanwhile; pages of theirs may move and be checked, which waits.
 * With a state the manifest has to say first what is going to be, so that a start can finish what was interrupted
 * (state_finish_resize, state_finish_pass); and must not say so any more when the next client comes. */

/* Before the manifest says so: may it have this size, as far as can be told? -EINVAL for what is no size, or less than the reserve; -ENOSPC, -ENOMEM: also said. */
int export_prepare_resize (struct export *e, uint64_t size_bytes);

/* Growing: the new pages have no slot, and, with lock=, no memory yet: export_touch. Shrinking: those beyond are freed. -EINVAL as export_create, and
 * for a size less than the reserve; -ENOSPC as export_create; -ENOMEM, and what the map file gave: nothing has changed, and all but the first is said. */
int export_resize (struct export *e, uint64_t size_bytes);

/* The pages of from become to's (see pages.h); then from has none. Before the manifest says so: may they, and is it durable which pages have
 * entries? -EFBIG if from has pages beyond the end of to, -ENOSPC if to's limit is less, or the drum could not keep what it has
 * promised, -EINVAL if one has checksums and the other not, or both are one, -EIO: also said. */
int export_prepare_pass (struct export *from, struct export *to);

/* The same, and -EIO if the files do not take it: nothing has changed, and that is said. */
int export_pass (struct export *from, struct export *to);

/* Move (see pages.h) those of the next npages pages that are to be moved, beginning with the first such at or behind *page; *page is
 * then the one behind them, or UINT64_MAX at the end of the export. Looks at EXPORT_SEARCH
 * pages at most, and may find none: 0. As pages_move, but -ENOSPC leaves *page at the first one. */
int export_move (struct export *e, uint64_t *page, unsigned npages, const struct pages_move *move);

/* The same for pages that are to be looked at (see pages.h), which stay where they are. Returns how many were read. */
unsigned export_check (struct export *e, uint64_t *page, unsigned npages,
                       const struct pages_check *check);

#endif
