/* SPDX-License-Identifier: BSD-3-Clause
 *
 * swapdev.c - see swapdev.h. What may go wrong at a start lives in claim.c and prealloc.c, the format in label.c, the I/O in
 * swapdev-io.c.
 */
#include <config.h>

#include "swapdev-impl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blist.h"
#include "bootid.h"
#include "claim.h"
#include "log.h"
#include "memlock.h"
#include "prealloc.h"

_Static_assert(SWAP_MAXIO_MAX == (int) TURNSTILE_MAX, "as the turnstile has it");

/* Read or write the label and the bad slots: no client's I/O, and not counted as such. pages is aligned to a page. */
static int
transfer_reserved (struct swapdev *dev, void *pages, bool write)
{
  struct iovec iov = { .iov_base = pages, .iov_len = RESERVED_BYTES };

  return devio_transfer (&dev->io, 0, &iov, 1, write, NULL);
}

static int
open_existing (struct swapdev *dev, const struct stat *st)
{
  const char *path = dev->path;
  int flags = O_RDWR | O_CLOEXEC | O_NOCTTY;
  struct stat now;

  if (!S_ISREG (st->st_mode) && !S_ISBLK (st->st_mode)) {
    log_error ("%s: is %s, and a swap device is a regular file or a block device", path,
               S_ISDIR (st->st_mode) ? "a directory" : "a special file");
    return -EINVAL;
  }
  dev->is_block = S_ISBLK (st->st_mode);
  if (dev->is_block)
    flags |= O_EXCL; /* on Linux: -EBUSY if the kernel uses it, and ours alone from here on */
  dev->io.fd = claim_open (path, st, flags);
  if (dev->io.fd < 0)
    return dev->io.fd;
  if (fstat (dev->io.fd, &now) == 0 && ((now.st_mode ^ st->st_mode) & S_IFMT) == 0)
    return 0;
  log_error ("%s: became something else while it was opened: try again", path);
  return -EINVAL;
}

/* Will a device of this size do? */
static int
check_size (const char *path, uint64_t size_bytes)
{
  char text[16];

  if (size_bytes < SWAPDEV_MIN_SLOTS * PAGE_BYTES) {
    log_error ("%s: is %" PRIu64
               " bytes, and the smallest device is %u (label, bad slots and one page)",
               path, size_bytes, SWAPDEV_MIN_SLOTS * PAGE_BYTES);
    return -EINVAL;
  }
  if (size_bytes >> PAGE_SHIFT > SLOT_MAX) {
    log_error ("%s: is %" PRIu64 " bytes (%s), and a drum has at most %u slots of %u bytes (16T)",
               path, size_bytes, format_bytes (size_bytes, text), SLOT_MAX, PAGE_BYTES);
    return -EFBIG;
  }
  return 0;
}

static int
create_file (struct swapdev *dev, uint64_t create_bytes)
{
  const char *path = dev->path;
  struct stat st;
  int ret;

  if (lstat (path, &st) == 0) {
    log_error (
      "%s: is a symbolic link to something that does not exist: name that, or remove the link",
      path);
    return -ENOENT;
  }
  if (create_bytes == 0) {
    log_error ("%s: does not exist: add size=SIZE to its name to have it created", path);
    return -ENOENT;
  }
  ret = check_size (path, create_bytes);
  if (ret < 0)
    return ret;
  dev->io.fd = open (path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  dev->created = dev->io.fd >= 0;
  if (dev->created && ftruncate (dev->io.fd, (off_t) create_bytes) == 0)
    return 0; /* so that a start that is killed leaves what the next one takes */
  int err = errno;
  log_error ("%s: can't be created: %s", path, strerror (err));
  return -err;
}

static int
find_size (struct swapdev *dev, const struct stat *st, uint64_t create_bytes)
{
  char has[16], asked[16];

  if (dev->created)
    dev->size_bytes = create_bytes;
  else if (!dev->is_block)
    dev->size_bytes = (uint64_t) st->st_size;
  else if (ioctl (dev->io.fd, BLKGETSIZE64, &dev->size_bytes) == -1) {
    int err = errno;
    log_error ("%s: its size can't be found (BLKGETSIZE64): %s", dev->path, strerror (err));
    return -err;
  }
  if (create_bytes && create_bytes != dev->size_bytes) {
    log_error ("%s: exists with %" PRIu64
               " bytes (%s), not the %s of size=: leave size= out to take it as it is",
               dev->path, dev->size_bytes, format_bytes (dev->size_bytes, has),
               format_bytes (create_bytes, asked));
    return -EINVAL;
  }
  dev->nslots = (uint32_t) (dev->size_bytes >> PAGE_SHIFT);
  return check_size (dev->path, dev->size_bytes);
}

/* Read the label and the table of bad slots, if they are ours, and keep what was there. */
static int
find_identity (struct swapdev *dev)
{
  struct label label;
  int ret;

  uuid_generate (dev->identity.device);
  if (dev->created)
    return 0;
  ret = transfer_reserved (dev, dev->saved, false);
  if (ret < 0) {
    log_error ("%s: its first pages can't be read: %s", dev->path, strerror (-ret));
    return ret;
  }
  ret = label_decode (dev->saved, &label);
  if (ret == -ENOENT)
    return 0;
  if (ret < 0) {
    log_error ("%s: has a label of another version of Drum: use that one, or overwrite its first "
               "two pages with "
               "zeroes",
               dev->path);
    return ret;
  }
  dev->is_labelled = true;
  dev->identity = label.identity;
  if (badslots_decode (dev->saved + PAGE_BYTES, &dev->bad) < 0)
    log_warning ("%s: its table of bad slots is damaged: starting with an empty one", dev->path);
  return 0;
}

/* Does it hold pages that a state folder other than ours knows of, and may come back for? */
static int
check_state (const struct swapdev *dev, const unsigned char *ours)
{
  const struct swapdev_identity *id = &dev->identity;
  char text[UUID_STR_LEN];
  uuid_t boot;

  if (uuid_is_null (id->state) || (ours && uuid_compare (id->state, ours) == 0))
    return 0;
  bootid_read (boot);
  if (!uuid_is_null (id->boot) && uuid_compare (id->boot, boot) != 0)
    return 0;
  uuid_unparse (id->state, text);
  log_error ("%s: holds pages of the state %s%s: give the state= folder that has it, or force=yes "
             "to lose them",
             dev->path, text, ours ? ", which is not the one in state=" : "");
  return -EEXIST;
}

/* Is it anybody else's? */
static int
check_owner (const struct swapdev *dev, const struct swapdev_spec *spec, const struct stat *st)
{
  if (dev->is_labelled)
    return check_state (dev, spec->state);
  return dev->created ? 0 : claim_check_foreign (dev->io.fd, dev->path, st, dev->size_bytes);
}

static int
open_and_check (struct swapdev *dev, const struct swapdev_spec *spec)
{
  struct stat st;
  int ret;

  if (stat (dev->path, &st) == 0)
    ret = open_existing (dev, &st);
  else if (errno == ENOENT)
    ret = create_file (dev, spec->create_bytes);
  else {
    ret = -errno;
    log_error ("%s: %s", dev->path, strerror (-ret));
  }
  if (ret < 0)
    return ret;
  if (fstat (dev->io.fd, &st) == -1) {
    ret = -errno;
    log_error ("%s: %s", dev->path, strerror (-ret));
    return ret;
  }
  dev->st = st;
  if ((ret = claim_lock (dev->io.fd, dev->path, &st)) < 0 ||
      (ret = find_size (dev, &st, spec->create_bytes)) < 0 || (ret = find_identity (dev)) < 0)
    return ret;
  if (!spec->force)
    ret = check_owner (dev, spec, &st);
  if (ret == 0 && S_ISREG (st.st_mode) && (st.st_mode & 0077))
    log_warning ("%s: insecure permissions %04o, 0600 suggested: others can read what is swapped",
                 dev->path, st.st_mode & 07777);
  return ret;
}

int
swapdev_open (const struct swapdev_spec *spec, struct swapdev **devp)
{
  struct swapdev *dev = aligned_alloc (_Alignof(struct swapdev), sizeof *dev);
  char *path = strdup (spec->path);
  int ret;

  if (!dev || !path) {
    log_error ("%s: no memory for it: %s", spec->path, strerror (ENOMEM));
    free (path);
    free (dev);
    return -ENOMEM;
  }
  memset (dev, 0, sizeof *dev);
  dev->io.fd = -1;
  dev->prio = spec->prio;
  dev->asked_maxio = spec->maxio;
  dev->dirty = true; /* who wrote to it may have been killed before a sync */
  dev->watch = spec->watch;
  dev->bounce = spec->bounce;
  dev->path = path;
  for (unsigned i = 0; i < BOUNCE_KINDS; i++)
    turnstile_init (&dev->share[i], bounce_shape[i].share, false);
  turnstile_init (&dev->turnstile, spec->maxio, true);
  mutex_init (&dev->syncing);
  mutex_init (&dev->trying);
  head_init (&dev->head);
  ret = open_and_check (dev, spec);
  if (ret < 0) {
    swapdev_undo (dev);
    return ret;
  }
  *devp = dev;
  return 0;
}

/* Everything is free but what is reserved or bad. */
static int
make_blist (struct swapdev *dev)
{
  size_t bytes = blist_bytes (dev->nslots);
  void *mem = mmap (NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  uint32_t was_free, nbad = 0; /* those that name a slot of this device, each once */

  if (mem == MAP_FAILED)
    return -errno;
  madvise (mem, bytes,
           MADV_HUGEPAGE); /* 16M slots are free in 0.2 ms instead of 1.2; only a hint */
  dev->blist = blist_create (mem, dev->nslots);
  blist_free (dev->blist, SWAPDEV_NRESERVED, dev->nslots - SWAPDEV_NRESERVED);
  for (uint32_t i = 0; i < dev->bad.n; i++)
    if (blist_fill (dev->blist, dev->bad.slot[i], 1, &was_free) == 0 && was_free)
      dev->bad.slot[nbad++] = dev->bad.slot[i];
  dev->bad.n = nbad;
  return 0;
}

dev_t
swapdev_filesystem (const struct swapdev *dev)
{
  return dev->is_block ? 0 : dev->st.st_dev;
}

int
swapdev_check_room (const struct swapdev *dev, uint64_t promised_bytes, uint64_t *missing_bytes)
{
  *missing_bytes = 0;
  if (dev->is_block)
    return 0;
  return prealloc_check (dev->io.fd, dev->path, dev->size_bytes, promised_bytes, missing_bytes);
}

/* O_DIRECT from here on: what came before, libblkid's reads and zeroes written into holes, is fine through the page cache. */
static int
use_direct (struct swapdev *dev)
{
  int ret = devio_set_direct (&dev->io);

  if (ret == 0)
    return 0;
  if (ret != -EINVAL && ret != -EOPNOTSUPP) {
    log_error ("%s: can't be read with O_DIRECT: %s", dev->path, strerror (-ret));
    return ret;
  }
  log_warning (
    "%s: direct=yes: its file system does not do O_DIRECT: its I/O goes through the page cache",
    dev->path);
  dev->bounce = NULL;
  return 0;
}

/* Label and bad slots, for good. Also the name of a file that is new, which a state may name from here on. */
static int
write_reserved (struct swapdev *dev)
{
  struct label label = { .identity = dev->identity, .size_bytes = dev->size_bytes };
  _Alignas(PAGE_BYTES) unsigned char pages[RESERVED_BYTES];
  int ret;

  label_encode (&label, pages);
  badslots_encode (&dev->bad, pages + PAGE_BYTES);
  ret = transfer_reserved (dev, pages, true);
  if (ret == 0 && fdatasync (dev->io.fd) == -1)
    ret = -errno;
  if (ret == 0 && dev->created)
    ret = devio_sync_name (dev->path);
  if (ret < 0)
    log_error ("%s: its label can't be written: %s", dev->path, strerror (-ret));
  return ret;
}

int
swapdev_prepare (struct swapdev *dev, const struct swapdev_identity *identity)
{
  int ret;

  if (!dev->is_block &&
      (ret = prealloc_file (dev->io.fd, dev->path, dev->size_bytes, dev->watch)) < 0)
    return ret;
  dev->watch = NULL; /* it was for that */
  ret = dev->bounce ? use_direct (dev) : 0;
  if (ret < 0)
    return ret;
  ret = make_blist (dev);
  if (ret < 0) {
    log_error ("%s: no memory for the map of its free slots: %s", dev->path, strerror (-ret));
    return ret;
  }
  dev->identity = *identity;
  dev->overwritten = true;
  return write_reserved (dev);
}

int
swapdev_disown (struct swapdev *dev)
{
  uuid_clear (dev->identity.state);
  uuid_clear (dev->identity.boot);
  return write_reserved (dev);
}

/* => holds dev->syncing. An error is reported once: who sees it keeps it. */
static int
sync_locked (struct swapdev *dev)
{
  mutex_assert_held (&dev->syncing);
  while (fdatasync (dev->io.fd) == -1)
    if (errno != EINTR) {
      dev->unsynced = true;
      break;
    }
  return dev->unsynced ? -EIO : 0;
}

int
swapdev_sync (struct swapdev *dev)
{
  int ret;

  mutex_lock (&dev->syncing); /* also to wait for one that has cleared dirty, and is at it */
  ret = dev->unsynced ? -EIO : 0;
  if (ret == 0 && atomic_exchange (&dev->dirty, false))
    ret = sync_locked (dev);
  mutex_unlock (&dev->syncing);
  return ret;
}

int
swapdev_touch (struct swapdev *dev)
{
  return memlock_touch (dev->blist, blist_bytes (dev->nslots));
}

void
swapdev_close (struct swapdev *dev)
{
  if (dev->blist)
    munmap (dev->blist, blist_bytes (dev->nslots));
  if (dev->io.fd >= 0)
    close (dev->io.fd); /* gives the lock back too */
  mutex_destroy (&dev->syncing);
  mutex_destroy (&dev->trying);
  turnstile_destroy (&dev->turnstile);
  for (unsigned i = 0; i < BOUNCE_KINDS; i++)
    turnstile_destroy (&dev->share[i]);
  free (dev->path);
  free (dev);
}

void
swapdev_undo (struct swapdev *dev)
{
  if (dev->created)
    unlink (dev->path);
  else if (dev->overwritten && transfer_reserved (dev, dev->saved, true) == 0)
    fdatasync (dev->io.fd);
  swapdev_close (dev);
}

const char *
swapdev_path (const struct swapdev *dev)
{
  return dev->path;
}

void
swapdev_place_init (struct swapdev_place *place, const char *path)
{
  *place = (struct swapdev_place){ .path = path };
  if (stat (path, &place->st) == -1)
    place->st.st_nlink = 0;
}

bool
swapdev_is_at (const struct swapdev *dev, const struct swapdev_place *place)
{
  if (strcmp (place->path, dev->path) == 0)
    return true;
  if (place->st.st_nlink == 0)
    return false;
  if (dev->is_block)
    return S_ISBLK (place->st.st_mode) && place->st.st_rdev == dev->st.st_rdev;
  return place->st.st_dev == dev->st.st_dev && place->st.st_ino == dev->st.st_ino;
}

int
swapdev_prio (const struct swapdev *dev)
{
  return dev->prio;
}

unsigned
swapdev_asked_maxio (const struct swapdev *dev)
{
  return dev->asked_maxio;
}

unsigned
swapdev_maxio (const struct swapdev *dev)
{
  return turnstile_limit (&dev->turnstile);
}

void
swapdev_set_maxio (struct swapdev *dev, unsigned maxio)
{
  mutex_lock (&dev->trying);
  turnstile_set_limit (&dev->turnstile, maxio);
  head_init (&dev->head);
  mutex_unlock (&dev->trying);
}

bool
swapdev_is_single (const struct swapdev *dev)
{
  return turnstile_is_single (&dev->turnstile);
}

bool
swapdev_is_direct (const struct swapdev *dev)
{
  return dev->io.align > 0;
}

bool
swapdev_is_block (const struct swapdev *dev)
{
  return dev->is_block;
}

uint32_t
swapdev_nslots (const struct swapdev *dev)
{
  return dev->nslots;
}

uint32_t
swapdev_nusable (const struct swapdev *dev)
{
  return dev->nslots - SWAPDEV_NRESERVED - dev->bad.n;
}

uint32_t
swapdev_nbad (const struct swapdev *dev)
{
  return dev->bad.n;
}

uint32_t
swapdev_bad_slot (const struct swapdev *dev, uint32_t i)
{
  return dev->bad.slot[i];
}

int
swapdev_mark_bad (struct swapdev *dev, uint32_t slot)
{
  if (dev->bad.n == LABEL_MAX_BAD)
    return -ENOSPC;
  dev->bad.slot[dev->bad.n++] = slot;
  return 0;
}

int
swapdev_save_bad (struct swapdev *dev)
{
  _Alignas(PAGE_BYTES) unsigned char page[PAGE_BYTES]; /* O_DIRECT */
  struct iovec iov = { .iov_base = page, .iov_len = sizeof page };
  int ret;

  badslots_encode (&dev->bad, page);
  ret = devio_transfer (&dev->io, PAGE_BYTES, &iov, 1, true, NULL);
  if (ret < 0)
    return ret;
  mutex_lock (&dev->syncing);
  ret = sync_locked (dev);
  mutex_unlock (&dev->syncing);
  return ret;
}

const struct swapdev_identity *
swapdev_identity (const struct swapdev *dev)
{
  return &dev->identity;
}

bool
swapdev_is_labelled (const struct swapdev *dev)
{
  return dev->is_labelled;
}

struct blist *
swapdev_blist (struct swapdev *dev)
{
  return dev->blist;
}

const struct stats *
swapdev_stats (const struct swapdev *dev, bool write)
{
  return &dev->stats[write];
}

struct inflight *
swapdev_inflight (struct swapdev *dev)
{
  return &dev->inflight;
}

void
swapdev_readahead (struct swapdev *dev, uint32_t slot, uint32_t n)
{
  if (!swapdev_is_direct (dev)) /* or else nobody would find it there */
    posix_fadvise (dev->io.fd, (off_t) slot << PAGE_SHIFT, (off_t) n << PAGE_SHIFT,
                   POSIX_FADV_WILLNEED);
}
