/* SPDX-License-Identifier: BSD-3-Clause
 *
 * pages.c - see pages.h. Every change of pages goes through a chunk: what is to become of each page is decided first, then
 * all slots are taken, all data written, all entries switched, and all old slots freed.
 */
#include <config.h>

#include "pages.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "drum-health.h"
#include "freerange.h"
#include "health.h"
#include "log.h"
#include "mapfile.h"
#include "pagemap.h"
#include "pagesum.h"
#include "placement.h"
#include "slotio.h"
#include "state.h"
#include "units.h"

/* How often the pages of a chunk go elsewhere because a device took them not. Enough for a device to be found failing. */
enum { MAX_TRIES = 2 * HEALTH_STREAK };

/* What is to become of n consecutive pages. */
struct chunk {
  struct room_account *account; /* who wants slots; NULL: nobody, as pages are just moved */
  uint64_t page;
  unsigned n;
  uint64_t ended_ns; /* the last transfer, or 0 */
  /* PLACE: at a slot that is yet to be taken, or written; PLACED: that is done */
  enum fate { KEEP, PLACE, PLACED, SET } fate[DRUM_BATCH];
  bool move[DRUM_BATCH], grow[DRUM_BATCH]; /* what the slot is for: see struct drum_demand */
  struct pagemap_entry to[DRUM_BATCH];
};

bool
pages_is_hole (const struct pages *p, uint64_t page)
{
  return pagemap_get (p->map, page).slot == SLOT_NONE;
}

static char *
data_of (const void *buf, unsigned i)
{
  return (char *) buf + (size_t) i * PAGE_BYTES;
}

static uint32_t
sum_of (const struct pages *p, uint64_t page, const void *data)
{
  return p->checksum ? pagesum_contents (data) ^ pagesum_key (p->key, page) : 0;
}

bool
pages_matches (const struct pages *p, uint64_t page, struct pagemap_entry entry, const void *data)
{
  return !p->checksum || sum_of (p, page, data) == entry.sum;
}

/* => holds the page. Read it by itself: 0, -EBADMSG if that is not what was written, or what the I/O gave. */
static int
read_one (const struct pages *p, uint64_t page, struct pagemap_entry entry, void *data)
{
  struct slotio io;
  int ret;

  slotio_init (&io, p->drum, &p->flow, SLOTIO_READ);
  slotio_add (&io, entry.slot, data);
  ret = slotio_submit (&io);
  return ret == 0 && !pages_matches (p, page, entry, data) ? -EBADMSG : ret;
}

static void
say_unreadable (const struct pages *p, uint64_t page, uint32_t slot, int err)
{
  uint64_t offset_bytes;
  const char *path = drum_locate (p->drum, slot, &offset_bytes);

  log_error ("export \"%s\": page %llu can't be read: at offset %llu of %s: %s", p->export,
             (unsigned long long) page, (unsigned long long) offset_bytes, path,
             err == -EBADMSG ? "wrong checksum" : strerror (-err));
}

/* => holds the page. It came back with an error (ret), or wrong. Once more; then it can't be read. */
static int
read_again (const struct pages *p, uint64_t page, struct pagemap_entry entry, void *data)
{
  int ret = read_one (p, page, entry, data);

  if (ret < 0)
    drum_read_failed (p->drum, entry.slot, ret);
  return ret;
}

/* => holds the page. Has it come with all that io was to read, and is it right? If not, once more. 0, or why it can't be read. */
static int
end_read (const struct pages *p, struct slotio *io, uint64_t page, struct pagemap_entry entry,
          void *data)
{
  if (slotio_result (io, entry.slot) == 0 && pages_matches (p, page, entry, data))
    return 0;
  io->known_ns = 0;
  return read_again (p, page, entry, data);
}

/* => holds [page, page + n) shared; n is at most DRUM_BATCH. */
static int
read_chunk (const struct pages *p, uint64_t page, unsigned n, void *buf, uint64_t *known_ns)
{
  struct pagemap_entry entry[DRUM_BATCH];
  struct slotio io;
  int ret = 0;

  slotio_init (&io, p->drum, &p->flow, SLOTIO_READ);
  io.known_ns = *known_ns;
  *known_ns = 0;
  for (unsigned i = 0; i < n; i++) {
    entry[i] = pagemap_get (p->map, page + i);
    if (entry[i].slot == SLOT_LOST)
      return -EIO;
    if (entry[i].slot == SLOT_NONE)
      memset (data_of (buf, i), 0, PAGE_BYTES);
    else
      slotio_add (&io, entry[i].slot, data_of (buf, i));
  }
  slotio_submit (&io);
  for (unsigned i = 0; i < n; i++) {
    int err =
      pagemap_has_slot (entry[i]) ? end_read (p, &io, page + i, entry[i], data_of (buf, i)) : 0;

    if (err < 0) {
      say_unreadable (p, page + i, entry[i].slot, err);
      ret = -EIO;
    }
  }
  if (n == 1 && io.npieces > 0) /* to check one page takes no time to speak of */
    *known_ns = io.known_ns;
  return ret;
}

int
pages_read (const struct pages *p, uint64_t first, uint64_t end, void *buf, uint64_t *known_ns)
{
  int ret = 0;

  while (first < end && ret == 0) {
    unsigned n = end - first < DRUM_BATCH ? (unsigned) (end - first) : DRUM_BATCH;

    ret = read_chunk (p, first, n, buf, known_ns);
    first += n;
    buf = data_of (buf, n);
  }
  return ret;
}

static bool
lies_in (struct pagemap_entry entry, uint32_t first_slot, uint32_t end_slot)
{
  return entry.slot >= first_slot && entry.slot < end_slot;
}

unsigned
pages_check (const struct pages *p, uint64_t first, uint64_t end, const struct pages_check *check)
{
  unsigned n = end - first < DRUM_BATCH ? (unsigned) (end - first) : DRUM_BATCH, nread = 0;
  struct pagemap_entry entry[DRUM_BATCH];
  struct slotio io;

  slotio_init (&io, p->drum, NULL, SLOTIO_READ);
  for (unsigned i = 0; i < n; i++) {
    entry[i] = pagemap_get (p->map, first + i);
    if (!lies_in (entry[i], check->first_slot, check->end_slot))
      continue;
    slotio_add (&io, entry[i].slot, data_of (check->buf, i));
    nread++;
  }
  slotio_submit (&io);
  for (unsigned i = 0; i < n; i++) {
    int err = 0;

    if (lies_in (entry[i], check->first_slot, check->end_slot))
      err = end_read (p, &io, first + i, entry[i], data_of (check->buf, i));
    if (err < 0) {
      say_unreadable (p, first + i, entry[i].slot, err);
      check->unreadable (check->opaque, first + i, err);
    }
  }
  return nread;
}

int
pages_read_part (const struct pages *p, uint64_t page, uint32_t offset, uint32_t length, void *buf,
                 uint64_t *known_ns)
{
  char data[PAGE_BYTES];
  int ret = read_chunk (p, page, 1, data, known_ns);

  if (ret == 0)
    memcpy (buf, data + offset, length);
  return ret;
}

static void
chunk_init (struct chunk *c, struct room_account *account, uint64_t page, unsigned n)
{
  c->account = account;
  c->page = page;
  c->n = n;
  c->ended_ns = 0;
}

static void
chunk_keep (struct chunk *c, unsigned i)
{
  c->fate[i] = KEEP;
  c->to[i] = (struct pagemap_entry){ .slot = SLOT_NONE };
}

static void
chunk_set (struct chunk *c, unsigned i, uint32_t slot)
{
  c->fate[i] = SET;
  c->to[i] = (struct pagemap_entry){ .slot = slot };
}

/* Page i, which is as from says, is to have a slot; sum is that of its contents. */
static void
chunk_place (struct chunk *c, unsigned i, struct drum *d, struct pagemap_entry from, uint32_t sum)
{
  c->fate[i] = PLACE;
  c->move[i] = pagemap_has_slot (from) && drum_slot_returns (d, from.slot);
  c->grow[i] = !pagemap_has_slot (from);
  c->to[i] = (struct pagemap_entry){ .sum = sum };
  if (!c->grow[i])
    drum_prefetch (d, from.slot);
}

/* Give the slots of the runs, in order, to the pages that are to be placed, and gather their writes. */
static void
assign_slots (struct chunk *c, const struct slot_run *run, const void *buf, struct slotio *io)
{
  uint32_t used = 0; /* of *run */

  for (unsigned i = 0; i < c->n; i++) {
    if (c->fate[i] != PLACE)
      continue;
    c->to[i].slot = run->first + used;
    slotio_add (io, c->to[i].slot, data_of (buf, i));
    if (++used == run->n) {
      run++;
      used = 0;
    }
  }
}

/* Slots of a chunk's pages, gathered into runs. */
struct gathered {
  struct slot_run run[DRUM_BATCH];
  unsigned nruns;
  struct drum_return what;
};

/* Not the runs: that would cost more than most requests need them. */
static void
gather_init (struct gathered *g, const struct chunk *c)
{
  g->nruns = 0;
  g->what = (struct drum_return){ .account = c->account };
}

/* The slot of page i. */
static void
gather (struct gathered *g, const struct chunk *c, unsigned i)
{
  uint32_t slot = c->to[i].slot;
  struct slot_run *last = g->nruns > 0 ? &g->run[g->nruns - 1] : NULL;

  if (last && last->first + last->n == slot)
    last->n++;
  else
    g->run[g->nruns++] = (struct slot_run){ .first = slot, .n = 1 };
  g->what.nmove += c->move[i];
  g->what.nshrink += c->grow[i];
}

/* What do the pages of the chunk that have this fate need? Returns how many there are. */
static unsigned
count_fate (const struct chunk *c, enum fate fate, struct drum_demand *want)
{
  unsigned n = 0;

  *want = (struct drum_demand){ .account = c->account };
  for (unsigned i = 0; i < c->n; i++)
    if (c->fate[i] == fate) {
      n++;
      want->nmove += c->move[i];
      want->ngrow += c->grow[i];
    }
  want->nnew = n - want->nmove;
  return n;
}

/* Take slots for the pages that are to be placed, and write them there. What a device did not take stays to be
 * placed, and its slots are suspect; 0 also then. -ENOSPC if there is no room for all, and nothing is done. */
static int
chunk_try (struct pages *p, struct chunk *c, const struct drum_demand *want, int above,
           bool may_wait, const void *buf, int *error)
{
  struct slot_run runs[DRUM_BATCH];
  unsigned nruns = 0;
  struct gathered failed;
  struct slotio io;
  int ret;

  ret = may_wait ? drum_alloc (p->drum, want, runs, &nruns)
                 : drum_alloc_above (p->drum, above, want, runs, &nruns);
  if (ret < 0)
    return ret;
  slotio_init (&io, p->drum, c->account ? &p->flow : NULL, SLOTIO_WRITE);
  assign_slots (c, runs, buf, &io);
  *error = slotio_submit (&io);
  c->ended_ns = io.known_ns;
  gather_init (&failed, c);
  for (unsigned i = 0; i < c->n; i++) {
    if (c->fate[i] != PLACE)
      continue;
    if (slotio_result (&io, c->to[i].slot) == 0)
      c->fate[i] = PLACED;
    else
      gather (&failed, c, i);
  }
  if (failed.nruns > 0)
    drum_slots_failed (p->drum, failed.run, failed.nruns, &failed.what, *error);
  return 0;
}

/* Nothing becomes of the pages from number first on: give back the slots where they have been placed in vain. */
static void
chunk_undo (struct pages *p, const struct chunk *c, unsigned first)
{
  struct gathered placed;

  gather_init (&placed, c);
  for (unsigned i = first; i < c->n; i++)
    if (c->fate[i] == PLACED)
      gather (&placed, c, i);
  if (placed.nruns > 0)
    drum_free (p->drum, placed.run, placed.nruns, &placed.what);
}

/* Take slots for the pages to be placed, and write them there, elsewhere if a device does not take them. -ENOSPC if there is no
 * room for all: try fewer. */
static int
chunk_write (struct pages *p, struct chunk *c, int above, const void *buf)
{
  struct drum_demand want;
  int ret = 0, error = -EAGAIN;

  for (unsigned tries = 0; ret == 0 && error < 0 && count_fate (c, PLACE, &want) > 0; tries++) {
    /* Not for the end of a move while some of our own, that only end when all are written, may be what it waits for. */
    bool may_wait = above == PRIO_ANY && (tries == 0 || c->n == 1);

    ret = tries == MAX_TRIES ? error == -ENOSPC ? -EIO : error
                             : chunk_try (p, c, &want, above, may_wait, buf, &error);
  }
  if (ret < 0)
    chunk_undo (p, c, 0);
  return ret;
}

/* => holds the page exclusive. Point it to its new slot, or to none, and gather the old one to be freed. */
static void
switch_page (struct pages *p, uint64_t page, struct pagemap_entry to, struct freerange *fr)
{
  struct pagemap_entry from = pagemap_get (p->map, page);

  if (from.slot == SLOT_NONE && to.slot == SLOT_NONE)
    return;
  pagemap_set (p->map, page, to);
  if (pagemap_has_slot (from))
    freerange_add (fr, from.slot, !pagemap_has_slot (to));
}

/* => holds the pages exclusive. Write entries to the file. Returns for how many pages that was done, from the first on. */
static unsigned
write_entries (struct pages *p, uint64_t page, const struct pagemap_entry *entries, unsigned n)
{
  int error;
  unsigned done = mapfile_write (p->file, page, entries, n, &error);

  if (done < n && !atomic_exchange (&p->file_failed, true))
    log_error ("export \"%s\": %s can't be written: %s", p->export, mapfile_path (p->file),
               strerror (-error));
  else if (done == n && atomic_load_explicit (&p->file_failed, memory_order_relaxed))
    atomic_store (&p->file_failed, false);
  return done;
}

static bool
is_same (struct pagemap_entry a, struct pagemap_entry b)
{
  return a.slot == b.slot && a.sum == b.sum;
}

/* => holds the chunk exclusive. Write what becomes of it to the file. Returns for how many of its pages that was done, from the
 * first on. */
static unsigned
chunk_record (struct pages *p, const struct chunk *c)
{
  struct pagemap_entry to[DRUM_BATCH];
  unsigned first = c->n, end = 0, done;

  for (unsigned i = 0; i < c->n; i++) {
    struct pagemap_entry from = pagemap_get (p->map, c->page + i);

    to[i] = c->fate[i] == KEEP ? from : c->to[i];
    if (!is_same (to[i], from)) {
      first = first < i ? first : i;
      end = i + 1;
    }
  }
  if (first >= end)
    return c->n;
  done = write_entries (p, c->page + first, to + first, end - first);
  return done == end - first ? c->n : first + done;
}

/* => holds the chunk exclusive; its data is on the devices. The old slots are in fr then, to be flushed. -EIO if the file does not
 * take some of the entries: these pages are as they were. */
static int
chunk_switch (struct pages *p, struct chunk *c, struct freerange *fr)
{
  unsigned recorded = p->file ? chunk_record (p, c) : c->n;
  struct drum_demand had;
  int ret = 0;

  if (recorded < c->n) {
    chunk_undo (p, c, recorded);
    c->n = recorded;
    ret = -EIO;
  }
  count_fate (c, PLACED, &had);
  freerange_init (fr, p->drum, &p->account, had.nmove);
  for (unsigned i = 0; i < c->n; i++)
    if (c->fate[i] != KEEP)
      switch_page (p, c->page + i, c->to[i], fr);
  return ret;
}

/* => holds the chunk exclusive. Decide what is to become of pages that are to be as buf says. Returns how many are zeroes. */
static unsigned
prepare_write (const struct pages *p, struct chunk *c, const void *buf)
{
  unsigned nzero = 0;

  for (unsigned i = 0; i < c->n; i++) {
    uint64_t page = c->page + i;
    const char *data = data_of (buf, i);

    if (page_is_zero (data)) {
      chunk_set (c, i, SLOT_NONE);
      nzero++;
    } else
      chunk_place (c, i, p->drum, pagemap_get (p->map, page), sum_of (p, page, data));
  }
  return nzero;
}

/* => holds the page. It was taken for a new one because its device was closed; is it a move by now? */
static bool
became_move (const struct pages *p, const struct chunk *c)
{
  struct pagemap_entry from = pagemap_get (p->map, c->page);

  return c->n == 1 && c->fate[0] == PLACE && !c->move[0] && pagemap_has_slot (from) &&
         drum_slot_returns (p->drum, from.slot);
}

/* => holds [page, page + n) exclusive; n is at most DRUM_BATCH.
 * -ENOSPC, and nothing changed, if the drum has no room for all n now: try fewer. */
static int
write_chunk (struct pages *p, uint64_t page, unsigned n, const void *buf, uint64_t *known_ns)
{
  struct freerange freed;
  struct chunk c;
  unsigned nzero;
  int ret;

  *known_ns = 0;
  chunk_init (&c, &p->account, page, n);
  do {
    nzero = prepare_write (p, &c, buf);
    ret = chunk_write (p, &c, PRIO_ANY, buf);
  } while (ret == -ENOSPC && became_move (p, &c));
  if (ret < 0)
    return ret;
  ret = chunk_switch (p, &c, &freed);
  freerange_flush (&freed);
  if (n == 1 && !p->file) /* to free one slot takes no time to speak of */
    *known_ns = c.ended_ns;
  if (nzero && ret == 0)
    atomic_fetch_add_explicit (&p->nzero, nzero, memory_order_relaxed);
  return ret;
}

int
pages_write (struct pages *p, uint64_t first, uint64_t end, const void *buf, uint64_t *known_ns)
{
  unsigned max = DRUM_BATCH;

  while (first < end) {
    unsigned n = end - first < max ? (unsigned) (end - first) : max;
    int ret = write_chunk (p, first, n, buf, known_ns);

    if (ret == -ENOSPC && n > 1) {
      max = n / 2;
      continue;
    }
    if (ret < 0)
      return ret;
    first += n;
    buf = data_of (buf, n);
  }
  return 0;
}

int
pages_write_part (struct pages *p, uint64_t page, uint32_t offset, uint32_t length, const void *buf,
                  uint64_t *known_ns)
{
  char data[PAGE_BYTES];
  int ret;

  if (!buf && pages_is_hole (p, page))
    return 0;
  ret = read_chunk (p, page, 1, data, known_ns);
  if (ret < 0)
    return ret;
  if (buf)
    memcpy (data + offset, buf, length);
  else
    memset (data + offset, 0, length);
  return write_chunk (p, page, 1, data, known_ns);
}

/* => holds [first, end), which lies in one leaf of the map, exclusive. Returns how many pages are cleared, from the first on. */
static unsigned
record_cleared (struct pages *p, uint64_t first, uint64_t end)
{
  static const struct pagemap_entry none[PAGEMAP_LEAF];
  uint64_t begin = first, stop = end;
  unsigned done;

  while (begin < stop && pages_is_hole (p, begin))
    begin++;
  while (stop > begin && pages_is_hole (p, stop - 1))
    stop--;
  if (begin == stop)
    return (unsigned) (end - first);
  done = write_entries (p, begin, none, (unsigned) (stop - begin));
  return (unsigned) (done == stop - begin ? end - first : begin + done - first);
}

static int
clear (struct pages *p, uint64_t first, uint64_t end, bool record)
{
  uint32_t slot[PAGEMAP_LEAF];
  struct freerange fr;
  int ret = 0;

  freerange_init (&fr, p->drum, &p->account, 0);
  while (ret == 0 && (first = pagemap_next (p->map, first, end)) < end) {
    uint64_t leaf_end = (first / PAGEMAP_LEAF + 1) * PAGEMAP_LEAF, stop;

    leaf_end = leaf_end < end ? leaf_end : end;
    stop = record ? first + record_cleared (p, first, leaf_end) : leaf_end;
    ret = stop < leaf_end ? -EIO : 0;
    freerange_add_all (&fr, slot, pagemap_take (p->map, first, stop, slot));
    first = stop;
  }
  freerange_flush (&fr);
  return ret;
}

int
pages_clear (struct pages *p, uint64_t first, uint64_t end)
{
  return clear (p, first, end, p->file);
}

void
pages_drop (struct pages *p, uint64_t first, uint64_t end)
{
  clear (p, first, end, false);
}

/* => holds the chunk exclusive. Read what is to move, all at once; what fails by itself again; and decide the fate of each: to
 * is lost of those that can't be read, whatever their fate. */
static unsigned
read_to_move (struct pages *p, struct chunk *c, const struct pages_move *move)
{
  struct pagemap_entry from[DRUM_BATCH];
  unsigned nmoved = 0;
  struct slotio io;

  slotio_init (&io, p->drum, NULL, SLOTIO_READ);
  for (unsigned i = 0; i < c->n; i++) {
    from[i] = pagemap_get (p->map, c->page + i);
    chunk_keep (c, i);
    if (lies_in (from[i], move->first_slot, move->end_slot))
      slotio_add (&io, from[i].slot, data_of (move->buf, i));
  }
  slotio_submit (&io);
  for (unsigned i = 0; i < c->n; i++) {
    if (!lies_in (from[i], move->first_slot, move->end_slot))
      continue;
    if (end_read (p, &io, c->page + i, from[i], data_of (move->buf, i)) == 0)
      chunk_place (c, i, p->drum, from[i], from[i].sum);
    else {
      chunk_set (c, i, SLOT_LOST);
      if (!move->lose) {
        c->fate[i] = KEEP;
        continue;
      }
    }
    nmoved++;
  }
  return nmoved;
}

/* Have the pages that were placed on the disks, before an entry that names them may come there. Only their own devices are waited for. */
static void
sync_placed (struct pages *p, const struct chunk *c)
{
  for (unsigned i = 0; i < c->n; i++)
    if (c->fate[i] == PLACED)
      drum_sync_slot (p->drum, c->to[i].slot);
}

int
pages_move (struct pages *p, uint64_t first, uint64_t end, const struct pages_move *move,
            struct freerange *freed)
{
  struct chunk c;
  unsigned nmoved;
  int ret;

  freerange_init (freed, p->drum, NULL, 0);
  chunk_init (&c, NULL, first, end - first < DRUM_BATCH ? (unsigned) (end - first) : DRUM_BATCH);
  nmoved = read_to_move (p, &c, move);
  ret = chunk_write (p, &c, move->above, move->buf);
  if (ret == 0) {
    if (p->state && state_is_durable (p->state))
      sync_placed (p, &c); /* if it fails, flushes fail from here on, and nobody relies on them */
    ret = chunk_switch (p, &c, freed);
  }
  if (ret < 0)
    return ret;
  for (unsigned i = 0; i < c.n; i++)
    if (c.to[i].slot == SLOT_LOST)
      move->unreadable (move->opaque, first + i);
  return (int) nmoved;
}
