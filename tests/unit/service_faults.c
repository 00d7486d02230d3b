/* SPDX-License-Identifier: BSD-3-Clause
 *
 * service_faults.c - a start in which the n-th call of anything that can fail, fails; for every n.
 *
 * The linker sends the calls of lib/ through here.
 */
#include <config.h>

#include <blkid/blkid.h>
#include <criterion/criterion.h>
#include <dirent.h>
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
#include "lib/session.h"
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
WRAP (int, fallocate, (int fd, int mode, off_t offset, off_t n), (fd, mode, offset, n), -1, ENOSPC)

/* Where these fail a map can't be relied upon any more: export_shape_faults has that. */
static bool never_fdatasync, never_ftruncate;

int __real_fdatasync (int fd);
int __wrap_fdatasync (int fd);

int
__wrap_fdatasync (int fd)
{
  return !never_fdatasync && fails ("fdatasync", EIO) ? -1 : __real_fdatasync (fd);
}

int __real_ftruncate (int fd, off_t n);
int __wrap_ftruncate (int fd, off_t n);

int
__wrap_ftruncate (int fd, off_t n)
{
  return !never_ftruncate && fails ("ftruncate", EIO) ? -1 : __real_ftruncate (fd, n);
}

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
  config.io = rings_are_there () ? RINGS_ALWAYS : RINGS_NEVER; /* auto does without */
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

/* ---- exports, while it runs ---- */

enum { NPAGES = 100 };

static struct service live;

static struct export *
get (const char *name)
{
  struct export *e = exports_get (live.exports, name);

  if (e)
    export_release (e); /* the table has it */
  return e;
}

static int
open_and_close (const char *name)
{
  struct session *session;
  int ret = service_open (&live, name, "somebody", &session);

  if (ret == 0)
    service_close (&live, session);
  return ret;
}

static int
add_x (void)
{
  return service_add_export (
    &live, &(struct export_spec){ .name = "x",
                                  .size_bytes = MIB,
                                  .terms = { .reserve_bytes = 16 * PAGE_BYTES, .weight = 100 } });
}

static int
remove_x (void)
{
  return service_remove_export (&live, "x");
}

static int
make_t (void)
{
  int ret = open_and_close ("t-1");

  return get ("t-1") ? 0 : ret; /* it stays though nobody has it */
}

static int
remove_t (void)
{
  return service_remove_export (&live, "t-1");
}

static int
grow_one (void)
{
  return service_resize_export (&live, "one", 3 * MIB, &(uint64_t){ 0 });
}

static int
shrink_one (void)
{
  return service_resize_export (&live, "one", MIB, &(uint64_t){ 0 });
}

static int
pass_on (void)
{
  return service_move_export (&live, "one", "two");
}

static int
pass_back (void)
{
  return service_move_export (&live, "two", "one");
}

static int
set_one (void)
{
  return service_set_export (
    &live, "one",
    &(struct export_terms){ .reserve_bytes = 8 * PAGE_BYTES, .limit_bytes = MIB, .weight = 7 });
}

static int
set_back (void)
{
  return service_set_export (&live, "one", &(struct export_terms){ .weight = 100 });
}

static int
fill_one (void)
{
  uint64_t reserve;

  return service_fill_export (&live, "one", 16 * PAGE_BYTES, 0, &reserve);
}

static int
open_id (void)
{
  static unsigned epoch;
  char name[32];

  snprintf (name, sizeof name, "one@host.%u", ++epoch);
  return open_and_close (name);
}

static int
nothing (void)
{
  return 0;
}

/* What is done, and how that is taken back. */
static const struct {
  const char *name;
  int (*act) (void);
  int (*undo) (void);
} acts[] = {
  { "add", add_x, remove_x },       { "remove", remove_x, add_x },
  { "add again", add_x, remove_x }, { "template", make_t, remove_t },
  { "grow", grow_one, shrink_one }, { "shrink", shrink_one, grow_one },
  { "pass", pass_on, pass_back },   { "pass back", pass_back, pass_on },
  { "set", set_one, set_back },     { "fill", fill_one, set_back },
  { "open", open_id, nothing },
};

/* How many maps has the state? */
static unsigned
count_maps (void)
{
  DIR *dir = opendir (config.state_dir);
  const struct dirent *entry;
  unsigned n = 0;

  cr_assert_not_null (dir);
  while ((entry = readdir (dir)))
    n += strncmp (entry->d_name, "map-", 4) == 0;
  closedir (dir);
  return n;
}

/* All that there is to know of all exports, and of their drum and files. */
static char *
describe (void)
{
  struct drum_usage usage;
  struct export *e = NULL;
  char *text;

  drum_usage (live.drum, &usage);
  text = str ("%ju slots, %ju free, %ju reserved, %ju promised; %u maps\n",
              (uintmax_t) usage.nslots, (uintmax_t) usage.nfree, (uintmax_t) usage.nreserved,
              (uintmax_t) usage.npromised, config.state_dir ? count_maps () : 0);
  while ((e = exports_next (live.exports, e))) {
    struct export_terms terms;

    export_get_terms (e, &terms);
    text = str ("%s\"%s\" %ju, used %ju, reserve %ju, limit %ju, weight %u, %u clients\n", text,
                export_name (e), (uintmax_t) export_size_bytes (e),
                (uintmax_t) export_npages_used (e), (uintmax_t) terms.reserve_bytes,
                (uintmax_t) terms.limit_bytes, terms.weight, export_nclients (e));
  }
  return text;
}

static void
expect_contents (const char *name, char byte, unsigned n)
{
  static char data[PAGE_BYTES], want[PAGE_BYTES];
  struct export *e = get (name);

  for (uint64_t page = 0; page < NPAGES; page++) {
    memset (want, page < n ? byte : 0, sizeof want);
    cr_assert_eq (export_read (e, data, sizeof data, page * PAGE_BYTES), 0);
    cr_assert_eq (memcmp (data, want, sizeof data), 0, "\"%s\", page %u", name, (unsigned) page);
  }
}

/* The act fails, and leaves all as it was; or, where that is no harm, does what it should. */
static void
fail_every_call_of (unsigned k)
{
  for (unsigned n = 0;; n++) {
    char *was = describe (), *is;
    unsigned nopen = count_open_files ();
    int allocated_before = nallocated, allocated, ret;

    logged_start ();
    failed_call = NULL;
    fail_in = (int) n;
    ret = acts[k].act ();
    fail_in = DISARMED;
    allocated = nallocated;
    is = describe ();
    if (ret < 0) {
      cr_assert_not_null (failed_call, "%s fails by itself: %s", acts[k].name, logged_last ());
      cr_assert_str_eq (is, was, "%s: call %u, %s: it is now\n%sand was\n%s", acts[k].name, n,
                        failed_call, is, was);
      cr_assert_eq (allocated, allocated_before, "%s: call %u, %s: memory leaks", acts[k].name, n,
                    failed_call);
      cr_assert_eq (count_open_files (), nopen, "%s: call %u, %s: descriptors leak", acts[k].name,
                    n, failed_call);
      cr_assert_gt (logged_count (""), 0, "%s: call %u, %s: nothing is said", acts[k].name, n,
                    failed_call);
      continue;
    }
    if (!failed_call)
      return;
    cr_assert_eq (acts[k].undo (), 0, "%s: %s", acts[k].name, logged_last ());
    drum_heal (live.drum); /* where a slot took no data */
    is = describe ();
    cr_assert_str_eq (is, was, "%s: call %u, %s: it is now\n%sand was\n%s", acts[k].name, n,
                      failed_call, is, was);
  }
}

static void
fail_every_change (void)
{
  static const struct export_spec exports[] = {
    { .name = "one", .size_bytes = MIB, .terms.weight = 100 },
    { .name = "two", .size_bytes = 4 * MIB, .terms.weight = 100 },
  };
  static const struct export_template template = {
    .spec = { .name = "t-*", .size_bytes = MIB, .terms = { .weight = 100 } }
  };
  static char data[NPAGES * PAGE_BYTES];

  make_devices ();
  spec[1].create_bytes = 0;
  config.exports = exports;
  config.nexports = 2;
  config.templates = &template;
  config.ntemplates = 1;
  cr_assert_eq (service_start (&config, &live), 0, "%s", logged_last ());
  never_fdatasync = true;
  cr_assert_eq (open_id (), 0); /* that client is remembered from here on */
  memset (data, 1, sizeof data);
  cr_assert_eq (export_write (get ("one"), data, sizeof data, 0), 0);
  for (unsigned k = 0; k < sizeof acts / sizeof acts[0]; k++) {
    never_ftruncate = acts[k].act == pass_on || acts[k].act == pass_back;
    fail_every_call_of (k);
  }
  expect_contents ("one", 1, NPAGES);
  expect_contents ("two", 0, 0);
  service_stop (&live);
  if (!config.state_dir)
    return;
  spec[2].create_bytes = 0; /* all of that is in the state */
  cr_assert_eq (service_start (&config, &live), 0, "%s", logged_last ());
  expect_contents ("one", 1, NPAGES);
  expect_contents ("two", 0, 0);
  cr_assert (get ("x") && get ("t-1"));
  service_stop (&live);
}

Test (service_faults, every_call_of_a_change_may_fail)
{
  fail_every_change ();
}

Test (service_faults, every_call_of_a_change_may_fail_with_a_state)
{
  config.state_dir = scratch_path ("state");
  fail_every_change ();
}
