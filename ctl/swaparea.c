/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "swaparea.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "lib/claim.h"
#include "lib/log.h"
#include "lib/swaphdr.h"

struct device {
  const char *path;
  int fd;
  uint64_t npages;
  size_t page_bytes;
  unsigned char page[SWAPHDR_MAX_PAGE_BYTES]; /* the first */
};

static int
complain (const struct device *d, const char *what)
{
  int error = errno;

  log_error ("%s: %s: %s", d->path, what, strerror (error));
  return -error;
}

static int
read_page (struct device *d)
{
  for (size_t n = 0; n < d->page_bytes;) {
    ssize_t got = pread (d->fd, d->page + n, d->page_bytes - n, (off_t) n);

    if (got == -1 && errno == EINTR)
      continue;
    if (got == 0)
      errno = EIO;
    if (got <= 0)
      return complain (d, "can't be read");
    n += (size_t) got;
  }
  return 0;
}

static bool
has_header (const struct device *d, uint32_t *last_page)
{
  struct swaphdr h;

  if (!swaphdr_parse (d->page, d->page_bytes, &h) || h.page_bytes != d->page_bytes || h.suspended)
    return false;
  *last_page = h.last_page;
  return true;
}

static int
write_header (struct device *d)
{
  struct swaphdr h = { .page_bytes = (uint32_t) d->page_bytes };

  h.last_page = swaphdr_last_page (d->npages);
  uuid_generate (h.uuid);
  swaphdr_build (d->page, &h);
  if (pwrite (d->fd, d->page, d->page_bytes, 0) != (ssize_t) d->page_bytes || fsync (d->fd) == -1)
    return complain (d, "the swap header can't be written");
  log_notice ("%s: made a swap header for %" PRIu64 " pages", d->path, d->npages - 1);
  return 0;
}

/* May what is there be overwritten? */
static int
check_foreign (const struct device *d, bool force)
{
  char name[64];
  int ret = force ? 0 : claim_signature (d->fd, d->npages * d->page_bytes, name, sizeof name);

  if (ret == 1) {
    log_error ("%s: holds a signature of %s; give --force if what is on it may be overwritten",
               d->path, name);
    return -EEXIST;
  }
  if (ret < 0)
    log_error ("%s: can't be read to see whether it holds data: %s", d->path, strerror (-ret));
  return ret;
}

static int
prepare (struct device *d, bool make, bool force)
{
  uint32_t last_page;
  int ret = read_page (d);
  bool found = ret == 0 && has_header (d, &last_page);

  if (ret < 0)
    return ret;
  if (found && (last_page < d->npages && (last_page == swaphdr_last_page (d->npages) || !make)))
    return 0;
  if (!make) {
    log_error (found ? "%s: has a swap header for a larger device; --mkswap makes a new one"
                     : "%s: has no swap header; --mkswap makes one",
               d->path);
    return -ENXIO;
  }
  ret = found ? 0 : check_foreign (d, force);
  return ret < 0 ? ret : write_header (d);
}

int
swaparea_prepare (const char *path, bool make, bool force)
{
  static struct device d;
  off_t bytes;
  int ret = 0;

  d = (struct device){ .path = path, .page_bytes = (size_t) sysconf (_SC_PAGESIZE) };
  d.fd = open (path, (make ? O_RDWR : O_RDONLY) | O_EXCL | O_CLOEXEC);
  if (d.fd == -1)
    return complain (&d, "can't be opened");
  bytes = lseek (d.fd, 0, SEEK_END);
  if (bytes == -1)
    ret = complain (&d, "has no size");
  d.npages = bytes > 0 ? (uint64_t) bytes / d.page_bytes : 0;
  if (ret == 0 && (d.npages < SWAPHDR_MIN_PAGES || d.page_bytes > sizeof d.page)) {
    log_error ("%s: is too small to swap on: %" PRIu64 " pages, and the kernel wants %d", path,
               d.npages, SWAPHDR_MIN_PAGES);
    ret = -ENOSPC;
  }
  if (ret == 0)
    ret = prepare (&d, make, force);
  close (d.fd);
  return ret;
}
