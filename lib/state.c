/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "devio.h"
#include "drum.h"
#include "log.h"
#include "manifest.h"
#include "mapfile.h"
#include "mutex.h"
#include "pagesum.h"
#include "units.h"

static const char lock_name[] = "lock", map_prefix[] = "map-";

enum { MAP_NAME_BYTES = 32 };

struct state {
  char *dir;
  int dirfd, lockfd;
  bool made_dir, made_lock; /* by us, at this start */
  bool durable, sync_writes;
  bool found;               /* there was a manifest when it was opened */
  struct mutex updating;    /* all four of these */
  struct manifest manifest; /* as it is; is changed with the other mutex, too */
  struct manifest before;   /* as it was when it was opened */
  bool updated;
  struct drum *drum;
  struct mutex mutex; /* all below */
  pthread_cond_t synced;
  bool syncing;
  uint64_t nstarted, nended; /* syncs */
  uint64_t nlast_failed;     /* number of the last one that failed */
  struct mapfile **files;
  unsigned nfiles;
};

static int
complain (const char *dir, const char *what)
{
  int err = errno;

  log_error ("state=: %s: %s: %s", dir, what, strerror (err));
  return -err;
}

static int
open_dir (struct state *s)
{
  struct statfs fs;

  if (mkdir (s->dir, 0700) == 0)
    s->made_dir = true;
  else if (errno != EEXIST)
    return complain (s->dir, "can't be created");
  if (s->made_dir && (errno = -devio_sync_name (s->dir)) != 0)
    return complain (s->dir, "can't be made durable");
  s->dirfd = open (s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (s->dirfd < 0 || fstatfs (s->dirfd, &fs) == -1)
    return complain (s->dir, "can't be opened");
  s->durable = fs.f_type != TMPFS_MAGIC && fs.f_type != RAMFS_MAGIC;
  return 0;
}

/* flock, which outlives the fork into the background, and no SIGKILL. */
static int
lock_dir (struct state *s)
{
  s->made_lock = faccessat (s->dirfd, lock_name, F_OK, 0) == -1;
  s->lockfd = openat (s->dirfd, lock_name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (s->lockfd < 0)
    return complain (s->dir, "its lock can't be opened");
  if (flock (s->lockfd, LOCK_EX | LOCK_NB) == 0)
    return 0;
  if (errno != EWOULDBLOCK)
    return complain (s->dir, "can't be locked");
  s->made_lock = false;
  log_error ("state=: %s: another server uses it: stop that one first, or give each its own folder",
             s->dir);
  return -EBUSY;
}

static DIR *
list (const struct state *s)
{
  int fd = openat (s->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *dir = fd < 0 ? NULL : fdopendir (fd);

  if (!dir && fd >= 0)
    close (fd);
  return dir;
}

/* Without a manifest there must be no maps, either. */
static int
check_empty (struct state *s)
{
  const struct dirent *entry;
  DIR *dir = list (s);
  int ret = 0;

  if (!dir)
    return complain (s->dir, "can't be listed");
  while ((entry = readdir (dir)))
    if (strncmp (entry->d_name, map_prefix, strlen (map_prefix)) == 0)
      ret = -EBADMSG;
  closedir (dir);
  if (ret < 0)
    log_error ("state=: %s: has page maps, and its file %s is missing: put that back, or empty the "
               "folder to start without pages",
               s->dir, MANIFEST_NAME);
  return ret;
}

static int
read_manifest (struct state *s)
{
  int ret = manifest_load (s->dirfd, s->dir, &s->manifest);

  if (ret == -ENOENT)
    return check_empty (s);
  s->found = ret == 0;
  return ret;
}

int
state_open (const char *dir, bool sync, struct state **sp)
{
  struct state *s = calloc (1, sizeof *s);
  int ret;

  if (!s || !(s->dir = strdup (dir))) {
    free (s);
    return -ENOMEM;
  }
  s->dirfd = s->lockfd = -1;
  s->sync_writes = sync;
  mutex_init (&s->mutex);
  mutex_init (&s->updating);
  pthread_cond_init (&s->synced, NULL);
  if ((ret = open_dir (s)) < 0 || (ret = lock_dir (s)) < 0 || (ret = read_manifest (s)) < 0) {
    state_undo (s);
    return ret;
  }
  *sp = s;
  return 0;
}

void
state_close (struct state *s)
{
  if (s->lockfd >= 0)
    close (s->lockfd); /* gives the lock back, too */
  if (s->dirfd >= 0)
    close (s->dirfd);
  pthread_cond_destroy (&s->synced);
  mutex_destroy (&s->updating);
  mutex_destroy (&s->mutex);
  manifest_free (&s->manifest);
  manifest_free (&s->before);
  free (s->files);
  free (s->dir);
  free (s);
}

static void
map_name (uint64_t number, char name[MAP_NAME_BYTES])
{
  snprintf (name, MAP_NAME_BYTES, "%s%" PRIu64, map_prefix, number);
}

/* Is this the name of a map file that the manifest does not know? */
static bool
is_unknown_map (const struct manifest *m, const char *name)
{
  uint64_t number;
  char *end;

  if (strncmp (name, map_prefix, strlen (map_prefix)) != 0)
    return false;
  number = strtoull (name + strlen (map_prefix), &end, 10);
  for (unsigned i = 0; i < m->nexports && !*end; i++)
    if (m->exports[i].number == number)
      return false;
  return true;
}

static int
remove_unknown_maps (struct state *s, const struct manifest *m)
{
  const struct dirent *entry;
  DIR *dir = list (s);

  if (!dir)
    return complain (s->dir, "can't be listed");
  while ((entry = readdir (dir)))
    if (is_unknown_map (m, entry->d_name))
      unlinkat (s->dirfd, entry->d_name, 0);
  closedir (dir);
  return 0;
}

/* Put the manifest back, and remove the maps that only the new one knows. */
static void
undo_updates (struct state *s)
{
  remove_unknown_maps (s, &s->before);
  if (s->found)
    manifest_save (s->dirfd, s->dir, &s->before);
  else
    unlinkat (s->dirfd, MANIFEST_NAME, 0);
}

/* The manifest is the one from before, but takes labels of either generation, so that a kill in the midst of it does no harm. */
void
state_begin_undo (struct state *s)
{
  struct manifest m;

  if (!s->updated || manifest_copy (&s->before, &m) < 0)
    return;
  uuid_copy (m.state, s->manifest.state);
  uuid_copy (m.drum, s->manifest.drum);
  m.generation = s->manifest.generation;
  m.starting = true;
  manifest_save (s->dirfd, s->dir, &m);
  manifest_free (&m);
}

void
state_undo (struct state *s)
{
  if (s->updated)
    undo_updates (s);
  if (s->made_lock)
    unlinkat (s->dirfd, lock_name, 0);
  if (s->made_dir)
    rmdir (s->dir);
  state_close (s);
}

const char *
state_dir (const struct state *s)
{
  return s->dir;
}

bool
state_is_durable (const struct state *s)
{
  return s->durable;
}

bool
state_syncs_writes (const struct state *s)
{
  return s->sync_writes;
}

const struct manifest *
state_manifest (const struct state *s)
{
  return s->found ? &s->manifest : NULL;
}

int
state_update (struct state *s,
              int (*compose) (void *opaque, const struct manifest *before, struct manifest *m),
              void *opaque)
{
  struct manifest m = { .ndevices = 0 };
  int ret;

  mutex_lock (&s->updating);
  ret = compose (opaque, &s->manifest, &m);
  if (ret == 0)
    ret = manifest_save (s->dirfd, s->dir, &m);
  if (ret < 0)
    manifest_free (&m);
  else {
    mutex_lock (&s->mutex);
    if (s->updated)
      manifest_free (&s->manifest);
    else
      s->before = s->manifest;
    s->manifest = m;
    mutex_unlock (&s->mutex);
    s->updated = true;
  }
  mutex_unlock (&s->updating);
  return ret;
}

bool
state_export (struct state *s, uint64_t number, struct manifest_export *known)
{
  const struct manifest *m = &s->manifest;
  bool found = false, is_target = false;

  mutex_lock (&s->mutex);
  for (unsigned i = 0; i < m->nexports; i++) {
    is_target = is_target || m->exports[i].moving_to == number;
    if (m->exports[i].number == number) {
      *known = m->exports[i];
      known->name = known->given = known->pattern = NULL;
      found = true;
    }
  }
  if (found && is_target)
    known->moving_to = number;
  mutex_unlock (&s->mutex);
  return found;
}

int
state_map (struct state *s, uint64_t number, uint64_t npages, bool create, struct mapfile **mf)
{
  char name[MAP_NAME_BYTES];

  map_name (number, name);
  return create ? mapfile_create (s->dirfd, s->dir, name, npages, mf)
                : mapfile_open (s->dirfd, s->dir, name, npages, mf);
}

int
state_repair_map (struct state *s, uint64_t number, uint64_t npages, uint64_t *nlost)
{
  char name[MAP_NAME_BYTES];

  map_name (number, name);
  return mapfile_repair (s->dirfd, s->dir, name, npages, nlost);
}

int
state_finish_resize (struct state *s, uint64_t number, uint64_t from_npages, uint64_t to_npages)
{
  char name[MAP_NAME_BYTES];

  map_name (number, name);
  return mapfile_finish_resize (s->dirfd, s->dir, name, from_npages, to_npages);
}

int
state_finish_pass (struct state *s, const struct manifest_export *from,
                   const struct manifest_export *to)
{
  uint64_t from_npages = from->size_bytes >> PAGE_SHIFT, to_npages = to->size_bytes >> PAGE_SHIFT;
  struct mapfile *from_map = NULL, *to_map = NULL;
  int ret = state_finish_resize (s, from->number, 0, from_npages); /* see mapfile_empty */

  if (ret == 0)
    ret = state_map (s, from->number, from_npages, false, &from_map);
  if (ret == 0)
    ret = state_map (s, to->number, to_npages, false, &to_map);
  if (ret == 0)
    ret = mapfile_pass (from_map, to_map, pagesum_export_key (from->name),
                        pagesum_export_key (to->name));
  if (from_map)
    mapfile_close (from_map);
  if (to_map)
    mapfile_close (to_map);
  return ret;
}

void
state_remove_map (struct state *s, uint64_t number)
{
  char name[MAP_NAME_BYTES];

  map_name (number, name);
  unlinkat (s->dirfd, name, 0);
}

int
state_sweep (struct state *s)
{
  return remove_unknown_maps (s, &s->manifest);
}

void
state_set_drum (struct state *s, struct drum *d)
{
  s->drum = d;
}

int
state_keep (struct state *s, struct mapfile *mf)
{
  struct mapfile **more;

  mutex_lock (&s->mutex);
  more = realloc (s->files, (s->nfiles + 1) * sizeof (struct mapfile *));
  if (more) {
    s->files = more;
    s->files[s->nfiles++] = mf;
  }
  mutex_unlock (&s->mutex);
  return more ? 0 : -ENOMEM;
}

void
state_forget (struct state *s, struct mapfile *mf)
{
  mutex_lock (&s->mutex);
  while (s->syncing)
    mutex_wait (&s->mutex, &s->synced);
  for (unsigned i = 0; i < s->nfiles; i++)
    if (s->files[i] == mf) {
      s->files[i] = s->files[--s->nfiles];
      break;
    }
  mutex_unlock (&s->mutex);
}

/* => s->syncing is ours, so none goes; some may come. NULL: there are not so many. */
static struct mapfile *
get_file (struct state *s, unsigned i)
{
  struct mapfile *mf;

  mutex_lock (&s->mutex);
  mf = i < s->nfiles ? s->files[i] : NULL;
  mutex_unlock (&s->mutex);
  return mf;
}

/* => s->syncing is ours. */
static int
sync_maps (struct state *s)
{
  struct mapfile *mf;
  int ret = 0;

  for (unsigned i = 0; (mf = get_file (s, i)); i++) {
    int err = mapfile_sync (mf);

    ret = ret < 0 ? ret : err;
  }
  return ret;
}

/* => s->syncing is ours. What the maps name is on the devices first. */
static int
sync_all (struct state *s)
{
  int ret = drum_sync (s->drum), err = sync_maps (s);

  return ret < 0 ? ret : err;
}

/* Nobody syncs until end_sync. */
static void
begin_sync (struct state *s)
{
  mutex_lock (&s->mutex);
  while (s->syncing)
    mutex_wait (&s->mutex, &s->synced);
  s->syncing = true;
  mutex_unlock (&s->mutex);
}

static void
end_sync (struct state *s)
{
  mutex_lock (&s->mutex);
  s->syncing = false;
  pthread_cond_broadcast (&s->synced);
  mutex_unlock (&s->mutex);
}

int
state_sync_maps (struct state *s)
{
  int ret;

  if (!s->durable)
    return 0;
  begin_sync (s);
  ret = sync_maps (s);
  end_sync (s);
  return ret;
}

int
state_sync_names (struct state *s, struct mapfile *mf)
{
  int ret = 0;

  if (!s->durable)
    return 0;
  if (mf)
    ret = mapfile_sync (mf);
  return ret == 0 && fsync (s->dirfd) == -1 ? -errno : ret;
}

int
state_sync (struct state *s)
{
  uint64_t wanted;
  int ret = 0;

  if (!s->durable)
    return 0;
  mutex_lock (&s->mutex);
  wanted = s->nstarted + 1; /* one that begins after this */
  while (s->nended < wanted) {
    if (s->syncing) {
      mutex_wait (&s->mutex, &s->synced);
      continue;
    }
    s->syncing = true;
    s->nstarted++;
    mutex_unlock (&s->mutex);
    ret = sync_all (s);
    mutex_lock (&s->mutex);
    s->syncing = false;
    s->nended = s->nstarted;
    if (ret < 0)
      s->nlast_failed = s->nended;
    pthread_cond_broadcast (&s->synced);
  }
  ret = s->nlast_failed >= wanted ? -EIO : 0;
  mutex_unlock (&s->mutex);
  return ret;
}
