/* SPDX-License-Identifier: BSD-3-Clause
 *
 * swapdev.h - one backing file or block device: its blist and its I/O.
 *
 * Unit:    slots are numbered from 0 in the device here; the drum adds the first slot of the device's range. The first
 *          two are the label and the table of bad slots, and never allocated.
 * Range:   3 to 2^32-2 slots; a rest of less than a page at the end is not used.
 * Locking: none for I/O, which may run from any number of threads at once, and waits for its turn if the device has a limit;
 *          the blist is the drum's to lock.
 * Errors:  0 or -errno. What goes wrong at start or at add is also said in one line through log.h, here and nowhere
 *          else, since only here are both names, numbers and the way out known.
 *
 * A start has steps, so that one that fails leaves everything as it was: swapdev_open for all devices, which changes
 * nothing (but creates the files that size= asks for), swapdev_check_room for all, then swapdev_prepare for all, which
 * allocates and writes labels; swapdev_undo takes it back.
 */
#ifndef DRUM_SWAPDEV_H
#define DRUM_SWAPDEV_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <uuid/uuid.h>

#include "bounce.h"
#include "devio.h"
#include "turnstile.h"

struct blist;
struct flow;
struct inflight;
struct inflight_io;
struct prealloc_watch;
struct rings;
struct stats;
struct swapdev;

enum {
  SWAPDEV_NRESERVED = 2, /* slots at the start: label, bad slots */
  SWAPDEV_MIN_SLOTS = 3, /* those and one page */
};

enum { SWAP_PRIO_DEFAULT = -1, SWAP_PRIO_MIN = -1, SWAP_PRIO_MAX = 32767 };
enum { SWAP_MAXIO_MAX = 65535 };

/* What the user asks for. */
struct swapdev_spec {
  const char *path;           /* absolute */
  int prio;                   /* SWAP_PRIO_MIN to SWAP_PRIO_MAX, higher is used first */
  unsigned maxio;             /* requests at once, up to SWAP_MAXIO_MAX; 0: no limit */
  uint64_t create_bytes;      /* create a regular file of this size; 0: it must exist */
  struct bounce *bounce;      /* O_DIRECT, with these buffers; NULL: not */
  bool force;                 /* take a device that may carry someone's data */
  const unsigned char *state; /* UUID of the state folder whose pages it may hold; NULL: of none */
  const struct prealloc_watch *watch; /* of swapdev_prepare, which may take long; may be NULL */
};

/* What the label says. A device without one has generation 0 and a UUID of its own, made at open. */
struct swapdev_identity {
  uuid_t drum;
  uuid_t device;
  uint64_t generation; /* raised at every start */
  uuid_t
    state; /* the state folder that knows what its slots hold; null: nobody does, once the server ends */
  uuid_t boot; /* that folder is gone when the machine's boot is another one; null: it stays */
};

/* Open and lock the device, find its size and check that it may be taken.
 * -EBUSY if this or another server has it, or the kernel does; -EEXIST if it may be someone's data; -EINVAL for what
 * can't be a swap device; and what open(2) says. */
int swapdev_open (const struct swapdev_spec *spec, struct swapdev **dev);

/* The file system that it takes space from; 0 for a block device, which takes none. */
dev_t swapdev_filesystem (const struct swapdev *dev);

/* Will it find the space that it lacks, beside promised_bytes for others on the same file system? -ENOSPC if not. */
int swapdev_check_room (const struct swapdev *dev, uint64_t promised_bytes,
                        uint64_t *missing_bytes);

/* Allocate what is not, turn to O_DIRECT (or warn that it can't be), write label and bad slots, and make the blist, with all
 * usable slots free. */
int swapdev_prepare (struct swapdev *dev, const struct swapdev_identity *identity);

/* Have all memory of its blist now; it is prepared. -ENOMEM. */
int swapdev_touch (struct swapdev *dev);

/* Make durable what was written before. Once that has failed nobody knows what is on the device: it fails for ever, with
 * -EIO. Costs nothing if nothing was written since. */
int swapdev_sync (struct swapdev *dev);

/* Its slots hold nothing any more: its label names no state. */
int swapdev_disown (struct swapdev *dev);

/* Close the device; it stays as it is. */
void swapdev_close (struct swapdev *dev);

/* The start failed: remove the file if swapdev_open created it, put back what swapdev_prepare overwrote, close. */
void swapdev_undo (struct swapdev *dev);

const char *swapdev_path (const struct swapdev *dev);

/* A path, and what is there now. */
struct swapdev_place {
  const char *path;
  struct stat st; /* st_nlink is 0 if there is nothing */
};

/* Look what is there; may sleep. */
void swapdev_place_init (struct swapdev_place *place, const char *path);

/* Is that its own path, or another name of the same file or block device? */
bool swapdev_is_at (const struct swapdev *dev, const struct swapdev_place *place);

int swapdev_prio (const struct swapdev *dev);             /* as it was asked for */
unsigned swapdev_asked_maxio (const struct swapdev *dev); /* the same */

/* How many requests may be under way at once (turnstile.h); any time, any thread. Label and bad slots need no turn. */
unsigned swapdev_maxio (const struct swapdev *dev);
void swapdev_set_maxio (struct swapdev *dev, unsigned maxio);

/* Without such a limit: is it one now, since that is more than many are (head.h)? */
bool swapdev_is_single (const struct swapdev *dev);

bool swapdev_is_block (const struct swapdev *dev);
bool swapdev_is_direct (const struct swapdev *dev);  /* once it is prepared */
uint32_t swapdev_nslots (const struct swapdev *dev); /* with the reserved ones */
uint32_t
swapdev_nusable (const struct swapdev *dev); /* without them and bad ones; once it is prepared */
uint32_t swapdev_nbad (const struct swapdev *dev);
uint32_t swapdev_bad_slot (const struct swapdev *dev, uint32_t i); /* i < swapdev_nbad */

/* Never use this slot again; swapdev_save_bad writes the table (label.h) to the device, for good. -ENOSPC if it is full. */
int swapdev_mark_bad (struct swapdev *dev, uint32_t slot);
int swapdev_save_bad (struct swapdev *dev);

const struct swapdev_identity *swapdev_identity (const struct swapdev *dev);
bool
swapdev_is_labelled (const struct swapdev *dev); /* it had a label of ours when it was opened */
struct blist *swapdev_blist (struct swapdev *dev);

/* Of swapdev_read, or of swapdev_write: a call is a request, from the time when it has its turn, or several, if it has to go in
 * pieces; label and bad slots are not counted. */
const struct stats *swapdev_stats (const struct swapdev *dev, bool write);
struct inflight *swapdev_inflight (struct swapdev *dev);

/* A transfer of whole pages, consecutive on the device from slot on, until all is done or fails: see devio.h. Uses up iov. */
struct swapdev_io {
  struct swapdev *dev;
  const struct flow *flow; /* whose it is; NULL: the server's own */
  uint32_t slot;
  struct iovec *iov;
  unsigned niov;
  bool write;
  int ret; /* 0 or -errno */
  /* The others are swapdev-io.c's. */
  uint32_t nslots, nturn; /* still to be done; and of these, in this turn */
  unsigned npieces;       /* of iov, that those are; behind them there is */
  struct iovec rest;
  struct turnstile_turn turn, share; /* on the device; of the buffers of this kind */
  enum bounce_kind kind;
  void *buffer;
  uint64_t begin_ns;
  struct inflight_io *inflight;
  struct devio_op op;
  bool is_put_off; /* and has no turn meanwhile */
  struct swapdev_io *next;
};

enum { SWAPDEV_TOGETHER = 32 }; /* at most; some 400 bytes each, of the stack */

/* All of these, on any devices; at once, as far as their turnstiles let them in and if there is a ring (ring.h; NULL: there is
 * none), else one after the other. known_ns: for current_ns, when they begin, and then when the last of them has ended; NULL: nobody
 * wants to know. */
void swapdev_transfer (struct swapdev_io *io, unsigned n, struct rings *rings, uint64_t *known_ns);

/* One. */
int swapdev_read (struct swapdev *dev, const struct flow *flow, uint32_t slot, struct iovec *iov,
                  unsigned niov);
int swapdev_write (struct swapdev *dev, const struct flow *flow, uint32_t slot, struct iovec *iov,
                   unsigned niov);

/* Ask the kernel to have n slots in its page cache soon; only a hint. */
void swapdev_readahead (struct swapdev *dev, uint32_t slot, uint32_t n);

#endif
