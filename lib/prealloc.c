/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "prealloc.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "log.h"

enum {
  WRITE_BYTES = 1 << 16,
  PROGRESS_BYTES = 16 << 20,
  FALLOCATE_BYTES =
    1 << 30, /* at once: so that others find the file system's locks free now and then */
};

/* A file on its way to its size. */
struct file {
  int fd;
  uint64_t size_bytes;
  const struct prealloc_watch *watch; /* may be NULL */
};

/* All before done_bytes is allocated. Shall we go on? */
static int
progress (const struct file *file, uint64_t done_bytes)
{
  const struct prealloc_watch *watch = file->watch;

  return watch ? watch->progress (watch->opaque, done_bytes, file->size_bytes) : 0;
}

static int
write_zeroes (const struct file *file, uint64_t at, uint64_t end)
{
  static const char zeroes[WRITE_BYTES];
  int ret;

  while (at < end) {
    size_t n = end - at < sizeof zeroes ? (size_t) (end - at) : sizeof zeroes;
    ssize_t done = pwrite (file->fd, zeroes, n, (off_t) at);

    if (done < 0 && errno == EINTR)
      continue;
    if (done <= 0)
      return done < 0 ? -errno : -EIO;
    at += (uint64_t) done;
    if (at % PROGRESS_BYTES < WRITE_BYTES && (ret = progress (file, at)) < 0)
      return ret;
  }
  return 0;
}

/* Write zeroes where the file has holes. */
static int
write_holes (const struct file *file)
{
  uint64_t at = 0;

  while (at < file->size_bytes) {
    off_t hole = lseek (file->fd, (off_t) at, SEEK_HOLE);
    off_t data;
    int ret;

    if (hole == -1)
      return -errno;
    if ((uint64_t) hole >= file->size_bytes)
      return 0;
    data = lseek (file->fd, hole, SEEK_DATA);
    if (data == -1 && errno != ENXIO)
      return -errno;
    at = data == -1 ? file->size_bytes : (uint64_t) data;
    ret = write_zeroes (file, (uint64_t) hole, at);
    if (ret < 0)
      return ret;
  }
  return 0;
}

/* Also what seems to have all of its blocks: st_blocks counts the file system's own ones, too. */
static int
fallocate_all (const struct file *file)
{
  for (uint64_t at = 0; at < file->size_bytes;) {
    uint64_t rest = file->size_bytes - at;
    uint64_t n = rest < FALLOCATE_BYTES ? rest : FALLOCATE_BYTES;
    int ret;

    if (fallocate (file->fd, 0, (off_t) at, (off_t) n) == -1) {
      if (errno == EINTR)
        continue;
      return -errno;
    }
    at += n;
    ret = progress (file, at);
    if (ret < 0)
      return ret;
  }
  return 0;
}

static int
complain (const char *path, uint64_t size_bytes, int ret)
{
  char size_text[16];

  if (ret == -ENOSPC || ret == -EDQUOT || ret == -EFBIG)
    log_error ("%s: there is no room for %s: %s: make room, or a smaller file", path,
               format_bytes (size_bytes, size_text), strerror (-ret));
  else if (ret < 0)
    log_error ("%s: can't be allocated in full: %s", path, strerror (-ret));
  return ret;
}

int
prealloc_check (int fd, const char *path, uint64_t size_bytes, uint64_t promised_bytes,
                uint64_t *missing_bytes)
{
  uint64_t has_bytes, missing;
  struct statvfs fs;
  struct stat st;

  if (fstat (fd, &st) == -1 || fstatvfs (fd, &fs) == -1)
    return complain (path, size_bytes, -errno);
  has_bytes = (uint64_t) st.st_blocks * 512;
  missing = size_bytes > has_bytes ? size_bytes - has_bytes : 0;
  if (missing > 0 && fs.f_frsize && (missing + promised_bytes) / fs.f_frsize > fs.f_bavail)
    return complain (path, size_bytes, -ENOSPC);
  *missing_bytes = missing;
  return 0;
}

int
prealloc_file (int fd, const char *path, uint64_t size_bytes, const struct prealloc_watch *watch)
{
  struct file file = { .fd = fd, .size_bytes = size_bytes, .watch = watch };
  struct stat st;
  int ret = 0;

  if (fstat (fd, &st) == -1)
    ret = -errno;
  else if ((uint64_t) st.st_size < size_bytes && ftruncate (fd, (off_t) size_bytes) == -1)
    ret = -errno;
  if (ret == 0)
    ret = fallocate_all (&file);
  if (ret == -EOPNOTSUPP || ret == -ENOSYS)
    ret = write_holes (&file);
  return ret == -ECANCELED ? ret : complain (path, size_bytes, ret);
}
