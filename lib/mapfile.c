/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "mapfile.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devio.h"
#include "log.h"
#include "mutex.h"
#include "pagemap.h"
#include "pagesum.h"

enum { ENTRY_BYTES = 8 };

_Static_assert(sizeof (struct pagemap_entry) == ENTRY_BYTES, "entries are converted in place");

struct mapfile {
  struct devio io;
  char *path;
  uint64_t npages;
  _Atomic bool dirty;     /* written to since the last sync began */
  _Atomic int sync_error; /* of the first sync that failed */
  struct mutex syncing;   /* one at a time: who finds nothing to do has waited for who does it */
};

static int
alloc (const char *dir, const char *name, uint64_t npages, struct mapfile **made)
{
  struct mapfile *mf = calloc (1, sizeof *mf);

  if (!mf || asprintf (&mf->path, "%s/%s", dir, name) == -1) {
    free (mf);
    log_error ("%s/%s: no memory for it", dir, name);
    return -ENOMEM;
  }
  mutex_init (&mf->syncing);
  mf->io.fd = -1;
  mf->npages = npages;
  *made = mf;
  return 0;
}

void
mapfile_close (struct mapfile *mf)
{
  if (mf->io.fd != -1)
    close (mf->io.fd);
  mutex_destroy (&mf->syncing);
  free (mf->path);
  free (mf);
}

/* One by this name is another, or what a create that was killed has left. */
static int
make (int dirfd, const char *name, struct mapfile *mf)
{
  if (unlinkat (dirfd, name, 0) == -1 && errno != ENOENT)
    return -errno;
  mf->io.fd = openat (dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (mf->io.fd == -1)
    return -errno;
  mf->dirty = true;
  return ftruncate (mf->io.fd, (off_t) (mf->npages * ENTRY_BYTES)) == -1 ? -errno : 0;
}

int
mapfile_create (int dirfd, const char *dir, const char *name, uint64_t npages,
                struct mapfile **made)
{
  struct mapfile *mf;
  int ret = alloc (dir, name, npages, &mf);

  if (ret < 0)
    return ret;
  ret = npages <= INT64_MAX / ENTRY_BYTES ? make (dirfd, name, mf) : -EFBIG;
  if (ret < 0) {
    if (ret != -EFBIG)
      log_error ("%s: the map of an export can't be made: %s", mf->path, strerror (-ret));
    if (mf->io.fd != -1)
      unlinkat (dirfd, name, 0);
    mapfile_close (mf);
    return ret;
  }
  *made = mf;
  return 0;
}

/* Of mf->npages, or of other_npages, or in between. */
static int
open_existing (int dirfd, const char *name, struct mapfile *mf, uint64_t other_npages)
{
  uint64_t min = mf->npages < other_npages ? mf->npages : other_npages;
  uint64_t max = mf->npages < other_npages ? other_npages : mf->npages;
  struct stat st;

  mf->io.fd = openat (dirfd, name, O_RDWR | O_CLOEXEC);
  if (mf->io.fd == -1 || fstat (mf->io.fd, &st) == -1) {
    int ret = -errno;

    log_error ("%s: the map of an export can't be opened: %s", mf->path, strerror (-ret));
    return ret;
  }
  if (!S_ISREG (st.st_mode)) {
    log_error ("%s: is no regular file, and should be the map of an export", mf->path);
    return -EINVAL;
  }
  if ((uint64_t) st.st_size % ENTRY_BYTES || (uint64_t) st.st_size / ENTRY_BYTES < min ||
      (uint64_t) st.st_size / ENTRY_BYTES > max) {
    log_error ("%s: is %jd bytes, and a map of %" PRIu64 " pages has 8 for each: it was cut, or "
               "is that of another export",
               mf->path, (intmax_t) st.st_size, mf->npages);
    return -EINVAL;
  }
  return 0;
}

int
mapfile_open (int dirfd, const char *dir, const char *name, uint64_t npages,
              struct mapfile **opened)
{
  struct mapfile *mf;
  int ret = alloc (dir, name, npages, &mf);

  if (ret < 0)
    return ret;
  ret = open_existing (dirfd, name, mf, npages);
  if (ret < 0) {
    mapfile_close (mf);
    return ret;
  }
  mf->dirty = true; /* who wrote it may have been killed before a sync */
  *opened = mf;
  return 0;
}

static int
set_size (struct mapfile *mf, uint64_t npages)
{
  if (npages > INT64_MAX / ENTRY_BYTES)
    return -EFBIG;
  while (ftruncate (mf->io.fd, (off_t) (npages * ENTRY_BYTES)) == -1)
    if (errno != EINTR)
      return -errno;
  atomic_store (&mf->dirty, true);
  return 0;
}

int
mapfile_resize (struct mapfile *mf, uint64_t npages)
{
  int ret = set_size (mf, npages);

  if (ret == 0)
    mf->npages = npages;
  return ret;
}

int
mapfile_empty (struct mapfile *mf)
{
  int ret = set_size (mf, 0), err;

  if (ret < 0)
    return ret;
  err = set_size (mf, mf->npages);
  if (err < 0) /* there is no way back: the next sync says so, and all that come */
    mf->sync_error = err;
  return 0;
}

int
mapfile_finish_resize (int dirfd, const char *dir, const char *name, uint64_t from_npages,
                       uint64_t to_npages)
{
  struct mapfile *mf;
  int ret = alloc (dir, name, to_npages, &mf);

  if (ret < 0)
    return ret;
  ret = open_existing (dirfd, name, mf, from_npages);
  if (ret == 0) {
    ret = set_size (mf, to_npages);
    if (ret == 0)
      ret = mapfile_sync (mf);
    if (ret < 0)
      log_error ("%s: the map of an export can't be given its size: %s", mf->path, strerror (-ret));
  }
  mapfile_close (mf);
  return ret;
}

/* Whole entries stay. If this is interrupted, the rest is missing as before. */
static int
complete (int dirfd, const char *name, struct mapfile *mf, uint64_t *nlost)
{
  struct pagemap_entry lost[MAPFILE_BATCH];
  struct stat st;
  uint64_t n;
  int ret = 0;

  mf->io.fd = openat (dirfd, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (mf->io.fd == -1 || fstat (mf->io.fd, &st) == -1)
    return -errno;
  n = (uint64_t) st.st_size / ENTRY_BYTES;
  n = n < mf->npages ? n : mf->npages;
  if (S_ISREG (st.st_mode) && ftruncate (mf->io.fd, (off_t) (n * ENTRY_BYTES)) == -1)
    return -errno;
  *nlost = mf->npages - n;
  for (unsigned i = 0; i < MAPFILE_BATCH; i++)
    lost[i] = (struct pagemap_entry){ .slot = SLOT_LOST };
  for (unsigned k; n < mf->npages && ret == 0; n += k) {
    k = mf->npages - n < MAPFILE_BATCH ? (unsigned) (mf->npages - n) : MAPFILE_BATCH;
    mapfile_write (mf, n, lost, k, &ret);
  }
  return ret == 0 && fsync (mf->io.fd) == -1 ? -errno : ret;
}

int
mapfile_repair (int dirfd, const char *dir, const char *name, uint64_t npages, uint64_t *nlost)
{
  struct mapfile *mf;
  int ret = alloc (dir, name, npages, &mf);

  if (ret < 0)
    return ret;
  ret = complete (dirfd, name, mf, nlost);
  if (ret < 0)
    log_error ("%s: the map of an export can't be repaired: %s", mf->path, strerror (-ret));
  mapfile_close (mf);
  return ret;
}

const char *
mapfile_path (const struct mapfile *mf)
{
  return mf->path;
}

/* A file system writes whole pages of memory, which have whole entries; where it cuts one it is not counted. */
unsigned
mapfile_write (struct mapfile *mf, uint64_t page, const struct pagemap_entry *entries, unsigned n,
               int *error)
{
  uint64_t buffer[MAPFILE_BATCH];
  struct iovec iov = { .iov_base = buffer, .iov_len = n * ENTRY_BYTES };
  int ret;

  for (unsigned i = 0; i < n; i++)
    buffer[i] = htole64 ((uint64_t) entries[i].sum << 32 | entries[i].slot);
  ret = devio_transfer (&mf->io, (off_t) (page * ENTRY_BYTES), &iov, n > 0, true, NULL);
  atomic_store (&mf->dirty, true); /* afterwards: see mapfile_sync */
  if (ret == 0)
    return n;
  *error = ret;
  return (unsigned) ((size_t) ((char *) iov.iov_base - (char *) buffer) / ENTRY_BYTES);
}

/* What was written before has set dirty by now. If it is cleared here, fdatasync comes later, and takes that along; what is
 * written meanwhile sets it again. */
int
mapfile_sync (struct mapfile *mf)
{
  int ret;

  mutex_lock (&mf->syncing);
  ret = mf->sync_error;
  if (ret == 0 && atomic_exchange (&mf->dirty, false))
    while (ret == 0 && fdatasync (mf->io.fd) == -1)
      if (errno != EINTR)
        mf->sync_error = ret = -errno;
  mutex_unlock (&mf->syncing);
  return ret;
}

/* The next part that is no hole, of whole entries: at or behind *first, half open. All that is left, if the file system does not tell. False if
 * there is none. */
static bool
next_data (const struct mapfile *mf, uint64_t *first, uint64_t *end)
{
  off_t data = lseek (mf->io.fd, (off_t) (*first * ENTRY_BYTES), SEEK_DATA), hole;

  *end = mf->npages;
  if (data == -1)
    return errno != ENXIO && *first < *end;
  hole = lseek (mf->io.fd, data, SEEK_HOLE);
  *first = (uint64_t) data / ENTRY_BYTES;
  if (hole != -1 && ((uint64_t) hole + ENTRY_BYTES - 1) / ENTRY_BYTES < *end)
    *end = ((uint64_t) hole + ENTRY_BYTES - 1) / ENTRY_BYTES;
  return *first < *end;
}

static int
read_entries (const struct mapfile *mf, uint64_t first, struct pagemap_entry *entries, unsigned n)
{
  struct iovec iov = { .iov_base = entries, .iov_len = n * ENTRY_BYTES };
  int ret = devio_transfer (&mf->io, (off_t) (first * ENTRY_BYTES), &iov, 1, false, NULL);

  if (ret < 0) {
    log_error ("%s: can't be read from byte %" PRIu64 " on: %s", mf->path, first * ENTRY_BYTES,
               strerror (-ret));
    return ret;
  }
  for (unsigned i = 0; i < n; i++) {
    uint64_t entry;

    memcpy (&entry, &entries[i], sizeof entry);
    entry = le64toh (entry);
    entries[i] =
      (struct pagemap_entry){ .slot = (uint32_t) entry, .sum = (uint32_t) (entry >> 32) };
  }
  return 0;
}

int
mapfile_read (struct mapfile *mf,
              int (*each) (void *opaque, uint64_t page, const struct pagemap_entry *entries,
                           unsigned n),
              void *opaque)
{
  struct pagemap_entry *entries = malloc (MAPFILE_READ * sizeof *entries);
  int ret = 0;

  if (!entries) {
    log_error ("%s: no memory to read it with", mf->path);
    return -ENOMEM;
  }
  for (uint64_t page = 0, end; ret == 0 && next_data (mf, &page, &end);)
    for (unsigned n; ret == 0 && page < end; page += n) {
      n = end - page < MAPFILE_READ ? (unsigned) (end - page) : MAPFILE_READ;
      ret = read_entries (mf, page, entries, n);
      if (ret == 0)
        ret = each (opaque, page, entries, n);
    }
  free (entries);
  return ret;
}

struct pass {
  struct mapfile *from, *to;
  uint64_t from_key, to_key;
  struct pagemap_entry *entry; /* MAPFILE_READ of them, of to */
};

/* Does to have a page for each of them? */
static int
check_fits (void *opaque, uint64_t page, const struct pagemap_entry *entry, unsigned n)
{
  const struct pass *pass = opaque;

  for (unsigned i = 0; i < n; i++)
    if (entry[i].slot != SLOT_NONE && page + i >= pass->to->npages) {
      log_error ("%s: has page %" PRIu64 ", which can't pass to %s: that has %" PRIu64,
                 pass->from->path, page + i, pass->to->path, pass->to->npages);
      return -EFBIG;
    }
  return 0;
}

static int
write_passed (struct mapfile *mf, uint64_t page, const struct pagemap_entry *entry, unsigned n)
{
  int ret = 0;

  for (unsigned k; n > 0 && ret == 0; page += k, entry += k, n -= k) {
    k = n < MAPFILE_BATCH ? n : MAPFILE_BATCH;
    mapfile_write (mf, page, entry, k, &ret);
  }
  if (ret < 0)
    log_error ("%s: can't be written: %s", mf->path, strerror (-ret));
  return ret;
}

static int
pass_on (void *opaque, uint64_t page, const struct pagemap_entry *entry, unsigned n)
{
  struct pass *pass = opaque;
  unsigned first = n, end = 0;
  int ret;

  if (page >= pass->to->npages)
    return 0;
  n = n < pass->to->npages - page ? n : (unsigned) (pass->to->npages - page);
  ret = read_entries (pass->to, page, pass->entry, n);
  if (ret < 0)
    return ret;
  for (unsigned i = 0; i < n; i++)
    if (pass->entry[i].slot == SLOT_NONE && entry[i].slot != SLOT_NONE) {
      pass->entry[i] = pagemap_rekey (entry[i], pagesum_key (pass->from_key, page + i) ^
                                                  pagesum_key (pass->to_key, page + i));
      first = first < i ? first : i;
      end = i + 1;
    }
  return first < end ? write_passed (pass->to, page + first, pass->entry + first, end - first) : 0;
}

static int
sync_both (struct pass *pass)
{
  int ret = mapfile_sync (pass->from), err = mapfile_sync (pass->to);

  ret = ret < 0 ? ret : err;
  if (ret < 0)
    log_error ("%s or %s can't be made durable: %s", pass->from->path, pass->to->path,
               strerror (-ret));
  return ret;
}

/* The steps of pages_pass, and for the same reasons. */
static int
run_pass (struct pass *pass)
{
  int ret = mapfile_read (pass->from, check_fits, pass);

  if (ret == 0)
    ret = mapfile_read (pass->from, pass_on, pass);
  if (ret == 0)
    ret = sync_both (pass);
  if (ret < 0)
    return ret;
  ret = mapfile_empty (pass->from);
  if (ret < 0)
    log_error ("%s: can't be emptied: %s", pass->from->path, strerror (-ret));
  return ret < 0 ? ret : sync_both (pass);
}

int
mapfile_pass (struct mapfile *from, struct mapfile *to, uint64_t from_key, uint64_t to_key)
{
  struct pass pass = { .from = from, .to = to, .from_key = from_key, .to_key = to_key };
  int ret;

  pass.entry = malloc (MAPFILE_READ * sizeof *pass.entry);
  if (!pass.entry) {
    log_error ("%s: no memory to read it with", to->path);
    return -ENOMEM;
  }
  ret = run_pass (&pass);
  free (pass.entry);
  return ret;
}
