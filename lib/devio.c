/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "devio.h"

#include <errno.h>
#include <stdint.h>

#include "units.h"

/* Pass over what is done already. */
static void
advance (struct iovec **iov, unsigned *niov, size_t done)
{
  while (*niov && done >= (*iov)->iov_len) {
    done -= (*iov)->iov_len;
    (*iov)++;
    (*niov)--;
  }
  if (done) {
    (*iov)->iov_base = (char *) (*iov)->iov_base + done;
    (*iov)->iov_len -= done;
  }
}

static bool
is_transient (int err)
{
  return err == EINTR || err == EAGAIN || err == ENOMEM;
}

/* One system call for the first max bytes of iov: how many it did, and how many it was asked for; or -errno. */
static ssize_t
call (int fd, off_t at, struct iovec *iov, unsigned niov, bool write, size_t max, size_t *asked)
{
  size_t sum = 0, excess;
  unsigned n = 0;
  ssize_t done;

  while (n < niov && sum < max)
    sum += iov[n++].iov_len;
  excess = sum > max ? sum - max : 0;
  *asked = sum - excess;
  iov[n - 1].iov_len -= excess;
  done = write ? pwritev (fd, iov, (int) n, at) : preadv (fd, iov, (int) n, at);
  iov[n - 1].iov_len += excess;
  return done < 0 ? -errno : done;
}

/* Half of it, in whole pages. */
static size_t
halve (size_t bytes)
{
  size_t half = bytes / 2 / PAGE_BYTES * PAGE_BYTES;

  return half ? half : PAGE_BYTES;
}

int
devio_transfer (int fd, off_t at, struct iovec *iov, unsigned niov, bool write)
{
  size_t max = SIZE_MAX, asked;
  unsigned nretries = 0;

  while (niov) {
    ssize_t done = call (fd, at, iov, niov, write, max, &asked);

    if (done > 0) {
      at += done;
      advance (&iov, &niov, (size_t) done);
      if ((size_t) done == asked && max <= SIZE_MAX / 2)
        max *= 2;
      nretries = 0;
    } else if (done == 0)
      return -EIO; /* the file was cut, or the device is gone */
    else if (!is_transient ((int) -done) || ++nretries > DEVIO_RETRIES)
      return done == -EDQUOT ? -ENOSPC : (int) done;
    else
      max = halve (asked);
  }
  return 0;
}
