/* SPDX-License-Identifier: BSD-3-Clause
 *
 * restore.c - see restore.h. First every map is read, and each run of slots claimed for the first page that names it. Slots that were
 * taken already are disputed: in a second pass over the maps each page that names one is looked at.
 */
#include <config.h>

#include "restore.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "drum-health.h"
#include "drum.h"
#include "export.h"
#include "log.h"
#include "mapfile.h"
#include "pagemap.h"
#include "units.h"

enum {
  AHEAD = 16
}; /* entries whose slots are fetched from memory: a third of the time where they are in random order */

struct disputed {
  uint32_t slot;
  bool awarded;
};

struct pass {
  const struct restore *r;
  struct export *export;
  uint64_t npages; /* of the export */
  uint64_t nlost;
  struct disputed *disputed; /* ascending slots, from the second pass on */
  size_t ndisputed, max_disputed;
};

static int
refuse (const struct pass *pass, uint64_t page, const char *what)
{
  log_error (
    "state=: %s: export \"%s\", page %" PRIu64
    ": %s: the state is damaged: put a good one back, or give state-repair=yes to lose such pages",
    pass->r->dir, export_name (pass->export), page, what);
  return -EBADMSG;
}

/* The page is lost: also in the file, so that it stays so. */
static int
lose (struct pass *pass, uint64_t page)
{
  struct pagemap_entry lost = { .slot = SLOT_LOST };
  struct mapfile *mf = export_file (pass->export);
  int error;

  if (mapfile_write (mf, page, &lost, 1, &error) == 0) {
    log_error ("state=: %s: can't be written: %s", mapfile_path (mf), strerror (-error));
    return error;
  }
  export_restore (pass->export, page, lost);
  pass->nlost++;
  return 0;
}

static int
damage (struct pass *pass, uint64_t page, const char *what)
{
  return pass->r->repair ? lose (pass, page) : refuse (pass, page, what);
}

/* More than one page names this slot. */
static int
dispute (struct pass *pass, uint64_t page, uint32_t slot)
{
  if (!pass->r->rebooted && !pass->r->repair)
    return refuse (pass, page, "its slot is another page's, too");
  if (pass->ndisputed == pass->max_disputed) {
    size_t max = pass->max_disputed ? 2 * pass->max_disputed : 64;
    struct disputed *more = realloc (pass->disputed, max * sizeof *more);

    if (!more) {
      log_error ("state=: %s: no memory to look at all pages that share a slot", pass->r->dir);
      return -ENOMEM;
    }
    pass->disputed = more;
    pass->max_disputed = max;
  }
  pass->disputed[pass->ndisputed++] = (struct disputed){ .slot = slot };
  return 0;
}

/* This page's slot could not be claimed. */
static int
not_claimed (struct pass *pass, uint64_t page, uint32_t slot)
{
  switch (drum_slot_kind (pass->r->drum, slot)) {
  case DRUM_SLOT_GOOD:
    return dispute (pass, page, slot);
  case DRUM_SLOT_BAD: /* the label knew at once; the entry of a page that went elsewhere was not flushed */
    return pass->r->rebooted ? lose (pass, page) : damage (pass, page, "its slot is bad");
  case DRUM_SLOT_NONE:
    break;
  }
  return damage (pass, page, "its slot is on no device");
}

/* n pages from page on have consecutive slots. */
static int
claim (struct pass *pass, uint64_t page, const struct pagemap_entry *entry, unsigned n)
{
  int ret = 0;

  for (unsigned i = 0; i < n && ret == 0; i++) {
    struct slot_run run = { .first = entry[i].slot, .n = n - i };
    unsigned claimed = drum_claim (pass->r->drum, run);

    for (unsigned end = i + claimed; i < end; i++)
      export_restore (pass->export, page + i, entry[i]);
    if (i == n)
      break;
    ret = not_claimed (pass, page + i, entry[i].slot);
  }
  return ret;
}

/* How many of the entries, from the first on, have consecutive slots? */
static unsigned
run_length (const struct pagemap_entry *entry, unsigned n)
{
  unsigned i = 1;

  while (i < n && pagemap_has_slot (entry[i]) && entry[i].slot == entry[i - 1].slot + 1)
    i++;
  return i;
}

/* First pass: give each slot to the first page that names it. */
static int
claim_all (void *opaque, uint64_t page, const struct pagemap_entry *entry, unsigned n)
{
  struct pass *pass = opaque;
  int ret = 0;

  for (unsigned i = 0, k; i < n && ret == 0; i += k) {
    k = 1;
    if (i + AHEAD < n)
      drum_prefetch (pass->r->drum, entry[i + AHEAD].slot);
    if (pagemap_has_slot (entry[i])) {
      k = run_length (entry + i, n - i);
      ret = claim (pass, page + i, entry + i, k);
    } else if (entry[i].slot == SLOT_LOST)
      export_restore (pass->export, page + i, entry[i]);
    else if (entry[i].sum != 0)
      ret = damage (pass, page + i, "it has a checksum and no slot");
  }
  return ret;
}

static int
compare_slots (const void *a, const void *b)
{
  uint32_t x = ((const struct disputed *) a)->slot, y = ((const struct disputed *) b)->slot;

  return (x > y) - (x < y);
}

static bool
holds (const struct pass *pass, uint64_t page, struct pagemap_entry entry)
{
  static _Alignas(PAGE_BYTES) char data[PAGE_BYTES];
  struct iovec iov = { .iov_base = data, .iov_len = sizeof data };
  struct drum_io io = { .slot = entry.slot, .iov = &iov, .niov = 1 };

  drum_transfer (pass->r->drum, NULL, false, &io, 1, NULL);
  return io.ret == 0 && export_matches (pass->export, page, entry, data);
}

/* Second pass: a page that names a disputed slot has it if what is there is the page's, and nobody has it. */
static int
award_all (void *opaque, uint64_t page, const struct pagemap_entry *entry, unsigned n)
{
  struct pass *pass = opaque;
  int ret = 0;

  for (unsigned i = 0; i < n && ret == 0; i++) {
    struct disputed key = { .slot = entry[i].slot }, *disputed;

    if (!pagemap_has_slot (entry[i]))
      continue;
    disputed =
      bsearch (&key, pass->disputed, pass->ndisputed, sizeof *pass->disputed, compare_slots);
    if (!disputed)
      continue;
    if (disputed->awarded || !holds (pass, page + i, entry[i]))
      ret = lose (pass, page + i);
    else {
      disputed->awarded = true;
      export_restore (pass->export, page + i, entry[i]);
    }
  }
  return ret;
}

static int
run_pass (struct pass *pass,
          int (*each) (void *opaque, uint64_t page, const struct pagemap_entry *entries,
                       unsigned n),
          uint64_t *nlost)
{
  int ret = 0;

  for (unsigned i = 0; i < pass->r->nexports && ret == 0; i++) {
    pass->export = pass->r->exports[i];
    pass->nlost = 0;
    ret = mapfile_read (export_file (pass->export), each, pass);
    if (pass->nlost > 0)
      log_warning ("export \"%s\": %" PRIu64
                   " pages are lost: reading one of them fails until it is written or trimmed",
                   export_name (pass->export), pass->nlost);
    nlost[i] += pass->nlost;
  }
  return ret;
}

/* The slots that nobody was awarded are free. */
static void
settle (struct pass *pass)
{
  size_t n = 0;

  qsort (pass->disputed, pass->ndisputed, sizeof *pass->disputed, compare_slots);
  for (size_t i = 0; i < pass->ndisputed; i++)
    if (n == 0 || pass->disputed[n - 1].slot != pass->disputed[i].slot)
      pass->disputed[n++] = pass->disputed[i];
  pass->ndisputed = n;
}

int
restore_exports (const struct restore *r, uint64_t *nlost)
{
  struct pass pass = { .r = r };
  int ret = run_pass (&pass, claim_all, nlost);

  if (ret == 0 && pass.ndisputed > 0) {
    settle (&pass);
    ret = run_pass (&pass, award_all, nlost);
    for (size_t i = 0; i < pass.ndisputed && ret == 0; i++)
      if (!pass.disputed[i].awarded)
        drum_free (r->drum, &(struct slot_run){ pass.disputed[i].slot, 1 }, 1, NULL);
  }
  free (pass.disputed);
  return ret;
}
