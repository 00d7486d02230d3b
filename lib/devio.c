/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "devio.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

/* Copy the first bytes of iov to buffer, or from there. */
static void
copy (char *buffer, const struct iovec *iov, size_t bytes, bool to_buffer)
{
  for (size_t n; bytes > 0; iov++, buffer += n, bytes -= n) {
    n = iov->iov_len < bytes ? iov->iov_len : bytes;
    if (to_buffer)
      memcpy (buffer, iov->iov_base, n);
    else
      memcpy (iov->iov_base, buffer, n);
  }
}

void
devio_begin (struct devio_op *op, const struct devio *io, off_t at, struct iovec *iov,
             unsigned niov, bool write, void *buffer)
{
  op->io = io;
  op->iov = iov;
  op->niov = niov;
  op->write = write;
  op->at = at;
  op->buffer = buffer;
  op->most = op->max = buffer ? DEVIO_BUFFER_BYTES : SIZE_MAX;
  op->nretries = 0;
}

const struct iovec *
devio_next (struct devio_op *op, unsigned *niov)
{
  size_t sum = 0;
  unsigned n = 0;

  while (n < op->niov && sum < op->max)
    sum += op->iov[n++].iov_len;
  op->excess = sum > op->max ? sum - op->max : 0;
  op->asked = sum - op->excess;
  op->ncall = n;
  op->iov[n - 1].iov_len -= op->excess;
  *niov = n;
  if (!op->buffer)
    return op->iov;
  if (op->write)
    copy (op->buffer, op->iov, op->asked, true);
  op->whole = (struct iovec){ .iov_base = op->buffer, .iov_len = op->asked };
  *niov = 1;
  return &op->whole;
}

ssize_t
devio_call (const struct devio_op *op)
{
  const struct iovec *iov = op->buffer ? &op->whole : op->iov;
  int niov = op->buffer ? 1 : (int) op->ncall;
  ssize_t done =
    op->write ? pwritev (op->io->fd, iov, niov, op->at) : preadv (op->io->fd, iov, niov, op->at);

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
devio_done (struct devio_op *op, ssize_t done)
{
  if (done == (ssize_t) op->asked && op->ncall == op->niov && !op->excess && !op->buffer)
    return 0; /* all that was left */
  op->iov[op->ncall - 1].iov_len += op->excess;
  if (done == 0)
    return -EIO; /* the file was cut, or the device is gone */
  if (op->buffer && !op->write && done > 0)
    copy (op->buffer, op->iov, (size_t) done, false);
  if (done > 0 && op->io->align) {
    done -= done % (ssize_t) op->io->align; /* the next call must begin there */
    done = done ? done : -EAGAIN;
  }
  if (done > 0) {
    op->at += done;
    advance (&op->iov, &op->niov, (size_t) done);
    if ((size_t) done == op->asked)
      op->max = op->max <= op->most / 2 ? 2 * op->max : op->most;
    op->nretries = 0;
    return op->niov ? -EINPROGRESS : 0;
  }
  if (!is_transient ((int) -done) || ++op->nretries > DEVIO_RETRIES)
    return done == -EDQUOT ? -ENOSPC : (int) done;
  op->max = halve (op->asked);
  return -EINPROGRESS;
}

int
devio_go_on (struct devio_op *op)
{
  unsigned niov;
  int ret;

  while ((ret = devio_done (op, devio_call (op))) == -EINPROGRESS)
    devio_next (op, &niov);
  return ret;
}

int
devio_transfer (const struct devio *io, off_t at, struct iovec *iov, unsigned niov, bool write,
                void *buffer)
{
  struct devio_op op;

  if (!niov)
    return 0;
  devio_begin (&op, io, at, iov, niov, write, buffer);
  devio_next (&op, &niov);
  return devio_go_on (&op);
}

bool
devio_needs_buffer (const struct devio *io, const struct iovec *iov, unsigned niov)
{
  for (unsigned i = 0; io->align && i < niov; i++)
    if ((uintptr_t) iov[i].iov_base % io->align || iov[i].iov_len % io->align)
      return true;
  return false;
}

/* Can the first page be read to memory with no more than this alignment? */
static int
try_align (int fd, size_t align)
{
  _Alignas(PAGE_BYTES) char pages[2 * PAGE_BYTES];
  struct devio io = { .fd = fd, .align = align };
  struct iovec iov = { .iov_base = pages + align % PAGE_BYTES, .iov_len = PAGE_BYTES };

  return devio_transfer (&io, 0, &iov, 1, false, NULL);
}

/* What the kernel says; 0 if it says nothing, which most file systems and kernels do. */
static size_t
stated_align (int fd)
{
#ifdef STATX_DIOALIGN
  struct statx stx;

  if (statx (fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 && stx.stx_mask & STATX_DIOALIGN)
    return stx.stx_dio_mem_align > stx.stx_dio_offset_align ? stx.stx_dio_mem_align
                                                            : stx.stx_dio_offset_align;
#else
  (void) fd;
#endif
  return 0;
}

/* The least alignment that does. */
static int
find_align (int fd, size_t *found)
{
  const size_t aligns[] = { stated_align (fd), 512, PAGE_BYTES };

  for (unsigned i = 0; i < 3; i++) {
    int ret = aligns[i] && aligns[i] <= PAGE_BYTES ? try_align (fd, aligns[i]) : -EINVAL;

    if (ret == 0)
      *found = aligns[i];
    if (ret != -EINVAL)
      return ret;
  }
  return -EINVAL;
}

int
devio_set_direct (struct devio *io)
{
  int flags = fcntl (io->fd, F_GETFL), ret;

  if (flags == -1 || fcntl (io->fd, F_SETFL, flags | O_DIRECT) == -1)
    return -errno;
  ret = find_align (io->fd, &io->align);
  if (ret < 0)
    fcntl (io->fd, F_SETFL, flags);
  return ret;
}

int
devio_sync_name (const char *path)
{
  char copy[PATH_MAX];
  int fd, ret = 0;

  if (strlen (path) >= sizeof copy)
    return -ENAMETOOLONG;
  fd = open (dirname (strcpy (copy, path)), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd == -1)
    return -errno;
  if (fsync (fd) == -1)
    ret = -errno;
  close (fd);
  return ret;
}
