/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "stamped.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "lib/export.h"
#include "tests/stamp.h"

#include "devices.h"

void
stamped_init (struct stamped *s, struct export *e)
{
  memset (s, 0, sizeof *s);
  s->export = e;
  s->npages = (unsigned) (export_size_bytes (e) / PAGE_BYTES);
  cr_assert_leq (s->npages, STAMPED_MAX);
}

int
stamped_write (struct stamped *s, unsigned first, unsigned n)
{
  static char data[STAMPED_MAX][PAGE_BYTES];
  int ret;

  s->last++;
  for (unsigned i = 0; i < n; i++)
    stamp_fill (data[i], (struct stamp){ 1, s->last, first + i });
  ret = export_write (s->export, data, (uint64_t) n * PAGE_BYTES, (uint64_t) first * PAGE_BYTES);
  for (unsigned i = 0; i < n && ret == 0; i++)
    s->sequence[first + i] = s->last;
  return ret;
}

void
stamped_trim (struct stamped *s, unsigned first, unsigned n)
{
  cr_assert_eq (export_trim (s->export, (uint64_t) n * PAGE_BYTES, (uint64_t) first * PAGE_BYTES),
                0);
  memset (s->sequence + first, 0, n * sizeof s->sequence[0]);
}

void
stamped_assert (const struct stamped *s)
{
  char data[PAGE_BYTES];
  struct stamp stamp;

  for (unsigned page = 0; page < s->npages; page++) {
    uint32_t sequence = s->sequence[page];
    int ret = export_read (s->export, data, PAGE_BYTES, (uint64_t) page * PAGE_BYTES);

    cr_assert_eq (ret, sequence == STAMPED_EIO ? -EIO : 0, "page %u: %s", page, strerror (-ret));
    if (ret < 0)
      continue;
    cr_assert (stamp_read (data, &stamp), "page %u is mixed", page);
    if (sequence == 0)
      cr_assert (stamp_is_zero (&stamp), "page %u is not zero", page);
    else
      cr_assert (stamp.page == page && stamp.sequence == sequence,
                 "page %u, version %u, has page %u, version %u", page, sequence,
                 (unsigned) stamp.page, stamp.sequence);
  }
}

void
stamped_assert_whole (const struct stamped *s, struct drum *d)
{
  uint64_t nused = drum_nused_anywhere (d);

  stamped_assert (s);
  drum_assert_adds_up (d);
  cr_assert_eq (nused, export_npages_used (s->export), "%u slots for %u pages", (unsigned) nused,
                (unsigned) export_npages_used (s->export));
}
