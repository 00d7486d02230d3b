/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "faulty.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "lib/units.h"
#include "tests/scratch.h"

enum { MAX_RULES = 4 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct rule {
  struct faulty is;
  ino_t ino;
  unsigned ncalls, nacted;
} rule[MAX_RULES];
static unsigned nrules;

ssize_t __real_preadv (int fd, const struct iovec *iov, int niov, off_t offset);
ssize_t __wrap_preadv (int fd, const struct iovec *iov, int niov, off_t offset);
ssize_t __real_pwritev (int fd, const struct iovec *iov, int niov, off_t offset);
ssize_t __wrap_pwritev (int fd, const struct iovec *iov, int niov, off_t offset);

static bool cleared;

void
faulty_add (const struct faulty *is)
{
  struct stat st = { .st_ino = 0 };

  if (is->name)
    cr_assert_eq (stat (scratch_path (is->name), &st), 0, "%s", is->name);
  pthread_mutex_lock (&mutex);
  if (cleared)
    nrules = 0;
  cleared = false;
  cr_assert_lt (nrules, MAX_RULES);
  rule[nrules++] = (struct rule){ .is = *is, .ino = st.st_ino };
  pthread_mutex_unlock (&mutex);
}

void
faulty_clear (void)
{
  pthread_mutex_lock (&mutex);
  cleared = true;
  pthread_mutex_unlock (&mutex);
}

unsigned
faulty_ncalls (void)
{
  unsigned n = 0;

  pthread_mutex_lock (&mutex);
  for (unsigned i = 0; i < nrules; i++)
    n += rule[i].ncalls;
  pthread_mutex_unlock (&mutex);
  return n;
}

unsigned
faulty_nacted (void)
{
  unsigned n = 0;

  pthread_mutex_lock (&mutex);
  for (unsigned i = 0; i < nrules; i++)
    n += rule[i].nacted;
  pthread_mutex_unlock (&mutex);
  return n;
}

/* What is to be done to this call? False: nothing. */
static bool
acts (enum faulty_calls call, int fd, uint32_t first, uint32_t end, struct faulty *is)
{
  struct stat st;
  bool found = false;

  fstat (fd, &st);
  pthread_mutex_lock (&mutex);
  for (unsigned i = 0; i < nrules && !cleared && !found; i++) {
    struct rule *r = &rule[i];
    unsigned n;

    if (!(r->is.calls & call) || (r->ino && r->ino != st.st_ino) ||
        (r->is.end && (end <= r->is.first || first >= r->is.end)))
      continue;
    n = r->ncalls++;
    if (n < r->is.skip || (r->is.count && n >= r->is.skip + r->is.count))
      continue;
    r->nacted++;
    *is = r->is;
    found = true;
  }
  pthread_mutex_unlock (&mutex);
  return found;
}

static size_t
count_bytes (const struct iovec *iov, int niov)
{
  size_t n = 0;

  for (int i = 0; i < niov; i++)
    n += iov[i].iov_len;
  return n;
}

/* Where in memory is the byte that is to be another? In the first slot that the rule is about. */
static unsigned char *
victim (const struct faulty *is, const struct iovec *iov, off_t offset, off_t *at)
{
  uint32_t first = (uint32_t) (offset >> PAGE_SHIFT);
  size_t skip = is->end && is->first > first ? (size_t) (is->first - first) * PAGE_BYTES : 0;

  *at = offset + (off_t) skip + 100;
  for (skip += 100; skip >= iov->iov_len; iov++)
    skip -= iov->iov_len;
  return (unsigned char *) iov->iov_base + skip;
}

ssize_t
__wrap_preadv (int fd, const struct iovec *iov, int niov, off_t offset)
{
  size_t bytes = count_bytes (iov, niov);
  uint32_t first = (uint32_t) (offset >> PAGE_SHIFT);
  struct faulty is;
  ssize_t ret;
  off_t at;

  if (!acts (FAULTY_READ, fd, first, first + (uint32_t) (bytes >> PAGE_SHIFT), &is))
    return __real_preadv (fd, iov, niov, offset);
  if (is.action == FAULTY_CORRUPT) {
    ret = __real_preadv (fd, iov, niov, offset);
    *victim (&is, iov, offset, &at) ^= 0x10;
    return ret;
  }
  if (is.action == FAULTY_TEAR)
    memset (iov->iov_base, 0x55, iov->iov_len / 2);
  errno = is.error;
  return -1;
}

ssize_t
__wrap_pwritev (int fd, const struct iovec *iov, int niov, off_t offset)
{
  size_t bytes = count_bytes (iov, niov);
  uint32_t first = (uint32_t) (offset >> PAGE_SHIFT);
  struct faulty is;
  off_t at;

  if (!acts (FAULTY_WRITE, fd, first, first + (uint32_t) (bytes >> PAGE_SHIFT), &is))
    return __real_pwritev (fd, iov, niov, offset);
  if (is.action == FAULTY_CORRUPT) {
    ssize_t ret = __real_pwritev (fd, iov, niov, offset);
    unsigned char byte = *victim (&is, iov, offset, &at) ^ 0x10;

    cr_assert_eq (pwrite (fd, &byte, 1, at), 1);
    return ret;
  }
  if (is.action == FAULTY_TEAR) {
    ssize_t done = pwrite (fd, iov->iov_base, iov->iov_len / 2 + 10, offset);

    (void) done;
  }
  errno = is.error;
  return -1;
}
