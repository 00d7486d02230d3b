/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "memlock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <malloc.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "log.h"
#include "units.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#define PR_GET_IO_FLUSHER 58
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif

enum {
  STACK_BYTES = 128 << 10, /* requests take some 50 KiB of ours */
  HEAP_BYTES = 3 << 20,    /* a buffer of nbdkit grows to the kernel's largest request, 1.25 MiB */
  LARGEST_BYTES = 2 << 20, /* mapping that is touched unasked */
};

static const char oom_path[] = "/proc/self/oom_score_adj";

int
memlock_touch (void *mem, size_t bytes)
{
  volatile char *at = mem;

  if (madvise (mem, bytes, MADV_POPULATE_WRITE) == 0)
    return 0;
  if (errno != EINVAL)
    return -errno;
  for (size_t i = 0; i < bytes; i += PAGE_BYTES) /* a kernel before 5.14 */
    at[i] = at[i];
  return 0;
}

static void __attribute__ ((noinline)) touch_stack (void)
{
  volatile char stack[STACK_BYTES];

  for (size_t i = 0; i < sizeof stack; i += PAGE_BYTES)
    stack[i] = 0;
}

void
memlock_touch_stack (void)
{
  /* Of the plugin's own TLS, not of what glibc allocates at a thread's first look. */
  static _Thread_local bool touched __attribute__ ((tls_model ("initial-exec")));

  if (!touched)
    touch_stack ();
  touched = true;
}

void *
memlock_pages (size_t bytes)
{
  void *mem = mmap (NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

  if (mem == MAP_FAILED)
    return NULL;
  madvise (mem, bytes, MADV_DONTDUMP);
  memlock_touch (mem, bytes); /* if that fails, it comes page by page */
  return mem;
}

int
memlock_touch_heap (void)
{
  void *mem = malloc (HEAP_BYTES);
  int ret;

  if (!mem)
    return -ENOMEM;
  ret = memlock_touch ((void *) ((uintptr_t) mem & ~(uintptr_t) (PAGE_BYTES - 1)), HEAP_BYTES);
  free (mem);
  return ret;
}

/* What is freed is not given back, but there for the next. */
static void
keep_heap (void)
{
  mallopt (M_MMAP_THRESHOLD, 2 * HEAP_BYTES);
  mallopt (M_TRIM_THRESHOLD, INT_MAX);
}

static int
lock_all (void)
{
  return mlockall (MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0 ? 0 : -errno;
}

static int
try_lock_all (void)
{
  int ret = lock_all ();

  munlockall ();
  return ret;
}

/* What a mapping needs so that using it takes no memory; a few of the kernel's own can't have it. */
static void
touch_mapping (const char *line)
{
  uintptr_t begin, end;
  char perms[5];

  if (sscanf (line, "%" SCNxPTR "-%" SCNxPTR " %4s", &begin, &end, perms) != 3 || perms[0] != 'r' ||
      end - begin > LARGEST_BYTES)
    return;
  madvise ((void *) begin, end - begin,
           perms[1] == 'w' && perms[3] == 'p' ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
}

static void
touch_program (void)
{
  FILE *f = fopen ("/proc/self/maps", "re");
  char line[4096 + 128];

  while (f && fgets (line, sizeof line, f))
    touch_mapping (line);
  if (f)
    fclose (f);
}

int
memlock_io_flusher (void)
{
  if (prctl (PR_SET_IO_FLUSHER, 1, 0, 0, 0) == -1)
    return -errno;
  return prctl (PR_GET_IO_FLUSHER, 0, 0, 0, 0) == 1 ? 0 : -ENOTSUP;
}

static int
try_io_flusher (void)
{
  bool was_set = prctl (PR_GET_IO_FLUSHER, 0, 0, 0, 0) == 1;
  int ret = memlock_io_flusher ();

  if (ret == 0 && !was_set)
    prctl (PR_SET_IO_FLUSHER, 0, 0, 0, 0);
  return ret;
}

static int
write_oom_score (const char *text)
{
  int fd = open (oom_path, O_WRONLY | O_CLOEXEC), ret = 0;

  if (fd == -1)
    return -errno;
  if (write (fd, text, strlen (text)) == -1)
    ret = -errno;
  close (fd);
  return ret;
}

int
memlock_oom_score (void)
{
  return write_oom_score ("-1000");
}

static int
try_oom_score (void)
{
  int fd = open (oom_path, O_RDONLY | O_CLOEXEC), ret;
  char before[16] = "";

  if (fd == -1)
    return -errno;
  if (read (fd, before, sizeof before - 1) == -1)
    before[0] = '\0';
  close (fd);
  ret = memlock_oom_score ();
  if (ret == 0)
    write_oom_score (before);
  return ret;
}

static int
be_real_time (void)
{
  const struct sched_param param = { .sched_priority = 1 };

  return sched_setscheduler (0, SCHED_RR, &param) == 0 ? 0 : -errno;
}

static int
try_real_time (void)
{
  int policy = sched_getscheduler (0), ret;
  struct sched_param before;

  if (policy == -1 || sched_getparam (0, &before) == -1)
    return -errno;
  ret = be_real_time ();
  if (ret == 0)
    sched_setscheduler (0, policy, &before);
  return ret;
}

static int
set_undumpable (void)
{
  return prctl (PR_SET_DUMPABLE, 0, 0, 0, 0) == 0 ? 0 : -errno;
}

/* In this order: who is not dumpable may not write its own OOM score. */
static const struct {
  const char *what;
  int (*set) (void);
  int (*try) (void); /* and take it back; NULL: can't fail */
} measures[] = {
  { "memory locked (mlockall)", lock_all, try_lock_all },
  { "I/O flusher (PR_SET_IO_FLUSHER)", memlock_io_flusher, try_io_flusher },
  { "OOM score -1000", memlock_oom_score, try_oom_score },
  { "real-time (SCHED_RR)", be_real_time, try_real_time },
  { "no core dumps", set_undumpable, NULL },
};
enum { NMEASURES = sizeof measures / sizeof measures[0] };

/* What took effect, and what did not. */
struct outcome {
  char done[256], missing[512];
  int error; /* the first one */
};

static void
note (struct outcome *o, const char *what, int ret)
{
  char *list = ret < 0 ? o->missing : o->done;
  size_t size = ret < 0 ? sizeof o->missing : sizeof o->done, len = strlen (list);

  snprintf (list + len, size - len, "%s%s%s%s%s", len ? ", " : "", what, ret < 0 ? " (" : "",
            ret < 0 ? strerror (-ret) : "", ret < 0 ? ")" : "");
  if (ret < 0 && !o->error)
    o->error = ret;
}

static int
refuse (const struct outcome *o)
{
  log_error ("lock=strict: can't have: %s: give the server CAP_IPC_LOCK, CAP_SYS_RESOURCE and "
             "CAP_SYS_NICE, or lock=yes to do without",
             o->missing);
  return o->error;
}

int
memlock_check (void)
{
  struct outcome o = { .error = 0 };

  for (unsigned i = 0; i < NMEASURES; i++)
    if (measures[i].try)
      note (&o, measures[i].what, measures[i].try ());
  return o.error ? refuse (&o) : 0;
}

int
memlock_apply (enum memlock_mode mode, int (*tables) (void *opaque), void *opaque)
{
  struct outcome o = { .error = 0 };

  if (mode == MEMLOCK_NO)
    return 0;
  for (unsigned i = 0; i < NMEASURES; i++)
    note (&o, measures[i].what, measures[i].set ());
  keep_heap ();
  touch_program ();
  note (&o, "tables touched", tables (opaque));
  if (o.error && mode == MEMLOCK_STRICT)
    return refuse (&o);
  if (o.error)
    log_warning ("lock=yes: %s%snot: %s", o.done, *o.done ? "; " : "", o.missing);
  else
    log_notice ("lock=%s: %s", mode == MEMLOCK_STRICT ? "strict" : "yes", o.done);
  return 0;
}
