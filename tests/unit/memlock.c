/* SPDX-License-Identifier: BSD-3-Clause
 *
 * memlock.c - tests of lib/memlock.c.
 *
 * The calls that ask the kernel for something go through here, since what it grants is another thing on every machine.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "lib/memlock.h"
#include "lib/units.h"
#include "tests/scratch.h"

#include "files.h"
#include "logged.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#define PR_GET_IO_FLUSHER 58
#endif

/* What is granted, and what has been asked for. */
static bool no_lock, no_flusher, flusher_forgets, no_oom, no_real_time, no_undumpable, no_populate;
static int lock_flags, flusher, policy = SCHED_BATCH, priority, dumpable = 1, ntables, tables_ret;
static void *undumped;
static char *oom; /* stands for oom_score_adj */

int __wrap_mlockall (int flags);
int __wrap_munlockall (void);

int
__wrap_mlockall (int flags)
{
  if (no_lock) {
    errno = EPERM;
    return -1;
  }
  lock_flags = flags;
  return 0;
}

int
__wrap_munlockall (void)
{
  lock_flags = 0;
  return 0;
}

int __wrap_sched_setscheduler (pid_t pid, int to, const struct sched_param *param);
int __wrap_sched_getscheduler (pid_t pid);
int __wrap_sched_getparam (pid_t pid, struct sched_param *param);

int
__wrap_sched_setscheduler (pid_t pid, int to, const struct sched_param *param)
{
  cr_assert_eq (pid, 0);
  if (no_real_time) {
    errno = EPERM;
    return -1;
  }
  policy = to;
  priority = param->sched_priority;
  return 0;
}

int
__wrap_sched_getscheduler (pid_t pid)
{
  cr_assert_eq (pid, 0);
  return policy;
}

int
__wrap_sched_getparam (pid_t pid, struct sched_param *param)
{
  cr_assert_eq (pid, 0);
  param->sched_priority = priority;
  return 0;
}

int __wrap_prctl (int what, ...);

int
__wrap_prctl (int what, ...)
{
  va_list args;
  int value;

  va_start (args, what);
  value = va_arg (args, int);
  va_end (args);
  if (what == PR_GET_IO_FLUSHER)
    return no_flusher ? -1 : flusher;
  if (what == PR_SET_IO_FLUSHER ? no_flusher : no_undumpable) {
    errno = EPERM;
    return -1;
  }
  if (what == PR_SET_IO_FLUSHER)
    flusher = flusher_forgets ? 0 : value;
  else if (what == PR_SET_DUMPABLE)
    dumpable = value;
  else
    cr_assert (false, "prctl %d", what);
  return 0;
}

int __real_open (const char *path, int flags, ...);
int __wrap_open (const char *path, int flags, ...);

int
__wrap_open (const char *path, int flags, ...)
{
  va_list args;
  mode_t mode;

  if (strcmp (path, "/proc/self/oom_score_adj") != 0) {
    va_start (args, flags);
    mode = flags & O_CREAT ? va_arg (args, mode_t) : 0;
    va_end (args);
    return __real_open (path, flags, mode);
  }
  cr_assert (dumpable, "who is not dumpable may not write it any more");
  if (no_oom && (flags & O_ACCMODE) != O_RDONLY) {
    errno = EACCES;
    return -1;
  }
  return __real_open (oom, flags);
}

int __real_madvise (void *mem, size_t len, int advice);
int __wrap_madvise (void *mem, size_t len, int advice);

int
__wrap_madvise (void *mem, size_t len, int advice)
{
  if (advice == MADV_DONTDUMP)
    undumped = mem;
  if (!no_populate)
    return __real_madvise (mem, len, advice);
  errno = EINVAL;
  return -1;
}

static int
tables (void *opaque)
{
  cr_assert_eq (opaque, &ntables);
  cr_assert (no_lock || lock_flags, "locked first");
  ntables++;
  return tables_ret;
}

static void
setup (void)
{
  scratch_setup ();
  logged_start ();
  oom = file_make ("oom", 6);
  file_write (oom, 0, "-17\n\n", 6);
}

TestSuite (memlock, .init = setup, .fini = scratch_teardown, .timeout = 60);

static int
apply (enum memlock_mode mode)
{
  logged_start ();
  return memlock_apply (mode, tables, &ntables);
}

static void
assert_oom_score (const char *text)
{
  cr_assert_eq (strncmp ((char *) file_contents (oom, NULL), text, strlen (text)), 0);
}

/* Without lock= nothing changes, and nothing is said. */
Test (memlock, no)
{
  cr_assert_eq (apply (MEMLOCK_NO), 0);
  cr_assert (lock_flags == 0 && flusher == 0 && policy == SCHED_BATCH && dumpable == 1 &&
             ntables == 0);
  assert_oom_score ("-17");
  cr_assert_eq (logged_count (""), 0);
}

/* All of it, and one line that says so. */
Test (memlock, all_takes_effect)
{
  static const enum memlock_mode modes[] = { MEMLOCK_YES, MEMLOCK_STRICT };

  for (unsigned i = 0; i < 2; i++) {
    dumpable = 1;
    cr_assert_eq (apply (modes[i]), 0);
    cr_assert_eq (lock_flags, MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT);
    cr_assert_eq (flusher, 1);
    cr_assert (policy == SCHED_RR && priority == 1);
    cr_assert_eq (dumpable, 0);
    assert_oom_score ("-1000");
    cr_assert_eq (ntables, i + 1);
    cr_assert_eq (logged_count (""), 1);
    cr_assert (logged_last_level () == LEVEL_NOTICE);
    cr_assert_str_eq (
      logged_last (),
      str ("lock=%s: memory locked (mlockall), I/O flusher (PR_SET_IO_FLUSHER), OOM "
           "score -1000, real-time (SCHED_RR), no core dumps, tables touched",
           i ? "strict" : "yes"));
  }
}

/* Whatever is missing is named with its reason, behind all the rest; with strict it is an error. */
Test (memlock, each_may_be_missing)
{
  static bool *const refused[] = { &no_lock, &no_flusher,   &flusher_forgets,
                                   &no_oom,  &no_real_time, &no_undumpable };
  static const char *const says[] = {
    "not: memory locked (mlockall) (Operation not permitted)",
    "not: I/O flusher (PR_SET_IO_FLUSHER) (Operation not permitted)",
    "not: I/O flusher (PR_SET_IO_FLUSHER) (Operation not supported)",
    "not: OOM score -1000 (Permission denied)",
    "not: real-time (SCHED_RR) (Operation not permitted)",
    "not: no core dumps (Operation not permitted)",
    "not: tables touched (Cannot allocate memory)"
  };
  static const int error[] = { -EPERM, -EPERM, -ENOTSUP, -EACCES, -EPERM, -EPERM, -ENOMEM };

  for (unsigned i = 0; i < 7; i++) {
    dumpable = 1;
    if (i < 6)
      *refused[i] = true;
    tables_ret = i == 6 ? -ENOMEM : 0;
    cr_assert_eq (apply (MEMLOCK_YES), 0);
    cr_assert_eq (logged_count (""), 1);
    cr_assert (logged_last_level () == LEVEL_WARNING);
    cr_assert_not_null (strstr (logged_last (), says[i]), "%s", logged_last ());
    cr_assert_eq (logged_count (i == 0 ? "lock=yes: I/O flusher" : "lock=yes: memory locked"), 1,
                  "%s", logged_last ());
    dumpable = 1;
    cr_assert_eq (apply (MEMLOCK_STRICT), error[i]);
    assert_logged_error (says[i] + 5);
    if (i < 6)
      *refused[i] = false;
  }
}

/* Nothing at all. */
Test (memlock, all_may_be_missing)
{
  no_lock = no_flusher = no_oom = no_real_time = no_undumpable = true;
  tables_ret = -ENOMEM;
  cr_assert_eq (apply (MEMLOCK_YES), 0);
  cr_assert_eq (logged_count ("lock=yes: not: memory locked"), 1, "%s", logged_last ());
  cr_assert_eq (logged_count ("), tables touched (Cannot allocate memory)"), 1, "%s",
                logged_last ());
}

/* What is tried before the fork is taken back; also what was found. */
Test (memlock, check_changes_nothing)
{
  cr_assert_eq (memlock_check (), 0);
  cr_assert (lock_flags == 0 && flusher == 0 && policy == SCHED_BATCH && dumpable == 1 &&
             ntables == 0);
  assert_oom_score ("-17");
  flusher = 1;
  cr_assert_eq (memlock_check (), 0);
  cr_assert_eq (flusher, 1);
  cr_assert_eq (logged_count (""), 0, "%s", logged_last ());
}

/* It finds what will be missing, and says all of it at once. */
Test (memlock, check_finds_what_is_missing)
{
  no_oom = true;
  cr_assert_eq (memlock_check (), -EACCES);
  assert_logged_error ("lock=strict: can't have: OOM score -1000 (Permission denied): give");
  no_flusher = true;
  cr_assert_eq (memlock_check (), -EPERM);
  cr_assert_eq (lock_flags, 0);
  assert_logged_error (
    "can't have: I/O flusher (PR_SET_IO_FLUSHER) (Operation not permitted), OOM score");
}

enum { NPAGES = 64 };

static unsigned
count_present (void *mem)
{
  unsigned char there[NPAGES];
  unsigned n = 0;

  cr_assert_eq (mincore (mem, NPAGES * PAGE_BYTES, there), 0);
  for (unsigned i = 0; i < NPAGES; i++)
    n += there[i] & 1;
  return n;
}

/* Memory is there when it has been touched, as it was; also with an old kernel. */
Test (memlock, touch)
{
  for (unsigned old = 0; old < 2; old++) {
    char *mem =
      mmap (NULL, NPAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    __real_madvise (mem, NPAGES * PAGE_BYTES, MADV_NOHUGEPAGE);
    mem[5 * PAGE_BYTES] = 'x';
    cr_assert_eq (count_present (mem), 1);
    no_populate = old;
    cr_assert_eq (memlock_touch (mem, NPAGES * PAGE_BYTES), 0);
    cr_assert_eq (count_present (mem), NPAGES);
    cr_assert_eq (mem[5 * PAGE_BYTES], 'x');
    munmap (mem, NPAGES * PAGE_BYTES);
  }
}

/* Memory for pages is there at once, and in no core dump. */
Test (memlock, pages)
{
  void *mem = memlock_pages (NPAGES * PAGE_BYTES);

  cr_assert_not_null (mem);
  cr_assert_eq (count_present (mem), NPAGES);
  cr_assert_eq (undumped, mem);
  munmap (mem, NPAGES * PAGE_BYTES);
}

/* What can't be there is an error. */
Test (memlock, touch_fails)
{
  cr_assert_lt (memlock_touch ((void *) (uintptr_t) PAGE_BYTES, PAGE_BYTES), 0);
}

/* What is mapped when it is applied is there, but for what is larger than 2 MiB: nbdkit's buffers are. */
Test (memlock, touches_the_program)
{
  enum { LARGE = 16 * NPAGES };
  char *mem[2];

  for (unsigned i = 0; i < 2; i++) {
    mem[i] = mmap (NULL, (i ? LARGE : NPAGES) * PAGE_BYTES, i ? PROT_READ | PROT_WRITE : PROT_READ,
                   i ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    __real_madvise (mem[i], (i ? LARGE : NPAGES) * PAGE_BYTES, MADV_NOHUGEPAGE);
    cr_assert_eq (count_present (mem[i]), 0);
  }
  cr_assert_eq (apply (MEMLOCK_YES), 0);
  cr_assert_eq (count_present (mem[0]), NPAGES);
  cr_assert_eq (count_present (mem[1]), 0);
}
