/* SPDX-License-Identifier: BSD-3-Clause
 *
 * faults.c - see faults.h: the side that steers.
 */
#include <config.h>

#include "faults.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct faults *
faults_open (const char *path)
{
  int fd = open (path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  void *f = MAP_FAILED;

  if (fd == -1)
    return NULL;
  fchmod (fd, 0666); /* a server may run as another user */
  if (ftruncate (fd, sizeof (struct faults)) == 0)
    f = mmap (NULL, sizeof (struct faults), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close (fd);
  return f == MAP_FAILED ? NULL : f;
}

struct faults_rule *
faults_add (struct faults *f, const char *path, const struct faults_plan *plan)
{
  if (strlen (path) >= FAULTS_PATH)
    return NULL;
  for (unsigned i = 0; i < FAULTS_RULES; i++) {
    unsigned n = (f->next_rule + i) % FAULTS_RULES;
    struct faults_rule *rule = &f->rule[n];

    if (atomic_load (&rule->on))
      continue;
    f->next_rule = n + 1;
    strcpy (rule->path, path);
    rule->plan = *plan;
    atomic_store (&rule->ncalls, 0);
    atomic_store (&rule->nacted, 0);
    atomic_store (&rule->on, true);
    return rule;
  }
  return NULL;
}

struct faults_disk *
faults_add_disk (struct faults *f, const char *path, uint32_t page_us, uint32_t seek_us)
{
  if (strlen (path) >= FAULTS_PATH)
    return NULL;
  for (unsigned i = 0; i < FAULTS_DISKS; i++) {
    struct faults_disk *disk = &f->disk[i];

    if (atomic_load (&disk->on))
      continue;
    strcpy (disk->path, path);
    disk->page_us = page_us;
    disk->seek_us = seek_us;
    disk->head = disk->free_ns = 0;
    atomic_store (&disk->ncalls, 0);
    atomic_store (&disk->busy_ns, 0);
    atomic_store (&disk->on, true);
    return disk;
  }
  return NULL;
}

void
faults_remove (struct faults_rule *rule)
{
  atomic_store (&rule->on, false);
}

void
faults_remove_disk (struct faults_disk *disk)
{
  atomic_store (&disk->on, false);
}

void
faults_watch_memory (struct faults *f, const char *spared)
{
  struct faults_memory *m = &f->memory;

  snprintf (m->spared, sizeof m->spared, "%s", spared);
  memset (m->take, 0, sizeof m->take);
  atomic_store (&m->nplugin, 0);
  atomic_store (&m->nserver, 0);
  atomic_store (&m->watch, true);
}

void
faults_ignore_memory (struct faults *f)
{
  atomic_store (&f->memory.watch, false);
}

void
faults_wait (const _Atomic uint64_t *counter, uint64_t n)
{
  while (atomic_load (counter) < n)
    nanosleep (&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}
