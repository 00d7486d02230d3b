/* SPDX-License-Identifier: BSD-3-Clause
 *
 * libfaults.c - see faults.h: the side in the server.
 *
 * All reads become a preadv2 and all writes a pwritev2; those of io_uring: libring.c. A file is known by what /proc/self/fd says it is, asked at every
 * call: a microsecond, but nothing that could be out of date.
 */
#undef _FORTIFY_SOURCE /* it would define some of the functions below as inline ones */
#include <config.h>

#include "faults.h"
#include "libfaults.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__ (&name)) dlsym (RTLD_NEXT, #name))

struct faults *faults;
static __typeof__ (&preadv2) next_preadv2;
static __typeof__ (&pwritev2) next_pwritev2;
static __typeof__ (&fallocate) next_fallocate;
static __typeof__ (&fsync) next_fsync;
static __typeof__ (&fdatasync) next_fdatasync;

static void
die (const char *what)
{
  fprintf (stderr, "libfaults: %s: %s\n", what, strerror (errno));
  abort ();
}

/* A test that believes it steers, and does not, is worse than none. */
__attribute__ ((constructor)) static void
init (void)
{
  const char *path = getenv ("DRUM_FAULTS");
  struct stat st;
  int fd;
  void *mem;

  next_preadv2 = NEXT (preadv2);
  next_pwritev2 = NEXT (pwritev2);
  next_fallocate = NEXT (fallocate);
  next_fsync = NEXT (fsync);
  next_fdatasync = NEXT (fdatasync);
  if (!path)
    die ("$DRUM_FAULTS is not set");
  fd = open (path, O_RDWR | O_CLOEXEC);
  if (fd == -1 || fstat (fd, &st) == -1)
    die (path);
  if (st.st_size != sizeof *faults)
    die ("built for another control file");
  mem = mmap (NULL, sizeof *faults, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (mem == MAP_FAILED)
    die (path);
  close (fd);
  faults = mem;
}

static uint64_t
now_ns (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return (uint64_t) ts.tv_sec * 1000000000 + (uint64_t) ts.tv_nsec;
}

static void
sleep_until (uint64_t ns)
{
  struct timespec until = { .tv_sec = (time_t) (ns / 1000000000),
                            .tv_nsec = (long) (ns % 1000000000) };

  while (clock_nanosleep (CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
    ;
}

/* How often those that are held look whether they still are: seldom, since there may be many, and they are to cost nothing. */
enum { LOOK_NS = 10 * 1000 * 1000 };

/* Sleep until then, or until the rule is removed. */
static void
hold_until (const struct faults_rule *rule, uint64_t end_ns)
{
  for (uint64_t ns = now_ns (); ns < end_ns && atomic_load (&rule->on); ns = now_ns ())
    sleep_until (ns + LOOK_NS < end_ns ? ns + LOOK_NS : end_ns);
}

/* Count the call, and delay it if so planned; true if the rule changes what it does. */
static bool
acts (struct faults_rule *rule)
{
  uint64_t n = atomic_fetch_add (&rule->ncalls, 1);

  if (n < rule->plan.skip || (rule->plan.count && n - rule->plan.skip >= rule->plan.count))
    return false;
  atomic_fetch_add (&rule->nacted, 1);
  if (rule->plan.action == FAULTS_DELAY)
    hold_until (rule, now_ns () + rule->plan.us * UINT64_C (1000));
  else if (rule->plan.action == FAULTS_HOLD)
    hold_until (rule, UINT64_MAX);
  else
    return true;
  return false;
}

static bool
matches (const atomic_bool *on, const char *part, const char *path)
{
  return atomic_load (on) && strstr (path, part);
}

static void
path_of (int fd, char path[PATH_MAX])
{
  char link[32];
  ssize_t n;

  snprintf (link, sizeof link, "/proc/self/fd/%d", fd);
  n = readlink (link, path, PATH_MAX - 1);
  path[n > 0 ? n : 0] = 0;
}

/* Wait as long as the rules say; the plan that changes what the call does, or NULL. */
static const struct faults_plan *
consult (const char *path, enum faults_call call)
{
  const struct faults_plan *plan = NULL;

  for (unsigned i = 0; faults && i < FAULTS_RULES; i++) {
    struct faults_rule *rule = &faults->rule[i];

    if (matches (&rule->on, rule->path, path) && rule->plan.calls & call && acts (rule) && !plan)
      plan = &rule->plan;
  }
  return plan;
}

/* Take the disk's time for a call, behind those that came before; returns when it will be over. */
static uint64_t
reserve (struct faults_disk *disk, uint64_t at, uint64_t bytes)
{
  static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  uint64_t us = (bytes + 4095) / 4096 * disk->page_us, now, end_ns;

  pthread_mutex_lock (&mutex);
  now = now_ns ();
  if (at != disk->head)
    us += disk->seek_us;
  disk->head = at + bytes;
  disk->free_ns = (disk->free_ns > now ? disk->free_ns : now) + us * 1000;
  end_ns = disk->free_ns;
  pthread_mutex_unlock (&mutex);
  atomic_fetch_add (&disk->ncalls, 1);
  atomic_fetch_add (&disk->busy_ns, us * 1000);
  return end_ns;
}

/* Be as slow as the file's disk. */
static void
serve (const char *path, uint64_t at, uint64_t bytes)
{
  for (unsigned i = 0; faults && i < FAULTS_DISKS; i++)
    if (matches (&faults->disk[i].on, faults->disk[i].path, path))
      sleep_until (reserve (&faults->disk[i], at, bytes));
}

static uint64_t
length (const struct iovec *iov, int niov)
{
  uint64_t bytes = 0;

  for (int i = 0; i < niov; i++)
    bytes += iov[i].iov_len;
  return bytes;
}

/* The first bytes of iov, in cut; returns how many pieces that is. */
static int
cut_iov (const struct iovec *iov, int niov, uint64_t bytes, struct iovec cut[IOV_MAX])
{
  int n = 0;

  for (; n < niov && n < IOV_MAX && bytes > 0; n++) {
    cut[n] = iov[n];
    if (cut[n].iov_len > bytes)
      cut[n].iov_len = bytes;
    bytes -= cut[n].iov_len;
  }
  return n;
}

/* Invert a byte of what has been read. */
static void
flip_read (const struct iovec *iov, uint64_t byte)
{
  for (; byte >= iov->iov_len; iov++)
    byte -= iov->iov_len;
  ((unsigned char *) iov->iov_base)[byte] ^= 0xff;
}

/* The same of what has been written, which is not ours to change in memory. */
static void
flip_written (int fd, off_t at)
{
  unsigned char c;
  struct iovec iov = { .iov_base = &c, .iov_len = 1 };

  if (next_preadv2 (fd, &iov, 1, at, 0) != 1)
    die ("a byte to be inverted can't be read");
  c ^= 0xff;
  if (next_pwritev2 (fd, &iov, 1, at, 0) != 1)
    die ("an inverted byte can't be written");
}

ssize_t
faults_transfer (int fd, const struct iovec *iov, int niov, off_t at, int flags, bool write)
{
  __typeof__ (next_preadv2) next = write ? next_pwritev2 : next_preadv2;
  const struct faults_plan *plan;
  struct iovec cut[IOV_MAX];
  char path[PATH_MAX];
  ssize_t n;

  path_of (fd, path);
  plan = consult (path, write ? FAULTS_WRITE : FAULTS_READ);
  if (plan && plan->action == FAULTS_FAIL) {
    errno = plan->error;
    return -1;
  }
  if (plan && plan->action == FAULTS_CUT) {
    niov = cut_iov (iov, niov, plan->bytes, cut);
    iov = cut;
  }
  serve (path, (uint64_t) at, length (iov, niov));
  n = next (fd, iov, niov, at, flags);
  if (plan && plan->action == FAULTS_CUT && plan->error && n >= 0) {
    errno = plan->error;
    return -1;
  }
  if (plan && plan->action == FAULTS_FLIP && n > 0 && plan->bytes < (uint64_t) n) {
    if (write)
      flip_written (fd, at + (off_t) plan->bytes);
    else
      flip_read (iov, plan->bytes);
  }
  return n;
}

/* What an allocate or a sync comes to: 1 if it is to be done, else its result. */
static int
decide (int fd, enum faults_call call)
{
  const struct faults_plan *plan;
  char path[PATH_MAX];

  path_of (fd, path);
  plan = consult (path, call);
  if (!plan || plan->action == FAULTS_FLIP)
    return 1;
  if (plan->error == 0)
    return 0;
  errno = plan->error;
  return -1;
}

/* ---- what the server calls ---- */

ssize_t
pread (int fd, void *buf, size_t len, off_t at)
{
  struct iovec iov = { .iov_base = buf, .iov_len = len };

  return faults_transfer (fd, &iov, 1, at, 0, false);
}

ssize_t
pwrite (int fd, const void *buf, size_t len, off_t at)
{
  struct iovec iov = { .iov_base = (void *) buf, .iov_len = len };

  return faults_transfer (fd, &iov, 1, at, 0, true);
}

ssize_t
preadv (int fd, const struct iovec *iov, int niov, off_t at)
{
  return faults_transfer (fd, iov, niov, at, 0, false);
}

ssize_t
pwritev (int fd, const struct iovec *iov, int niov, off_t at)
{
  return faults_transfer (fd, iov, niov, at, 0, true);
}

ssize_t
preadv2 (int fd, const struct iovec *iov, int niov, off_t at, int flags)
{
  return faults_transfer (fd, iov, niov, at, flags, false);
}

ssize_t
pwritev2 (int fd, const struct iovec *iov, int niov, off_t at, int flags)
{
  return faults_transfer (fd, iov, niov, at, flags, true);
}

int
fallocate (int fd, int mode, off_t at, off_t len)
{
  int r = decide (fd, FAULTS_ALLOCATE);

  return r <= 0 ? r : next_fallocate (fd, mode, at, len);
}

int
fsync (int fd)
{
  int r = decide (fd, FAULTS_SYNC);

  return r <= 0 ? r : next_fsync (fd);
}

int
fdatasync (int fd)
{
  int r = decide (fd, FAULTS_SYNC);

  return r <= 0 ? r : next_fdatasync (fd);
}

/* Elsewhere the headers have made the names above these. */
#ifdef __LP64__
#define SAME(name, type, parameters) \
  type name##64 parameters __attribute__ ((alias (#name), copy (name)))
SAME (pread, ssize_t, (int, void *, size_t, off64_t));
SAME (pwrite, ssize_t, (int, const void *, size_t, off64_t));
SAME (preadv, ssize_t, (int, const struct iovec *, int, off64_t));
SAME (pwritev, ssize_t, (int, const struct iovec *, int, off64_t));
SAME (fallocate, int, (int, int, off64_t, off64_t));
/* glibc's prefix for versions of a name comes before the 2: preadv64v2. */
ssize_t preadv64v2 (int, const struct iovec *, int, off64_t, int)
  __attribute__ ((alias ("preadv2"), copy (preadv2)));
ssize_t pwritev64v2 (int, const struct iovec *, int, off64_t, int)
  __attribute__ ((alias ("pwritev2"), copy (pwritev2)));
#endif
