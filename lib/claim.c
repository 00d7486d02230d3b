/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "claim.h"

#include <blkid/blkid.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "stats.h"
#include "units.h"

enum { FOREIGN_CHECK_BYTES = 1 << 20 };

/* The rings (io_uring) of a process that was killed keep what it had open, with its locks, until their I/O has ended: a
 * while longer than there is a process to name. That I/O must be over before anyone else writes there. */
#define GHOST_NS (5 * UINT64_C (1000000000))

enum { GHOST_LOOK_NS = 10 * 1000 * 1000 };

/* A process that has the file open. */
struct holder {
  int pid;
  char command[32];
  char path[PATH_MAX]; /* as it names the file */
};

static bool
same_file (const struct stat *a, const struct stat *b)
{
  if (S_ISBLK (a->st_mode) && S_ISBLK (b->st_mode))
    return a->st_rdev == b->st_rdev;
  return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Does process pid have the file open, through another descriptor than our own one? */
static bool
holds (int pid, int own_fd, const struct stat *st, struct holder *holder)
{
  char name[64 + 256];
  struct dirent *entry;
  bool found = false;
  DIR *dir;

  snprintf (name, sizeof name, "/proc/%d/fd", pid);
  dir = opendir (name);
  if (!dir)
    return false; /* not ours to look at */
  while (!found && (entry = readdir (dir))) {
    struct stat other;
    ssize_t len;

    if (entry->d_name[0] == '.' || (pid == getpid () && atoi (entry->d_name) == own_fd))
      continue;
    snprintf (name, sizeof name, "/proc/%d/fd/%s", pid, entry->d_name);
    if (stat (name, &other) == -1 || !same_file (st, &other))
      continue;
    len = readlink (name, holder->path, sizeof holder->path - 1);
    if (len < 0)
      continue;
    holder->path[len] = '\0';
    holder->pid = pid;
    found = true;
  }
  closedir (dir);
  return found;
}

static void
read_command (struct holder *holder)
{
  char name[64];
  FILE *f;

  strcpy (holder->command, "?");
  snprintf (name, sizeof name, "/proc/%d/comm", holder->pid);
  f = fopen (name, "re");
  if (!f)
    return;
  if (fgets (holder->command, sizeof holder->command, f))
    holder->command[strcspn (holder->command, "\n")] = '\0';
  fclose (f);
}

/* Ourselves first: the usual mistake is a name given twice. */
static bool
find_holder (int own_fd, const struct stat *st, struct holder *holder)
{
  bool found = holds (getpid (), own_fd, st, holder);
  struct dirent *entry;
  DIR *dir;

  if (found || !(dir = opendir ("/proc")))
    return found;
  while (!found && (entry = readdir (dir))) {
    int pid = atoi (entry->d_name);

    found = pid > 0 && holds (pid, own_fd, st, holder);
  }
  closedir (dir);
  if (found)
    read_command (holder);
  return found;
}

static int
say_busy (int own_fd, const char *path, const struct stat *st, const char *otherwise)
{
  struct holder holder;

  if (!find_holder (own_fd, st, &holder))
    log_error ("%s: %s", path, otherwise);
  else if (holder.pid == getpid ())
    log_error ("%s: is the same file as %s, which this drum has already: name each device once",
               path, holder.path);
  else
    log_error ("%s: is in use%s by process %d (%s) as %s: a device belongs to one server at a time",
               path, S_ISBLK (st->st_mode) ? ", perhaps" : "", holder.pid, holder.command,
               holder.path);
  return -EBUSY;
}

/* It is busy: might it be free a moment later? If so, waits for that moment; *until_ns is 0 at first. */
static bool
may_be_ghost (int own_fd, const struct stat *st, uint64_t *until_ns)
{
  struct holder holder;

  if (*until_ns == 0) {
    if (find_holder (own_fd, st, &holder))
      return false;
    *until_ns = now_ns () + GHOST_NS;
  }
  if (now_ns () >= *until_ns)
    return false;
  nanosleep (&(struct timespec){ .tv_nsec = GHOST_LOOK_NS }, NULL);
  return true;
}

int
claim_open (const char *path, const struct stat *st, int flags)
{
  uint64_t until_ns = 0;

  for (;;) {
    int fd = open (path, flags), err = errno;

    if (fd >= 0)
      return fd;
    if (err == EBUSY && may_be_ghost (-1, st, &until_ns))
      continue;
    if (err == EBUSY)
      return say_busy (-1, path, st,
                       "is in use by the kernel (mounted, a swap device, part of RAID, LVM or a "
                       "loop): free it first");
    log_error ("%s: can't be opened for reading and writing: %s", path, strerror (err));
    return -err;
  }
}

int
claim_lock (int fd, const char *path, const struct stat *st)
{
  uint64_t until_ns = 0;

  while (flock (fd, LOCK_EX | LOCK_NB) == -1) {
    int err = errno;

    if (err == EWOULDBLOCK && may_be_ghost (fd, st, &until_ns))
      continue;
    if (err == EWOULDBLOCK)
      return say_busy (fd, path, st, "is locked by another process, perhaps a second server");
    log_error ("%s: can't be locked (flock): %s: use a file system with locks", path,
               strerror (err));
    return -err;
  }
  return 0;
}

int
claim_signature (int fd, uint64_t size_bytes, char *name, size_t name_size)
{
  blkid_probe probe = blkid_new_probe ();
  const char *value;
  int ret;

  if (!probe)
    return -ENOMEM;
  errno = 0;
  if (blkid_probe_set_device (probe, fd, 0, (blkid_loff_t) size_bytes) != 0) {
    ret = errno ? -errno : -EIO;
    goto out;
  }
  blkid_probe_enable_superblocks (probe, 1);
  blkid_probe_set_superblocks_flags (probe, BLKID_SUBLKS_TYPE);
  blkid_probe_enable_partitions (probe, 1);
  ret = blkid_do_safeprobe (probe);
  if (ret == 1) {
    ret = 0;
  } else if (ret == -1) {
    ret = errno ? -errno : -EIO;
  } else { /* one, or several that contradict one another */
    if (blkid_probe_lookup_value (probe, "TYPE", &value, NULL) != 0 &&
        blkid_probe_lookup_value (probe, "PTTYPE", &value, NULL) != 0)
      value = "several kinds";
    snprintf (name, name_size, "%s", value);
    ret = 1;
  }
out:
  blkid_free_probe (probe);
  return ret;
}

/* 1 if the first MiB holds anything but zeroes, 0 if not, -errno. */
static int
start_is_written (int fd, uint64_t size_bytes)
{
  unsigned char buf[PAGE_BYTES];
  uint64_t end = size_bytes < FOREIGN_CHECK_BYTES ? size_bytes : FOREIGN_CHECK_BYTES;

  for (uint64_t at = 0; at < end;) {
    ssize_t n = pread (fd, buf, sizeof buf, (off_t) at);

    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return n < 0 ? -errno : -EIO;
    at += (uint64_t) n;
    for (ssize_t i = 0; i < n; i++)
      if (buf[i])
        return 1;
  }
  return 0;
}

int
claim_check_foreign (int fd, const char *path, const struct stat *st, uint64_t size_bytes)
{
  char name[64];
  int ret = claim_signature (fd, size_bytes, name, sizeof name);

  if (ret > 0) {
    log_error ("%s: holds a signature of %s: give force=yes (drumctl: --force) if what is on it "
               "may be overwritten",
               path, name);
    return -EEXIST;
  }
  if (ret == 0 && S_ISREG (st->st_mode))
    ret = start_is_written (fd, size_bytes);
  if (ret > 0) {
    log_error ("%s: is not empty (its first MiB is not all zero): give force=yes (drumctl: "
               "--force) if it may be overwritten",
               path);
    return -EEXIST;
  }
  if (ret < 0)
    log_error ("%s: can't be read to see whether it holds data: %s", path, strerror (-ret));
  return ret;
}
