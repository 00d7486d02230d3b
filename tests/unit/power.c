/* SPDX-License-Identifier: BSD-3-Clause
 *
 * power.c - what a service with a state is after a power failure, or a SIGKILL, at any moment.
 *
 * The linker sends what lib/ does to files through here. A random workload is recorded: each write, change of size, of a name, and
 * sync, in order; and what clients sent, what was acknowledged, and what was flushed. Then for each prefix of the record the files are made
 * as they could be if all had ended there, and a service is started on them.
 * SIGKILL: all that was written is there, but for a part of the last call.
 * Power:   of each file there is what was written before its last sync; of each sector of 512 bytes written since, what was in memory
 *          at some moment since, and of names what the folder's last sync covers, and some changes more, in order.
 * Nothing is synced for real.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include "lib/bootid.h"
#include "lib/drum.h"
#include "lib/export.h"
#include "lib/job.h"
#include "lib/live.h"
#include "lib/service.h"
#include "tests/random.h"
#include "tests/scratch.h"

#include "devices.h"
#include "logged.h"
#include "tests/unit/served.h"

enum { NPAGES = 76, SECTOR = 512, MAX_OPS = 1 << 16, MAX_NAMES = 16, MAX_FILES = 4096 };
/* All pages fit on any device but the first, which some can be moved up to. */
enum { NSLOTS = 90, FEW_SLOTS = 40 };
enum { NOBODY = -1, NEVER = INT32_MAX };

/* ---- the record ---- */

/* A name means this file from now on; or NOBODY. */
struct naming {
  int name, file;
};

struct op {
  enum op_kind { WRITE, SIZE, SYNC, NAME, SYNC_DIR } kind;
  int file; /* or folder */
  uint64_t at, len;
  unsigned char *data;
  struct naming naming[2];
  unsigned nnamings;
};

static pthread_mutex_t record_lock = PTHREAD_MUTEX_INITIALIZER;
static bool recording;
static bool dying; /* what is synced now would not have been */
static struct op ops[MAX_OPS];
static int nops;

static char *root, *names[MAX_NAMES]; /* below the root; those with a / are in its folder "state" */
static int nnames, nfiles;
static int file_of[MAX_NAMES];          /* now */
static int fd_file[1024], fd_dir[1024]; /* NOBODY: another one */
static unsigned boot;                   /* the machine's */
static struct rng rng;

static void (*in_write) (void); /* something that happens in the middle of a write of a client's */
static pthread_t client;

static int
now (void)
{
  int n;

  pthread_mutex_lock (&record_lock);
  n = nops;
  pthread_mutex_unlock (&record_lock);
  return n;
}

/* => record_lock. */
static struct op *
record (enum op_kind kind, int file)
{
  struct op *op = &ops[nops];

  if (nops == MAX_OPS)
    abort ();
  *op = (struct op){ .kind = kind, .file = file };
  nops++;
  return op;
}

/* => record_lock. NOBODY: not below the root. */
static int
find_name (const char *path)
{
  size_t n = strlen (root);
  int i = 0;

  if (strncmp (path, root, n) != 0 || path[n] != '/')
    return NOBODY;
  while (i < nnames && strcmp (names[i], path + n + 1) != 0)
    i++;
  if (i == nnames) {
    if (nnames == MAX_NAMES)
      abort ();
    names[nnames] = strdup (path + n + 1);
    file_of[nnames++] = NOBODY;
  }
  return i;
}

static int
find_name_at (int dirfd, const char *name)
{
  char path[4096];

  if (fd_dir[dirfd] == NOBODY)
    return NOBODY;
  snprintf (path, sizeof path, "%s%s/%s", root, fd_dir[dirfd] ? "/state" : "", name);
  return find_name (path);
}

/* => record_lock. */
static void
record_naming (struct naming a, struct naming b)
{
  struct op *op = record (NAME, strchr (names[a.name], '/') != NULL);

  op->naming[op->nnamings++] = a;
  if (b.name != NOBODY)
    op->naming[op->nnamings++] = b;
  for (unsigned i = 0; i < op->nnamings; i++)
    file_of[op->naming[i].name] = op->naming[i].file;
}

static const struct naming no_naming = { NOBODY, NOBODY };

/* => record_lock. */
static void
record_open (int fd, int name, int flags)
{
  fd_file[fd] = fd_dir[fd] = NOBODY;
  if (name == NOBODY)
    return;
  if (flags & O_DIRECTORY) {
    fd_dir[fd] = strcmp (names[name], "state") == 0;
    return;
  }
  if (file_of[name] == NOBODY && recording) {
    if (nfiles == MAX_FILES)
      abort ();
    record_naming ((struct naming){ name, nfiles++ }, no_naming);
  }
  fd_file[fd] = file_of[name];
  if (recording && (flags & O_TRUNC))
    record (SIZE, fd_file[fd]);
}

/* ---- what lib/ calls ---- */

int __real_open (const char *path, int flags, ...);
int __wrap_open (const char *path, int flags, ...);

int
__wrap_open (const char *path, int flags, ...)
{
  va_list args;
  mode_t mode;
  int fd;

  va_start (args, flags);
  mode = flags & O_CREAT ? va_arg (args, mode_t) : 0;
  va_end (args);
  pthread_mutex_lock (&record_lock);
  fd = __real_open (path, flags, mode);
  if (fd >= 0) {
    if (strcmp (path, root) == 0) {
      fd_file[fd] = NOBODY;
      fd_dir[fd] = 0;
    } else
      record_open (fd, find_name (path), flags);
  }
  pthread_mutex_unlock (&record_lock);
  return fd;
}

int __real_openat (int dirfd, const char *name, int flags, ...);
int __wrap_openat (int dirfd, const char *name, int flags, ...);

int
__wrap_openat (int dirfd, const char *name, int flags, ...)
{
  va_list args;
  mode_t mode;
  int fd;

  va_start (args, flags);
  mode = flags & O_CREAT ? va_arg (args, mode_t) : 0;
  va_end (args);
  pthread_mutex_lock (&record_lock);
  fd = __real_openat (dirfd, name, flags, mode);
  if (fd >= 0)
    record_open (fd, strcmp (name, ".") == 0 ? NOBODY : find_name_at (dirfd, name), flags);
  pthread_mutex_unlock (&record_lock);
  return fd;
}

int __real_mkdir (const char *path, mode_t mode);
int __wrap_mkdir (const char *path, mode_t mode);

int
__wrap_mkdir (const char *path, mode_t mode)
{
  int ret;

  pthread_mutex_lock (&record_lock);
  ret = __real_mkdir (path, mode);
  if (ret == 0 && recording)
    record_naming ((struct naming){ find_name (path), nfiles++ }, no_naming);
  pthread_mutex_unlock (&record_lock);
  return ret;
}

int __real_unlinkat (int dirfd, const char *name, int flags);
int __wrap_unlinkat (int dirfd, const char *name, int flags);

int
__wrap_unlinkat (int dirfd, const char *name, int flags)
{
  int ret;

  pthread_mutex_lock (&record_lock);
  ret = __real_unlinkat (dirfd, name, flags);
  if (ret == 0 && recording)
    record_naming ((struct naming){ find_name_at (dirfd, name), NOBODY }, no_naming);
  pthread_mutex_unlock (&record_lock);
  return ret;
}

int __real_unlink (const char *path);
int __wrap_unlink (const char *path);

int
__wrap_unlink (const char *path)
{
  int ret;

  pthread_mutex_lock (&record_lock);
  ret = __real_unlink (path);
  if (ret == 0 && recording)
    record_naming ((struct naming){ find_name (path), NOBODY }, no_naming);
  pthread_mutex_unlock (&record_lock);
  return ret;
}

int __real_renameat2 (int fromfd, const char *from, int tofd, const char *to, unsigned flags);
int __wrap_renameat2 (int fromfd, const char *from, int tofd, const char *to, unsigned flags);

int
__wrap_renameat2 (int fromfd, const char *from, int tofd, const char *to, unsigned flags)
{
  int ret;

  pthread_mutex_lock (&record_lock);
  ret = __real_renameat2 (fromfd, from, tofd, to, flags);
  if (ret == 0 && recording) {
    int a = find_name_at (fromfd, from), b = find_name_at (tofd, to);

    record_naming ((struct naming){ b, file_of[a] },
                   (struct naming){ a, flags ? file_of[b] : NOBODY });
  }
  pthread_mutex_unlock (&record_lock);
  return ret;
}

int __wrap_renameat (int fromfd, const char *from, int tofd, const char *to);

int
__wrap_renameat (int fromfd, const char *from, int tofd, const char *to)
{
  return __wrap_renameat2 (fromfd, from, tofd, to, 0);
}

static int
record_size (int fd, uint64_t size_bytes)
{
  if (recording && fd_file[fd] != NOBODY)
    record (SIZE, fd_file[fd])->len = size_bytes;
  return 0;
}

int __real_ftruncate (int fd, off_t size_bytes);
int __wrap_ftruncate (int fd, off_t size_bytes);

int
__wrap_ftruncate (int fd, off_t size_bytes)
{
  int ret;

  pthread_mutex_lock (&record_lock);
  ret = __real_ftruncate (fd, size_bytes);
  if (ret == 0)
    record_size (fd, (uint64_t) size_bytes);
  pthread_mutex_unlock (&record_lock);
  return ret;
}

/* Files have their size by then. */
int __wrap_fallocate (int fd, int mode, off_t at, off_t len);

int
__wrap_fallocate (int fd, int mode, off_t at, off_t len)
{
  (void) fd, (void) mode, (void) at, (void) len;
  return 0;
}

ssize_t __real_pwritev (int fd, const struct iovec *iov, int niov, off_t at);
ssize_t __wrap_pwritev (int fd, const struct iovec *iov, int niov, off_t at);

ssize_t
__wrap_pwritev (int fd, const struct iovec *iov, int niov, off_t at)
{
  ssize_t done;

  if (recording && pthread_equal (pthread_self (), client) && in_write)
    in_write ();
  pthread_mutex_lock (&record_lock);
  done = __real_pwritev (fd, iov, niov, at);
  if (done > 0 && recording && fd_file[fd] != NOBODY) {
    struct op *op = record (WRITE, fd_file[fd]);
    size_t rest = (size_t) done;

    op->at = (uint64_t) at;
    op->data = malloc (rest);
    for (int i = 0; rest > 0; i++) {
      size_t n = iov[i].iov_len < rest ? iov[i].iov_len : rest;

      memcpy (op->data + op->len, iov[i].iov_base, n);
      op->len += n;
      rest -= n;
    }
  }
  pthread_mutex_unlock (&record_lock);
  return done;
}

static int
record_sync (int fd)
{
  sched_yield (); /* others have their chance to do something just before */
  pthread_mutex_lock (&record_lock);
  if (recording && !dying && fd_dir[fd] != NOBODY)
    record (SYNC_DIR, fd_dir[fd]);
  else if (recording && !dying && fd_file[fd] != NOBODY)
    record (SYNC, fd_file[fd]);
  pthread_mutex_unlock (&record_lock);
  sched_yield ();
  return 0;
}

int __wrap_fsync (int fd);

int
__wrap_fsync (int fd)
{
  return record_sync (fd);
}

int __wrap_fdatasync (int fd);

int
__wrap_fdatasync (int fd)
{
  return record_sync (fd);
}

void __wrap_bootid_read (uuid_t id);

void
__wrap_bootid_read (uuid_t id)
{
  memset (id, 1, sizeof (uuid_t));
  memcpy (id, &boot, sizeof boot);
}

/* It is on a disk, wherever the scratch folder is. */
int __real_fstatfs (int fd, struct statfs *fs);
int __wrap_fstatfs (int fd, struct statfs *fs);

int
__wrap_fstatfs (int fd, struct statfs *fs)
{
  int ret = __real_fstatfs (fd, fs);

  fs->f_type = EXT4_SUPER_MAGIC;
  return ret;
}

/* ---- what clients know ---- */

/* What a page was to be, one after the other; the first one is zeroes, and acknowledged. */
struct version {
  int sent, acked; /* when; NEVER */
  unsigned char data[PAGE_BYTES];
};

static struct page {
  struct version *version;
  int n;
} page[NPAGES];

/* Of each page this version, or a later one, is durable. */
static struct flush {
  int done; /* when */
  int floor[NPAGES];
} * flushes;
static int nflushes;

static struct service service;
static struct live *live;
static char *device[4]; /* paths of those that may be there; the first two are at the start */
static struct swapdev_spec spec[2];
static struct service_config config = {
  .io = RINGS_NEVER, /* all of it is seen here */
  .devices = spec,
  .ndevices = 2,
  .stripe_bytes = STRIPE_DEFAULT_BYTES,
  .size_bytes = NPAGES * PAGE_BYTES,
  .checksum = true,
};
static int started; /* when the first start was done */

static struct version *
add_version (unsigned i, const void *data)
{
  struct page *p = &page[i];
  struct version *v;

  p->version = realloc (p->version, (size_t) (p->n + 1) * sizeof *p->version);
  v = &p->version[p->n++];
  v->sent = now ();
  v->acked = NEVER;
  memcpy (v->data, data, PAGE_BYTES);
  return v;
}

static int
last_acked (unsigned i, int when)
{
  int n = page[i].n - 1;

  while (page[i].version[n].acked > when)
    n--;
  return n;
}

/* What was sent just then has had no effect; but what was also acknowledged had none at all. */
static int
last_sent (unsigned i, int when)
{
  int n = page[i].n - 1;

  while (n > 0 && page[i].version[n].sent >= when && page[i].version[n].acked > when)
    n--;
  return n;
}

/* All that was acknowledged before floor was taken is durable. */
static void
add_flush (const struct flush *flush)
{
  flushes = realloc (flushes, (size_t) (nflushes + 1) * sizeof *flushes);
  flushes[nflushes] = *flush;
  flushes[nflushes++].done = now ();
}

static struct flush
begin_flush (void)
{
  struct flush flush;

  for (unsigned i = 0; i < NPAGES; i++)
    flush.floor[i] = last_acked (i, now ());
  return flush;
}

static void
client_flush (void)
{
  struct flush flush = begin_flush ();

  cr_assert_eq (export_flush (served (&service)), 0);
  add_flush (&flush);
}

enum { BUSY_NOT = NPAGES };
static unsigned busy_first = BUSY_NOT, busy_end; /* the pages of the request under way */

/* Change bytes [offset, offset + length) of the export to fill, or to zero. */
static void
change (uint64_t offset, uint64_t length, bool zero, bool trim)
{
  unsigned first = (unsigned) (offset / PAGE_BYTES);
  unsigned end = (unsigned) ((offset + length + PAGE_BYTES - 1) / PAGE_BYTES);
  unsigned char *data = calloc (1, length), whole[PAGE_BYTES];
  int n[NPAGES], ret;

  if (!zero)
    rng_fill (&rng, data, length);
  for (unsigned i = first; i < end; i++) {
    uint64_t start = (uint64_t) i * PAGE_BYTES;
    uint64_t from = start > offset ? start : offset;
    uint64_t to = start + PAGE_BYTES < offset + length ? start + PAGE_BYTES : offset + length;

    memcpy (whole, page[i].version[last_acked (i, now ())].data, PAGE_BYTES);
    memcpy (whole + (from - start), data + (from - offset), to - from);
    add_version (i, whole);
    n[i] = page[i].n - 1;
  }
  busy_first = first;
  busy_end = end;
  ret = trim   ? export_trim (served (&service), length, offset)
        : zero ? export_zero (served (&service), length, offset, false)
               : export_write (served (&service), data, length, offset);
  busy_first = BUSY_NOT;
  cr_assert_eq (ret, 0, "%s", strerror (-ret));
  for (unsigned i = first; i < end; i++)
    page[i].version[n[i]].acked = now ();
  if (config.sync && !trim) {
    struct flush flush = nflushes ? flushes[nflushes - 1] : (struct flush){ .done = 0 };

    for (unsigned i = first; i < end; i++)
      flush.floor[i] = n[i];
    add_flush (&flush);
  }
  free (data);
}

static void
client_change (unsigned first, unsigned end)
{
  uint64_t offset = first * PAGE_BYTES, length = (end - first) * PAGE_BYTES;
  unsigned what = (unsigned) rng_below (&rng, 12);

  if (what == 0)
    change (offset, length, true, true);
  else if (what == 1)
    change (offset, length, true, false);
  else if (what == 2)
    change (offset + 100, length - 1000, rng_below (&rng, 2), false);
  else
    change (offset, length, false, false);
}

static void
client_step (void)
{
  unsigned first = (unsigned) rng_below (&rng, NPAGES), n = 1 + (unsigned) rng_below (&rng, 8);

  if (rng_below (&rng, 8) == 0)
    client_flush ();
  else
    client_change (first, first + n < NPAGES ? first + n : NPAGES);
}

/* Another client, between two calls of one that writes: its pages are others. Not while there is a job, which might wait for the
 * first, and hold the second up. */
static void
interlope (void)
{
  unsigned first = (unsigned) rng_below (&rng, NPAGES);
  unsigned was_first = busy_first, was_end = busy_end;

  if (busy_first == BUSY_NOT || rng_below (&rng, 4) > 0 || (first >= was_first && first < was_end))
    return;
  in_write = NULL;
  if (rng_below (&rng, 8) == 0)
    client_flush ();
  else
    client_change (first, first + 1);
  busy_first = was_first;
  busy_end = was_end;
  in_write = interlope;
}

static void
start_service (void)
{
  cr_assert_eq (service_start (&config, &service), 0, "%s", logged_last ());
  cr_assert_eq (live_create (&service, NULL, NULL, &live), 0);
}

static void
stop_service (void)
{
  struct flush flush;

  live_destroy (live);
  flush = begin_flush ();
  service_stop (&service);
  add_flush (&flush);
}

static bool
is_there (unsigned i)
{
  struct drum_device_info info;

  return drum_find (service.drum, device[i], &info);
}

/* A SIGKILL, as far as the files know. */
static void
kill_service (void)
{
  dying = true;
  live_destroy (live);
  service_stop (&service);
  dying = false;
}

/* Something that takes a while, with clients beside it, or without; or that is refused. */
static void
live_step (void)
{
  unsigned i = (unsigned) rng_below (&rng, 4);
  uint64_t job = 0;

  if (rng_below (&rng, 4) == 0) {
    if (rng_below (&rng, 2))
      stop_service ();
    else
      kill_service ();
    start_service ();
    if (rng_below (&rng, 2))
      client_flush ();
    return;
  }
  if (rng_below (&rng, 4) == 0) /* a device may leave without a page that is moved */
    change (0, NPAGES * PAGE_BYTES, true, true);
  if (rng_below (&rng, 3) == 0)
    live_rebalance (live, 0, &job);
  else if (is_there (i)) {
    bool may_go = i == 0 || is_there (1) + is_there (2) + is_there (3) > 1;

    if (may_go && rng_below (&rng, 4))
      live_remove (live, device[i], 0, false, &job);
    else
      live_set_priority (live, device[i], (int) rng_below (&rng, 10));
  } else {
    struct swapdev_spec new = { .path = device[i],
                                .prio = (int) rng_below (&rng, 10),
                                .create_bytes = i < 2 ? 0 : bytes_of (NSLOTS) };

    live_add (live, &new, &job);
  }
  in_write = NULL;
  for (unsigned n = job ? (unsigned) rng_below (&rng, 20) : 0; n > 0; n--)
    client_step ();
  if (job)
    jobs_wait (live_jobs (live), job);
  in_write = interlope;
}

/* Record from here on: a service on two devices with so many slots. */
static void
begin (uint32_t a_slots, uint32_t b_slots)
{
  static const unsigned char zeroes[PAGE_BYTES];

  client = pthread_self ();
  for (unsigned i = 0; i < 4; i++)
    device[i] = str ("%s/%c", root, 'a' + (int) i);
  for (unsigned i = 0; i < NPAGES; i++)
    *add_version (i, zeroes) = (struct version){ .acked = 0 };
  for (unsigned i = 0; i < 2; i++) {
    int fd;

    spec[i].path = device[i];
    spec[i].prio = 5 - (int) i;
    fd = open (spec[i].path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    cr_assert_geq (fd, 0);
    cr_assert_eq (ftruncate (fd, (off_t) bytes_of (i ? b_slots : a_slots)), 0);
    __wrap_fdatasync (fd);
    close (fd);
  }
  close (open (root, O_RDONLY | O_DIRECTORY)); /* know it by its number */
  record (SYNC_DIR, 0);
  config.state_dir = str ("%s/state", root);
  start_service ();
  started = now ();
}

static void
end_work (void)
{
  stop_service ();
  recording = false;
}

/* A workload of so many steps. */
static void
work (unsigned nsteps)
{
  begin (FEW_SLOTS, NSLOTS);
  in_write = interlope;
  for (unsigned i = 0; i < nsteps; i++)
    if (i % 16 == 15)
      live_step ();
    else
      client_step ();
  in_write = NULL;
  end_work ();
}

/* ---- what is on the disk ---- */

/* A file as it is for sure, and what was done to it since. */
struct disk_file {
  unsigned char *data;
  uint64_t size_bytes;
  const struct op **since;
  int nsince, max;
};

static struct disk_file disk[MAX_FILES];
static int disk_name[MAX_NAMES]; /* which file for sure */
static const struct op **names_since[2];
static int nnames_since[2];

static void
resize (struct disk_file *f, uint64_t size_bytes)
{
  f->data = realloc (f->data, size_bytes + 1);
  if (size_bytes > f->size_bytes)
    memset (f->data + f->size_bytes, 0, size_bytes - f->size_bytes);
  f->size_bytes = size_bytes;
}

/* Bytes [from, to) of what this op writes. */
static void
apply_part (struct disk_file *f, const struct op *op, uint64_t from, uint64_t to)
{
  if (to > f->size_bytes)
    resize (f, to);
  memcpy (f->data + from, op->data + (from - op->at), to - from);
}

static void
apply (struct disk_file *f, const struct op *op)
{
  if (op->kind == SIZE)
    resize (f, op->len);
  else
    apply_part (f, op, op->at, op->at + op->len);
}

static void
push (const struct op ***list, int *n, const struct op *op)
{
  if ((*n & (*n - 1)) == 0)
    *list = realloc (*list, (size_t) (*n ? 2 * *n : 1) * sizeof **list);
  (*list)[(*n)++] = op;
}

static void
apply_naming (int *name, const struct op *op)
{
  for (unsigned i = 0; i < op->nnamings; i++)
    name[op->naming[i].name] = op->naming[i].file;
}

/* It has happened. */
static void
disk_step (const struct op *op)
{
  struct disk_file *f = &disk[op->file];

  switch (op->kind) {
  case WRITE:
  case SIZE:
    push (&f->since, &f->nsince, op);
    break;
  case SYNC:
    for (int i = 0; i < f->nsince; i++)
      apply (f, f->since[i]);
    f->nsince = 0;
    break;
  case NAME:
    push (&names_since[op->file], &nnames_since[op->file], op);
    break;
  case SYNC_DIR:
    for (int i = 0; i < nnames_since[op->file]; i++)
      apply_naming (disk_name, names_since[op->file][i]);
    nnames_since[op->file] = 0;
    break;
  }
}

/* How all ends: before ops[at]. */
struct end {
  int at;
  bool power; /* or else by SIGKILL */
  bool torn;  /* in the middle of the last call */
};

/* How much of what was not synced is there: nothing, all, or some of it. */
enum share { NOTHING, EVERYTHING, SOME };

static enum share
draw_share (void)
{
  return (enum share) rng_below (&rng, 3);
}

/* What of it is there, sector by sector. */
static void
apply_some (struct disk_file *f, const struct op *const *since, int nsince)
{
  uint64_t salt = rng_next (&rng);

  for (int i = 0; i < nsince; i++) {
    const struct op *op = since[i];

    if (op->kind == SIZE && (rng_below (&rng, 2) || op->len > f->size_bytes))
      apply (f, op);
    for (uint64_t from = op->at, to; op->kind == WRITE && from < op->at + op->len; from = to) {
      struct rng sector = { salt + from / SECTOR * 7919 };

      to = (from / SECTOR + 1) * SECTOR;
      to = to < op->at + op->len ? to : op->at + op->len;
      if ((uint64_t) i < rng_below (&sector, (uint64_t) nsince + 1)) /* written out so late */
        apply_part (f, op, from, to);
    }
  }
}

/* The last write of a process that was killed may be there in part: up to the end of some page of the file. */
static void
apply_last (struct disk_file *f, const struct op *op)
{
  uint64_t npages = (op->at + op->len - 1) / PAGE_BYTES - op->at / PAGE_BYTES + 1;
  uint64_t end = (op->at / PAGE_BYTES + rng_below (&rng, npages + 1)) * PAGE_BYTES;

  end = end < op->at + op->len ? end : op->at + op->len;
  if (end > op->at)
    apply_part (f, op, op->at, end);
}

static void
write_file (const char *name, const struct disk_file *f)
{
  int fd = __real_open (str ("%s/%s", root, name), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

  cr_assert_geq (fd, 0, "%s: %m", name);
  cr_assert_eq (pwrite (fd, f->data, f->size_bytes, 0), (ssize_t) f->size_bytes);
  close (fd);
}

/* The files as they may be then. Returns whether there is a manifest. */
static bool
make_image (const struct end *end)
{
  int name[MAX_NAMES];
  bool has_state = false, has_manifest = false;

  memcpy (name, disk_name, sizeof name);
  for (int dir = 0; dir < 2; dir++) {
    int n =
      end->power ? (int) rng_below (&rng, (uint64_t) nnames_since[dir] + 1) : nnames_since[dir];

    for (int i = 0; i < n; i++)
      apply_naming (name, names_since[dir][i]);
  }
  for (int i = 0; i < nnames; i++)
    __real_unlink (str ("%s/%s", root, names[i]));
  rmdir (str ("%s/state", root));
  for (int i = 0; i < nnames; i++)
    if (strcmp (names[i], "state") == 0 && name[i] != NOBODY)
      has_state = __real_mkdir (str ("%s/state", root), 0700) == 0;
  for (int i = 0; i < nnames; i++) {
    struct disk_file f = { .data = NULL };
    const struct disk_file *from = &disk[name[i] == NOBODY ? 0 : name[i]];
    enum share share = end->power ? draw_share () : EVERYTHING;

    if (name[i] == NOBODY || strcmp (names[i], "state") == 0 ||
        (strchr (names[i], '/') && !has_state))
      continue;
    resize (&f, from->size_bytes);
    memcpy (f.data, from->data ? from->data : (unsigned char *) "", from->size_bytes);
    if (share == SOME)
      apply_some (&f, from->since, from->nsince);
    for (int k = 0; k < from->nsince && share == EVERYTHING; k++)
      if (end->torn && from->since[k] == &ops[end->at - 1])
        apply_last (&f, from->since[k]);
      else
        apply (&f, from->since[k]);
    write_file (names[i], &f);
    free (f.data);
    has_manifest = has_manifest || strcmp (names[i], "state/manifest") == 0;
  }
  return has_manifest;
}

/* ---- the check ---- */

static const struct flush *
last_flush (int end)
{
  int n = nflushes;

  while (n > 0 && flushes[n - 1].done > end)
    n--;
  return n > 0 ? &flushes[n - 1] : NULL;
}

static const char *
describe (const struct end *end)
{
  return str ("%s at op %d of %d",
              end->power  ? "power"
              : end->torn ? "kill in"
                          : "kill",
              end->at, nops);
}

/* What page i is: the number of its version, or NOBODY if it can't be read. */
static int
check_page (unsigned i, const struct end *end)
{
  const struct flush *flush = last_flush (end->at);
  int first = !end->power ? last_acked (i, end->at - end->torn) : flush ? flush->floor[i] : 0;
  int last = last_sent (i, end->at), n = last;
  unsigned char data[PAGE_BYTES];
  int ret = export_read (served (&service), data, PAGE_BYTES, i * PAGE_BYTES);

  if (ret < 0) {
    cr_assert (end->power && last > first,
               "%s: page %u can't be read, and is one of versions %d to %d: %s", describe (end), i,
               first, last, logged_last ());
    return NOBODY;
  }
  while (n >= first && memcmp (data, page[i].version[n].data, PAGE_BYTES) != 0)
    n--;
  cr_assert (n >= first, "%s: page %u is none of versions %d to %d", describe (end), i, first,
             last);
  return n;
}

static void
check_service (const struct end *end, int *is)
{
  uint64_t nused;

  for (unsigned i = 0; i < NPAGES; i++)
    is[i] = check_page (i, end);
  nused = drum_nused_anywhere (service.drum);
  cr_assert (drum_check (service.drum), "%s: the drum does not add up", describe (end));
  cr_assert_eq (nused, export_npages_used (served (&service)), "%s: %u slots for %u pages",
                describe (end), (unsigned) nused,
                (unsigned) export_npages_used (served (&service)));
}

/* Start again, and sometimes once more. */
static void
check_end (const struct end *end)
{
  bool has_manifest = make_image (end);
  int was[NPAGES], is[NPAGES], ret;

  cr_assert (has_manifest || end->at < started, "%s: there is no manifest", describe (end));
  logged_start ();
  boot += end->power;
  ret = service_start (&config, &service);
  if (ret < 0 && end->at < started)
    return;
  cr_assert_eq (ret, 0, "%s: no start: %s", describe (end), logged_last ());
  check_service (end, was);
  service_stop (&service);
  if (end->at % 4)
    return;
  cr_assert_eq (service_start (&config, &service), 0, "%s: no second start: %s", describe (end),
                logged_last ());
  check_service (end, is);
  cr_assert_arr_eq (is, was, sizeof was, "%s: the second start has changed pages", describe (end));
  service_stop (&service);
}

static void
setup (void)
{
  scratch_setup ();
  logged_start ();
  root = scratch_path ("root");
  cr_assert_eq (__real_mkdir (root, 0700), 0);
  for (int i = 0; i < 1024; i++)
    fd_file[i] = fd_dir[i] = NOBODY;
  for (int i = 0; i < MAX_NAMES; i++)
    disk_name[i] = NOBODY;
  recording = true;
}

TestSuite (power, .init = setup, .fini = scratch_teardown, .timeout = 900);

/* How it may end: about nends times, at random. */
static void
check_ends (unsigned nends)
{
  for (struct end end = { .at = 1 }; end.at <= nops; end.at++) {
    const struct op *last = &ops[end.at - 1];

    disk_step (last);
    if (rng_below (&rng, (uint64_t) nops) >= nends)
      continue;
    end.torn = last->kind == WRITE && rng_below (&rng, 2);
    check_end (&end);
    check_end (&(struct end){ .at = end.at, .power = true });
  }
}

Test (power, nothing_flushed_is_lost)
{
  rng = rng_for (1);
  work (random_steps (160));
  check_ends (random_steps (300));
}

Test (power, nothing_acknowledged_is_lost_with_sync)
{
  rng = rng_for (2);
  config.sync = true;
  work (random_steps (80));
  check_ends (random_steps (300));
}

/* Pages that were flushed rise, and others take their places at once. */
Test (power, places_of_pages_that_rise)
{
  enum { NRISE = 8 }; /* in one piece: the next would sync them */
  uint64_t job;

  rng = rng_for (3);
  begin (FEW_SLOTS, FEW_SLOTS);
  change (0, NPAGES * PAGE_BYTES, false, false);
  change (0, NRISE * PAGE_BYTES, true, true);
  client_flush ();
  cr_assert_eq (live_rebalance (live, 0, &job), 0);
  jobs_wait (live_jobs (live), job);
  for (unsigned i = 0; i < NRISE; i++)
    change (i * PAGE_BYTES, PAGE_BYTES, false, false);
  end_work ();
  check_ends (UINT_MAX);
}

/* What a server that was killed has not synced is flushed by the next one. */
Test (power, flushes_after_a_kill)
{
  rng = rng_for (4);
  begin (FEW_SLOTS, NSLOTS);
  for (unsigned i = 0; i < 4; i++) {
    change (0, NPAGES * PAGE_BYTES, false, false);
    kill_service ();
    start_service ();
    client_flush ();
    client_change (i, i + 1);
  }
  end_work ();
  check_ends (UINT_MAX);
}
