/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "scrub.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "drum-devices.h"
#include "export.h"
#include "exports.h"
#include "job.h"
#include "log.h"
#include "memlock.h"
#include "pages.h"
#include "units.h"

enum { BUFFER_BYTES = SCRUB_PIECE * PAGE_BYTES };

struct walk {
  struct job *job;
  const struct scrub *scrub;
  struct pages_check check;
  const struct export *export;   /* the one that is walked */
  uint64_t total, nread;         /* pages; total as far as was known at the begin */
  uint64_t nfailed, nmismatches; /* of those that were read */
};

static void
note_unreadable (void *opaque, uint64_t page, int err)
{
  struct walk *walk = opaque;

  if (err == -EBADMSG)
    walk->nmismatches++;
  else
    walk->nfailed++;
  job_unreadable (walk->job, export_name (walk->export), page);
}

/* Which slots, and how many pages are there? */
static int
choose (struct walk *walk)
{
  const struct scrub *scrub = walk->scrub;
  struct drum_device_info info;

  walk->check.first_slot = 1;
  walk->check.end_slot = SLOT_LOST;
  for (struct export *e = NULL; (e = exports_next (scrub->exports, e));)
    walk->total += export_npages_used (e);
  if (!scrub->dev)
    return 0;
  if (!drum_device (scrub->drum, scrub->dev, &info))
    return -ENODEV;
  walk->check.first_slot = info.first;
  walk->check.end_slot = info.end;
  walk->total = info.nslots - info.nfree;
  return 0;
}

/* Tell how far we are; and is there anything to go on with? */
static int
look_up (struct walk *walk)
{
  const struct scrub *scrub = walk->scrub;
  struct drum_device_info info;

  job_progress (walk->job, walk->nread * PAGE_BYTES,
                (walk->nread > walk->total ? walk->nread : walk->total) * PAGE_BYTES);
  return !scrub->dev ||
             (drum_device (scrub->drum, scrub->dev, &info) && info.first == walk->check.first_slot)
           ? 0
           : -ENODEV;
}

static int
walk_export (struct walk *walk, struct export *e)
{
  unsigned max = job_piece_bytes (walk->job, BUFFER_BYTES) / PAGE_BYTES;
  uint64_t page = 0;
  int ret = look_up (walk);

  walk->export = e;
  if (!export_has_checksums (e))
    log_warning ("export \"%s\": has no checksums (checksum=no): of its pages only those are found "
                 "that can't be read at all",
                 export_name (e));
  while (page != UINT64_MAX && ret == 0) {
    unsigned n = export_check (e, &page, max, &walk->check);

    walk->nread += n;
    ret = look_up (walk);
    if (ret == 0)
      ret = job_pace (walk->job, n * PAGE_BYTES);
  }
  return ret;
}

/* What has been found, also if it is not all. */
static void
say_result (const struct walk *walk, int ret)
{
  const char *name = walk->scrub->name;
  uint64_t nbad = walk->nfailed + walk->nmismatches;

  if (nbad > 0)
    log_warning ("%s: %" PRIu64 " of %" PRIu64 " pages can't be read: %" PRIu64
                 " with an I/O error, %" PRIu64 " with a wrong checksum",
                 name, nbad, walk->nread, walk->nfailed, walk->nmismatches);
  else if (ret == 0)
    log_notice ("%s: has been scrubbed: all of its %" PRIu64 " pages can be read", name,
                walk->nread);
  if (ret < 0 && ret != -ECANCELED)
    log_error ("%s: can't be scrubbed: %s", name,
               ret == -ENODEV ? "it has left the drum" : strerror (-ret));
}

int
scrub_run (struct job *job, const struct scrub *scrub)
{
  void *buf = memlock_pages (BUFFER_BYTES);
  struct walk walk = { .job = job, .scrub = scrub };
  struct export *e = NULL;
  int ret = buf ? 0 : -ENOMEM;

  walk.check.buf = buf;
  walk.check.unreadable = note_unreadable;
  walk.check.opaque = &walk;
  if (ret == 0)
    ret = choose (&walk);
  while (ret == 0 && (e = exports_next (scrub->exports, e)))
    ret = walk_export (&walk, e);
  if (e)
    export_release (e);
  if (ret == 0)
    job_progress (job, walk.nread * PAGE_BYTES, walk.nread * PAGE_BYTES);
  say_result (&walk, ret);
  if (buf)
    munmap (buf, BUFFER_BYTES);
  return ret;
}
