/* SPDX-License-Identifier: BSD-3-Clause
 *
 * calls.c - a program that makes the calls which libfaults.so changes, and prints what they come to: a line with the
 * result, errno and the nanoseconds it took for each. Reads are printed as their first byte, too.
 *
 *     calls FILE CALL OFFSET LENGTH [TIMES [STEP [THREADS]]]
 *
 * CALL is a system call, or ureadv or uwritev: io_uring's. TIMES calls by each thread, each STEP bytes behind the one before. What is written is 'w's.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <liburing.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static int fd;
static const char *call;
static off_t offset, step;
static size_t length;
static unsigned long times = 1;

static uint64_t
now_ns (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return (uint64_t) ts.tv_sec * 1000000000 + (uint64_t) ts.tv_nsec;
}

/* One call; iov is its buffer, in two pieces. */
static long
make_call (char *buf, struct iovec *iov, off_t at)
{
#define CALL(name, ...)          \
  if (strcmp (call, #name) == 0) \
  return name (fd, __VA_ARGS__)

  CALL (pread, buf, length, at);
  CALL (pread64, buf, length, at);
  CALL (preadv, iov, 2, at);
  CALL (preadv64, iov, 2, at);
  CALL (preadv2, iov, 2, at, 0);
  CALL (preadv64v2, iov, 2, at, 0);
  CALL (pwrite, buf, length, at);
  CALL (pwrite64, buf, length, at);
  CALL (pwritev, iov, 2, at);
  CALL (pwritev64, iov, 2, at);
  CALL (pwritev2, iov, 2, at, 0);
  CALL (pwritev64v2, iov, 2, at, 0);
  CALL (fallocate, 0, at, (off_t) length);
  CALL (fallocate64, 0, at, (off_t) length);
  if (strcmp (call, "fsync") == 0)
    return fsync (fd);
  if (strcmp (call, "fdatasync") == 0)
    return fdatasync (fd);
  fprintf (stderr, "calls: no such call: %s\n", call);
  exit (2);
}

/* The same through io_uring, with a ring for each call. */
static long
make_ring_call (const struct iovec *iov, off_t at)
{
  struct io_uring ring;
  struct io_uring_cqe *cqe;
  int ret;

  if (io_uring_queue_init (4, &ring, 0) != 0)
    exit (3);
  if (call[1] == 'r')
    io_uring_prep_readv (io_uring_get_sqe (&ring), fd, iov, 2, (uint64_t) at);
  else
    io_uring_prep_writev (io_uring_get_sqe (&ring), fd, iov, 2, (uint64_t) at);
  while (io_uring_peek_cqe (&ring, &cqe) != 0)
    io_uring_submit_and_wait (&ring, 1);
  ret = cqe->res;
  io_uring_queue_exit (&ring);
  errno = ret < 0 ? -ret : 0;
  return ret < 0 ? -1 : ret;
}

static void *
make_calls (void *arg)
{
  char *buf = malloc (length + 1);
  struct iovec iov[2] = { { .iov_base = buf, .iov_len = length / 3 },
                          { .iov_base = buf + length / 3, .iov_len = length - length / 3 } };

  for (unsigned long i = 0; i < times; i++) {
    uint64_t begin_ns = now_ns ();
    long r;

    memset (buf, 'w', length + 1);
    errno = 0;
    r = *call == 'u' ? make_ring_call (iov, offset + (off_t) i * step)
                     : make_call (buf, iov, offset + (off_t) i * step);
    printf ("%ld %d %" PRIu64 " %.*s\n", r, errno, now_ns () - begin_ns, r > 0 && call[1] == 'r',
            buf);
  }
  free (buf);
  return arg;
}

int
main (int argc, char **argv)
{
  unsigned long nthreads = argc > 7 ? strtoul (argv[7], NULL, 0) : 1;
  pthread_t thread[64];

  if (argc < 5 || nthreads > 64)
    return 2;
  fd = open (argv[1], O_RDWR | O_CLOEXEC);
  if (fd == -1) {
    perror (argv[1]);
    return 1;
  }
  call = argv[2];
  offset = (off_t) strtoll (argv[3], NULL, 0);
  length = strtoul (argv[4], NULL, 0);
  if (argc > 5)
    times = strtoul (argv[5], NULL, 0);
  if (argc > 6)
    step = (off_t) strtoll (argv[6], NULL, 0);
  for (unsigned long i = 0; i < nthreads; i++)
    pthread_create (&thread[i], NULL, make_calls, NULL);
  for (unsigned long i = 0; i < nthreads; i++)
    pthread_join (thread[i], NULL);
  return 0;
}
