/* SPDX-License-Identifier: BSD-3-Clause
 *
 * service_faults.c - a start in which the n-th call of anything that can fail, fails; for every n.
 *
 * The linker sends the calls of lib/ through here.
 */
#include <config.h>

#include <blkid/blkid.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include "lib/bootid.h"
#include "lib/export.h"
#include "lib/service.h"
#include "tests/scratch.h"

#include "devices.h"
#include "files.h"
#include "logged.h"
#include "nth.h"
#include "tests/unit/served.h"

WRAP_ALLOC (malloc, (size_t n), (n))
WRAP_ALLOC (calloc, (size_t n, size_t size), (n, size))
WRAP_ALLOC (aligned_alloc, (size_t align, size_t n), (align, n))
WRAP_ALLOC (strdup, (const char *s), (s))
WRAP (void *, mmap, (void *at, size_t n, int prot, int flags, int fd, off_t offset),
      (at, n, prot, flags, fd, offset), MAP_FAILED, ENOMEM)
WRAP (int, fstat, (int fd, struct stat *st), (fd, st), -1, EIO)
WRAP (int, flock, (int fd, int operation), (fd, operation), -1, ENOLCK)
WRAP (int, ftruncate, (int fd, off_t n), (fd, n), -1, EIO)
WRAP (int, fallocate, (int fd, int mode, off_t offset, off_t n), (fd, mode, offset, n), -1, ENOSPC)
WRAP (int, fdatasync, (int fd), (fd), -1, EIO)
WRAP (ssize_t, preadv, (int fd, const struct iovec *iov, int niov, off_t offset),
      (fd, iov, niov, offset), -1, EIO)
WRAP (ssize_t, pwritev, (int fd, const struct iovec *iov, int niov, off_t offset),
      (fd, iov, niov, offset), -1, EIO)
WRAP (int, fsync, (int fd), (fd), -1, EIO)
WRAP (int, fstatfs, (int fd, struct statfs *fs), (fd, fs), -1, EIO)
WRAP (int, mkdir, (const char *path, mode_t mode), (path, mode), -1, EROFS)
WRAP (int, renameat2, (int fromfd, const char *from, int tofd, const char *to, unsigned flags),
      (fromfd, from, tofd, to, flags), -1, EIO)
WRAP (blkid_probe, blkid_new_probe, (void), (), NULL, ENOMEM)

WRAP_FREE

int __real_open (const char *path, int flags, ...);
int __wrap_open (const char *path, int flags, ...);

int
__wrap_open (const char *path, int flags, ...)
{
  va_list args;
  mode_t mode;

  va_start (args, flags);
  mode = flags & O_CREAT ? va_arg (args, mode_t) : 0;
  va_end (args);
  return fails ("open", EMFILE) ? -1 : __real_open (path, flags, mode);
}

WRAP_OPENAT

void *__real_realloc (void *mem, size_t n);
void *__wrap_realloc (void *mem, size_t n);

void *
__wrap_realloc (void *mem, size_t n)
{
  void *more = NULL;

  if (!fails ("realloc", ENOMEM))
    more = __real_realloc (mem, n);
  nallocated += more && !mem;
  return more;
}

WRAP_ASPRINTF

/* What can't be read is another boot, and no failure. */
void __wrap_bootid_read (uuid_t id);

void
__wrap_bootid_read (uuid_t id)
{
  memset (id, 1, sizeof (uuid_t));
}

int __real_fcntl (int fd, int what, ...);
int __wrap_fcntl (int fd, int what, ...);

int
__wrap_fcntl (int fd, int what, ...)
{
  va_list args;
  int arg;

  va_start (args, what);
  arg = va_arg (args, int);
  va_end (args);
  return fails ("fcntl", EIO) ? -1 : __real_fcntl (fd, what, arg);
}

enum { MIB = 1 << 20 };

static unsigned char *before[2];
static char *state_files; /* before */
static struct swapdev_spec spec[3];
static struct service_config config = {
  .devices = spec, .ndevices = 3, .stripe_bytes = STRIPE_DEFAULT_BYTES, .checksum = true
};

static void
setup (void)
{
  scratch_setup ();
  logged_start ();
}

TestSuite (service_faults, .init = setup, .fini = scratch_teardown, .timeout = 120);

/* An empty sparse file, one that holds data, and one that does not exist yet. */
static void
make_devices (void)
{
  size_t len;

  spec[0].path = file_make ("sparse", MIB);
  spec[1].path = file_make ("data", MIB);
  spec[1].force = true;
  spec[2].path = scratch_path ("new");
  spec[2].create_bytes = MIB;
  for (unsigned i = 0; i < 100; i++)
    file_write (spec[1].path, i * 1000, "data", 4);
  for (unsigned i = 0; i < 2; i++)
    before[i] = file_contents (spec[i].path, &len);
}

/* What is in the state folder, with checksums. */
static char *
list_state (void)
{
  char *out = scratch_path (".list");
  char *text;

  cr_assert_eq (shell ("cd '%s' && sha256sum * >'%s'", config.state_dir, out), 0);
  text = (char *) file_contents (out, NULL);
  unlink (out);
  return text;
}

/* Everything is as it was before the start. */
static void
assert_untouched (const char *after)
{
  cr_assert_eq (scratch_count (), 2 + (state_files != NULL), "%s: something new is left behind",
                after);
  if (state_files)
    cr_assert_str_eq (list_state (), state_files, "%s: the state has changed", after);
  for (unsigned i = 0; i < 2; i++) {
    size_t len;
    unsigned char *now = file_contents (spec[i].path, &len);

    cr_assert (len == MIB && memcmp (now, before[i], len) == 0, "%s: %s has changed", after,
               spec[i].path);
    free (now);
  }
}

/* Whatever fails, the start fails, leaves all files as they were, and loses neither memory nor descriptors. */
static void
fail_every_call (void)
{
  unsigned nopen, n;

  nopen = count_open_files ();
  for (n = 0;; n++) {
    struct service service = { .drum = NULL };
    int allocated_before = nallocated, ret;

    logged_start ();
    failed_call = NULL;
    fail_in = (int) n;
    ret = service_start (&config, &service);
    fail_in = DISARMED;
    if (ret == 0 && !failed_call) {
      service_undo (&service);
      cr_assert_eq (nallocated, allocated_before, "undo leaks");
      assert_untouched ("undo");
      break;
    }
    cr_assert_eq (nallocated, allocated_before, "call %u, %s: memory leaks", n, failed_call);
    cr_assert_lt (ret, 0, "call %u, %s, failed, and the start did not", n, failed_call);
    cr_assert (!service.drum && !service.exports, "call %u, %s: output changed", n, failed_call);
    cr_assert_leq (logged_count (""), 1, "call %u, %s: %s", n, failed_call, logged_last ());
    assert_untouched (failed_call);
    cr_assert_eq (count_open_files (), nopen, "call %u, %s: descriptors leak", n, failed_call);
  }
  cr_assert_gt (n, 30, "only %u calls: the linker does not send them here", n);
}

Test (service_faults, every_call_may_fail)
{
  make_devices ();
  fail_every_call ();
}

Test (service_faults, every_call_may_fail_with_direct)
{
  config.direct = true;
  make_devices ();
  fail_every_call ();
}

/* The state is new, too. */
Test (service_faults, every_call_may_fail_with_a_state)
{
  config.state_dir = scratch_path ("state");
  make_devices ();
  fail_every_call ();
}

/* It is there, with pages; and the start has one device more. */
Test (service_faults, every_call_may_fail_with_the_state_of_a_server_before)
{
  static char data[20 * PAGE_BYTES];
  struct service service;
  size_t len;

  config.state_dir = scratch_path ("state");
  make_devices ();
  config.ndevices = 2;
  cr_assert_eq (service_start (&config, &service), 0, "%s", logged_last ());
  memset (data, 7, sizeof data);
  cr_assert_eq (export_write (served (&service), data, sizeof data, 8 * PAGE_BYTES), 0);
  service_stop (&service);
  for (unsigned i = 0; i < 2; i++)
    before[i] = file_contents (spec[i].path, &len);
  state_files = list_state ();
  config.ndevices = 3;
  fail_every_call ();
}

/* A failure that no caller could guess is said, by its name. */
Test (service_faults, every_failure_is_said)
{
  config.direct = true;
  make_devices ();
  for (unsigned n = 0;; n++) {
    struct service service;
    int ret;

    logged_start ();
    failed_call = NULL;
    fail_in = (int) n;
    ret = service_start (&config, &service);
    fail_in = DISARMED;
    if (ret == 0) {
      service_undo (&service);
      break;
    }
    cr_assert_eq (logged_count (""), 1, "call %u, %s: nothing is said", n, failed_call);
    cr_assert (logged_last_level () == LEVEL_ERROR);
    cr_assert_eq (logged_count ("power of two"), 0, "call %u, %s: %s", n, failed_call,
                  logged_last ());
  }
}
