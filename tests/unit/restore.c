/* SPDX-License-Identifier: BSD-3-Clause
 *
 * restore.c - tests of lib/restore.c: maps that are sound, damaged, or as a power failure leaves them.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "lib/drum.h"
#include "lib/export.h"
#include "lib/mapfile.h"
#include "lib/pagemap.h"
#include "lib/pagesum.h"
#include "lib/restore.h"
#include "tests/random.h"
#include "tests/scratch.h"

#include "devices.h"
#include "logged.h"

enum { NPAGES = 3000, NSLOTS = 1000, A_BAD = 77 };

static const char *const names[2] = { "", "other" };
static struct drum *drum;
static uint32_t a, b; /* the first usable slots of two devices */
static struct mapfile *map[2];
static struct export *export[2];
static bool map_is_full;

ssize_t __real_pwritev (int fd, const struct iovec *iov, int niov, off_t at);
ssize_t __wrap_pwritev (int fd, const struct iovec *iov, int niov, off_t at);

ssize_t
__wrap_pwritev (int fd, const struct iovec *iov, int niov, off_t at)
{
  if (!map_is_full)
    return __real_pwritev (fd, iov, niov, at);
  errno = ENOSPC;
  return -1;
}

/* Devices and exports as they are when a server starts; the map files are new, or those that are there. */
static void
begin (bool new)
{
  int dirfd = open (scratch_path (""), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

  drum = drum_make (1);
  a = drum_add_file (drum, "a", 1, NSLOTS);
  b = drum_add_file (drum, "b", 0, NSLOTS);
  for (unsigned i = 0; i < 2; i++) {
    struct export_config config = { .name = names[i],
                                    .size_bytes = NPAGES * PAGE_BYTES,
                                    .checksum = true };
    int (*get) (int, const char *, const char *, uint64_t, struct mapfile **) =
      new ? mapfile_create : mapfile_open;

    cr_assert_eq (get (dirfd, scratch_path (""), str ("map-%u", i), NPAGES, &map[i]), 0);
    config.file = map[i];
    cr_assert_eq (export_create (drum, &config, &export[i]), 0);
  }
  close (dirfd);
}

static void
end (void)
{
  for (unsigned i = 0; i < 2; i++)
    export_destroy (export[i]);
  drum_destroy (drum);
}

static void
setup (void)
{
  scratch_setup ();
  logged_start ();
  begin (true);
}

static void
teardown (void)
{
  end ();
  scratch_teardown ();
}

TestSuite (restore, .init = setup, .fini = teardown, .timeout = 120);

/* ---- what the files say ---- */

static void
fill (char *data, unsigned i, uint64_t page)
{
  struct rng rng = { i * 1000003 + page };

  rng_fill (&rng, data, PAGE_BYTES);
}

static void
put_entry (unsigned i, uint64_t page, struct pagemap_entry entry)
{
  int error;

  cr_assert_eq (mapfile_write (map[i], page, &entry, 1, &error), 1);
}

/* The map of export number i says that the page is in this slot. */
static void
put_page (unsigned i, uint64_t page, uint32_t slot)
{
  char data[PAGE_BYTES];

  fill (data, i, page);
  put_entry (i, page,
             (struct pagemap_entry){ .slot = slot,
                                     .sum = pagesum_contents (data) ^
                                            pagesum_key (pagesum_export_key (names[i]), page) });
}

/* And what is there is the page's. */
static void
put_contents (unsigned i, uint64_t page, uint32_t slot)
{
  char data[PAGE_BYTES];
  struct iovec iov = { data, sizeof data };
  struct drum_io io = { .slot = slot, .iov = &iov, .niov = 1 };

  fill (data, i, page);
  drum_transfer (drum, NULL, true, &io, 1, NULL);
  cr_assert_eq (io.ret, 0);
}

static void
put_whole_page (unsigned i, uint64_t page, uint32_t slot)
{
  put_page (i, page, slot);
  put_contents (i, page, slot);
}

/* ---- what comes of it ---- */

static uint64_t nlost[2];

static int
restore (bool rebooted, bool repair)
{
  struct restore r = { .drum = drum,
                       .exports = export,
                       .nexports = 2,
                       .rebooted = rebooted,
                       .repair = repair,
                       .dir = "DIR" };

  memset (nlost, 0, sizeof nlost);
  logged_start ();
  return restore_exports (&r, nlost);
}

static void
assert_lost (unsigned i, uint64_t page)
{
  char data[PAGE_BYTES];

  cr_assert_eq (export_entry (export[i], page).slot, SLOT_LOST);
  cr_assert_eq (export_read (export[i], data, PAGE_BYTES, page * PAGE_BYTES), -EIO);
}

static void
assert_there (unsigned i, uint64_t page)
{
  char data[PAGE_BYTES], should[PAGE_BYTES];

  fill (should, i, page);
  cr_assert_eq (export_read (export[i], data, PAGE_BYTES, page * PAGE_BYTES), 0, "%s",
                logged_last ());
  cr_assert_arr_eq (data, should, PAGE_BYTES, "page %u", (unsigned) page);
}

static void
assert_numbers (uint64_t nused, uint64_t nlost_0, uint64_t nlost_1)
{
  cr_assert_eq (export_npages_used (export[0]) + export_npages_used (export[1]), nused);
  cr_assert_eq (drum_nused_anywhere (drum), nused);
  cr_assert (drum_check (drum));
  cr_assert_eq (nlost[0], nlost_0, "%u", (unsigned) nlost[0]);
  cr_assert_eq (nlost[1], nlost_1, "%u", (unsigned) nlost[1]);
}

static void
assert_refused (const char *what)
{
  cr_assert_eq (restore (false, false), -EBADMSG);
  cr_assert_eq (logged_count (what), 1, "%s", logged_last ());
  cr_assert_eq (logged_count ("state-repair=yes"), 1, "%s", logged_last ());
}

/* Runs of slots in any order, in both directions, on both devices, of both exports. */
Test (restore, all_pages_come_back)
{
  unsigned page = 3, n = 0;
  struct rng rng = rng_for (1);

  for (uint32_t slot = 0; slot < NSLOTS;) {
    uint32_t len = 1 + (uint32_t) rng_below (&rng, 9);
    bool down = rng_below (&rng, 2);

    len = len < NSLOTS - slot ? len : NSLOTS - slot;
    for (uint32_t k = 0; k < len; k++, n += 2) {
      put_whole_page (0, page + k, a + slot + (down ? len - 1 - k : k));
      put_whole_page (1, 2 * page + k, b + NSLOTS - 1 - slot - k);
    }
    slot += len;
    page += len + (unsigned) rng_below (&rng, 2);
  }
  put_entry (0, 0, (struct pagemap_entry){ .slot = SLOT_LOST });
  cr_assert_eq (restore (false, false), 0, "%s", logged_last ());
  cr_assert_eq (logged_count (""), 0, "%s", logged_last ());
  assert_numbers (n, 0, 0);
  assert_lost (0, 0);
  for (page = 1; page < NPAGES; page++)
    for (unsigned i = 0; i < 2; i++)
      if (export_entry (export[i], page).slot)
        assert_there (i, page);
}

/* The server was killed: what can't be is refused, and said. */
Test (restore, damage_is_refused)
{
  put_whole_page (0, 7, a);
  put_whole_page (1, 9, a);
  assert_refused ("export \"other\", page 9: its slot is another page's, too");
}

Test (restore, slots_of_nobody_are_refused)
{
  const uint32_t slots[] = { a - 1, a - 2, a + NSLOTS, b + NSLOTS, b + 100000, SLOT_MAX };

  for (unsigned i = 0; i < sizeof slots / sizeof slots[0]; i++) {
    put_page (0, 7, slots[i]);
    assert_refused ("page 7: its slot is on no device");
  }
  /* In a run with one that is sound. */
  end ();
  begin (true);
  put_page (0, 6, b + NSLOTS - 1);
  put_page (0, 7, b + NSLOTS);
  assert_refused ("page 7: its slot is on no device");
}

Test (restore, checksums_of_nothing_are_refused)
{
  put_entry (0, 7, (struct pagemap_entry){ .slot = SLOT_NONE, .sum = 1 });
  assert_refused ("page 7: it has a checksum and no slot");
}

/* Nothing is damaged by a power failure but what two pages share. */
Test (restore, damage_is_refused_after_a_power_failure_too)
{
  put_page (0, 7, b + NSLOTS);
  cr_assert_eq (restore (true, false), -EBADMSG);
}

Test (restore, repair_loses_what_is_damaged)
{
  put_whole_page (0, 1, a + 5);
  put_page (0, 7, a - 1);
  put_page (0, 8, b + NSLOTS);
  put_entry (1, 7, (struct pagemap_entry){ .slot = SLOT_NONE, .sum = 1 });
  cr_assert_eq (restore (false, true), 0);
  assert_numbers (1, 2, 1);
  assert_there (0, 1);
  assert_lost (0, 7);
  assert_lost (0, 8);
  assert_lost (1, 7);
  cr_assert_eq (logged_count ("export \"\": 2 pages are lost"), 1);
  cr_assert_eq (logged_count ("export \"other\": 1 pages are lost"), 1);
}

/* They stay lost, until they are written. */
Test (restore, lost_pages_stay_lost)
{
  char data[PAGE_BYTES];

  put_page (0, 7, a);
  put_page (0, 8, a);
  put_page (0, 9, a);
  put_contents (0, 8, a);
  cr_assert_eq (restore (true, false), 0);
  end ();
  begin (false);
  cr_assert_eq (restore (false, false), 0, "%s", logged_last ());
  assert_numbers (1, 0, 0);
  assert_lost (0, 7);
  assert_there (0, 8);
  assert_lost (0, 9);
  fill (data, 0, 7);
  cr_assert_eq (export_write (export[0], data, PAGE_BYTES, 7 * PAGE_BYTES), 0);
  cr_assert_eq (export_trim (export[0], PAGE_BYTES, 9 * PAGE_BYTES), 0);
  end ();
  begin (false);
  cr_assert_eq (restore (false, false), 0, "%s", logged_last ());
  assert_numbers (2, 0, 0);
  assert_there (0, 7);
  cr_assert_eq (export_entry (export[0], 9).slot, SLOT_NONE);
}

/* Of those that share a slot the one whose contents are there has it, wherever it stands. */
Test (restore, the_checksum_decides)
{
  const struct {
    unsigned i;
    uint64_t page;
  } claimant[] = { { 0, 7 }, { 0, 2000 }, { 1, 3 } };

  for (unsigned owner = 0; owner < 3; owner++) {
    for (unsigned k = 0; k < 3; k++)
      put_page (claimant[k].i, claimant[k].page, b + 9);
    put_contents (claimant[owner].i, claimant[owner].page, b + 9);
    cr_assert_eq (restore (true, false), 0, "%s", logged_last ());
    assert_numbers (1, owner == 2 ? 2 : 1, owner == 2 ? 0 : 1);
    for (unsigned k = 0; k < 3; k++)
      if (k == owner)
        assert_there (claimant[k].i, claimant[k].page);
      else
        assert_lost (claimant[k].i, claimant[k].page);
    end ();
    begin (false);
  }
}

/* Nobody's contents are there: all are lost, and the slot is free. */
Test (restore, slots_that_nobody_gets_are_free)
{
  put_page (0, 7, b + 9);
  put_page (1, 7, b + 9);
  put_whole_page (1, 8, b + 10);
  cr_assert_eq (restore (true, false), 0);
  assert_numbers (1, 1, 1);
  assert_lost (0, 7);
  assert_lost (1, 7);
  assert_there (1, 8);
}

/* Even if its contents are right for both. */
Test (restore, only_one_page_gets_a_slot)
{
  char data[PAGE_BYTES];

  put_whole_page (0, 7, a);
  fill (data, 0, 7);
  put_entry (0, 8,
             (struct pagemap_entry){ .slot = a,
                                     .sum = pagesum_contents (data) ^
                                            pagesum_key (pagesum_export_key (""), 8) });
  cr_assert_eq (restore (true, false), 0);
  assert_numbers (1, 1, 0);
  assert_there (0, 7);
  assert_lost (0, 8);
}

/* Every slot is named twice, in runs that overlap. */
Test (restore, many_may_share)
{
  for (uint32_t i = 0; i < NSLOTS; i++) {
    put_page (0, i, a + i);
    put_page (0, NSLOTS + i, a + NSLOTS - 1 - i);
    put_contents (0, i % 3 ? i : 2 * NSLOTS - 1 - i, a + i);
  }
  cr_assert_eq (restore (true, false), 0);
  assert_numbers (NSLOTS, NSLOTS, 0);
  for (uint32_t i = 0; i < NSLOTS; i++) {
    uint64_t first = i, second = 2 * NSLOTS - 1 - i;

    assert_there (0, i % 3 ? first : second);
    assert_lost (0, i % 3 ? second : first);
  }
}

/* A slot that was found bad after a page had left it: on the disk the page may be there still. */
Test (restore, bad_slots)
{
  struct drum_device_info info;

  cr_assert (drum_find_file (drum, "a", &info));
  cr_assert_eq (swapdev_mark_bad (info.swapdev, SWAPDEV_NRESERVED + A_BAD), 0);
  cr_assert_eq (swapdev_save_bad (info.swapdev), 0);
  end ();
  begin (false);
  cr_assert_eq (drum_slot_kind (drum, a + A_BAD - 1), DRUM_SLOT_GOOD);
  cr_assert_eq (drum_slot_kind (drum, a + A_BAD), DRUM_SLOT_BAD);
  cr_assert_eq (drum_slot_kind (drum, b + A_BAD), DRUM_SLOT_GOOD);
  cr_assert_eq (drum_slot_kind (drum, b + NSLOTS), DRUM_SLOT_NONE);
  put_whole_page (0, 7, a + A_BAD - 1);
  put_page (0, 8, a + A_BAD);
  put_whole_page (0, 9, a + A_BAD + 1);
  assert_refused ("page 8: its slot is bad");
  end ();
  begin (false);
  cr_assert_eq (restore (true, false), 0);
  assert_numbers (2, 1, 0);
  assert_there (0, 7);
  assert_lost (0, 8);
  assert_there (0, 9);
}

/* That a page is lost can't be written down: no start. */
Test (restore, losses_must_be_recorded)
{
  put_page (0, 7, b + NSLOTS);
  map_is_full = true;
  cr_assert_eq (restore (false, true), -ENOSPC);
  map_is_full = false;
  assert_logged_error ("map-0: can't be written");
}
