/* SPDX-License-Identifier: BSD-3-Clause
 *
 * export_shape.c - tests of lib/export.c and lib/pages-pass.c: exports that grow and shrink, and whose pages pass to others.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/export.h"
#include "lib/mapfile.h"
#include "lib/pagemap.h"
#include "lib/pages.h"
#include "lib/placement.h"
#include "tests/random.h"
#include "tests/scratch.h"

#include "devices.h"
#include "failed.h"
#include "logged.h"

enum { NEXPORTS = 3, MAX_PAGES = 1500, NSLOTS = 3000 };
enum { LOST = UINT32_MAX };

/* What each page should be: 0 is zeroes, LOST can't be read, any other number is that of its contents. */
static struct {
  struct export *export;
  struct mapfile *file;
  unsigned npages;
  uint32_t is[MAX_PAGES];
} m[NEXPORTS];

static struct drum *drum;
static struct rng rng;
static unsigned step;
static uint32_t last;

#define CHECK(condition, ...)                                                                    \
  do {                                                                                           \
    if (!(condition))                                                                            \
      cr_assert (false, "DRUM_TEST_SEED=%" PRIu64 ", step %u: not %s: %s", random_seed (), step, \
                 #condition, str (__VA_ARGS__));                                                 \
  } while (0)

static void
setup (void)
{
  scratch_setup ();
  logged_start ();
  rng = rng_for (1);
  drum = drum_make (16);
  drum_add_file (drum, "a", 1, NSLOTS);
  drum_add_file (drum, "b", 0, NSLOTS);
}

TestSuite (export_shape, .init = setup, .fini = scratch_teardown, .timeout = 600);

/* Number i, of so many pages; with a file for its map, or none. */
static struct export *
make (unsigned i, unsigned npages, bool with_file, bool checksum)
{
  struct export_config config = { .name = str ("number %u", i),
                                  .size_bytes = npages * PAGE_BYTES,
                                  .checksum = checksum };
  int dirfd = open (scratch_path (""), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

  if (with_file)
    cr_assert_eq (
      mapfile_create (dirfd, scratch_path (""), str ("map-%u", i), npages, &config.file), 0);
  close (dirfd);
  cr_assert_eq (export_create (drum, &config, &m[i].export), 0, "%s", logged_last ());
  m[i].file = config.file;
  m[i].npages = npages;
  memset (m[i].is, 0, sizeof m[i].is);
  return m[i].export;
}

static void
fill (unsigned char *data, uint32_t number)
{
  struct rng contents = { number };

  rng_fill (&contents, data, PAGE_BYTES);
}

static void
write_pages (unsigned i, unsigned first, unsigned n)
{
  static unsigned char data[MAX_PAGES][PAGE_BYTES];
  int ret;

  for (unsigned k = 0; k < n; k++)
    fill (data[k], m[i].is[first + k] = ++last);
  ret = export_write (m[i].export, data, n * PAGE_BYTES, first * PAGE_BYTES);
  CHECK (ret == 0, "%s", strerror (-ret));
}

static void
trim (unsigned i, unsigned first, unsigned n)
{
  CHECK (export_trim (m[i].export, n * PAGE_BYTES, first * PAGE_BYTES) == 0, "%s", logged_last ());
  memset (&m[i].is[first], 0, n * sizeof m[i].is[0]);
}

/* A page that was a hole. */
static void
lose (unsigned i, unsigned page)
{
  struct pagemap_entry entry = { .slot = SLOT_LOST };
  int error;

  export_restore (m[i].export, page, entry);
  if (m[i].file)
    cr_assert_eq (mapfile_write (m[i].file, page, &entry, 1, &error), 1);
  m[i].is[page] = LOST;
}

static void
check_page (unsigned i, unsigned page)
{
  static const unsigned char zeroes[PAGE_BYTES];
  unsigned char data[PAGE_BYTES], should[PAGE_BYTES];
  uint32_t is = m[i].is[page];
  int ret = export_read (m[i].export, data, PAGE_BYTES, (uint64_t) page * PAGE_BYTES);

  CHECK (ret == (is == LOST ? -EIO : 0), "%u of %u: %s", page, i, logged_last ());
  fill (should, is);
  CHECK (ret < 0 || memcmp (data, is ? should : zeroes, PAGE_BYTES) == 0, "%u of %u", page, i);
}

static unsigned
count_slots (unsigned i)
{
  unsigned n = 0;

  for (unsigned page = 0; page < m[i].npages; page++)
    n += m[i].is[page] && m[i].is[page] != LOST;
  return n;
}

static int
compare_entries (void *opaque, uint64_t page, const struct pagemap_entry *entry, unsigned n)
{
  const struct export *e = opaque;

  for (unsigned k = 0; k < n; k++) {
    struct pagemap_entry is = export_entry (e, page + k);

    CHECK (is.slot == entry[k].slot && is.sum == entry[k].sum, "page %u of the file",
           (unsigned) page + k);
  }
  return 0;
}

static unsigned nfile_entries;

static int
count_entries (void *opaque, uint64_t page, const struct pagemap_entry *entry, unsigned n)
{
  (void) opaque, (void) page;
  for (unsigned k = 0; k < n; k++)
    nfile_entries += entry[k].slot != SLOT_NONE;
  return 0;
}

/* Everything is as it should be: sizes, pages, numbers, files. Nobody moves pages meanwhile. */
static void
check_all (void)
{
  uint64_t nused = 0;

  for (unsigned i = 0; i < NEXPORTS && m[i].export; i++) {
    unsigned nentries = 0;

    CHECK (export_size_bytes (m[i].export) == m[i].npages * PAGE_BYTES, "%u", i);
    for (unsigned page = 0; page < m[i].npages; page++) {
      check_page (i, page);
      nentries += m[i].is[page] != 0;
    }
    CHECK (export_npages_used (m[i].export) == count_slots (i), "%u", i);
    nused += count_slots (i);
    if (!m[i].file)
      continue;
    CHECK (file_stat (mapfile_path (m[i].file)).st_size == (off_t) m[i].npages * 8, "%u", i);
    nfile_entries = 0;
    CHECK (mapfile_read (m[i].file, compare_entries, m[i].export) == 0 &&
             mapfile_read (m[i].file, count_entries, NULL) == 0,
           "%s", logged_last ());
    CHECK (nfile_entries == nentries, "%u", i);
  }
  CHECK (drum_nused_anywhere (drum) == nused, "%u and %u", (unsigned) drum_nused_anywhere (drum),
         (unsigned) nused);
  CHECK (drum_check (drum), "%s", "");
}

static void
resize (unsigned i, unsigned npages)
{
  CHECK (export_resize (m[i].export, npages * PAGE_BYTES) == 0, "%s", logged_last ());
  if (npages > m[i].npages)
    memset (&m[i].is[m[i].npages], 0, (npages - m[i].npages) * sizeof m[i].is[0]);
  m[i].npages = npages;
}

/* What a pass is to return: pages have no room, or their number is not allowed. */
static int
should_pass (unsigned from, unsigned to, unsigned *npassing)
{
  *npassing = 0;
  for (unsigned page = m[to].npages; page < m[from].npages; page++)
    if (m[from].is[page])
      return -EFBIG;
  for (unsigned page = 0; page < m[from].npages && page < m[to].npages; page++)
    *npassing += m[from].is[page] && m[from].is[page] != LOST && !m[to].is[page];
  return export_limit_bytes (m[to].export) &&
             (count_slots (to) + *npassing) * PAGE_BYTES > export_limit_bytes (m[to].export)
           ? -ENOSPC
           : 0;
}

static void
pass (unsigned from, unsigned to)
{
  unsigned n;
  int should = should_pass (from, to, &n), ret;

  logged_start ();
  ret = export_pass (m[from].export, m[to].export);
  CHECK (ret == should, "%d from %u to %u, should be %d: %s", ret, from, to, should,
         logged_last ());
  CHECK (ret == 0 || (logged_count ("") == 1 && logged_last_level () == LEVEL_ERROR), "%s",
         logged_last ());
  for (unsigned page = 0; page < m[from].npages && ret == 0; page++) {
    if (m[from].is[page] && !m[to].is[page])
      m[to].is[page] = m[from].is[page];
    m[from].is[page] = 0;
  }
}

/* A hole of the new part is a hole, whatever was there; the rest stays. */
Test (export_shape, grows_and_shrinks)
{
  make (0, 1000, true, true);
  write_pages (0, 0, 1000);
  resize (0, 600);
  check_all ();
  resize (0, 1200);
  check_all ();
  write_pages (0, 590, 600);
  resize (0, 1);
  check_all ();
  resize (0, 1);
  resize (0, MAX_PAGES);
  check_all ();
}

/* Sizes that can't be; and more than the address space. */
Test (export_shape, sizes_that_cannot_be)
{
  make (0, 1000, true, true);
  write_pages (0, 0, 1000);
  cr_assert_eq (export_resize (m[0].export, 0), -EINVAL);
  cr_assert_eq (export_resize (m[0].export, 5000), -EINVAL);
  logged_start ();
  cr_assert_eq (export_resize (m[0].export, UINT64_C (1) << 62), -ENOMEM);
  assert_logged_error ("export \"number 0\": can't be given the size of 4");
  check_all ();
}

/* A reserve is of pages that there are; a size that the drum must have is looked at. */
Test (export_shape, sizes_and_promises)
{
  make (0, 1000, true, true);
  cr_assert_eq (export_promise (m[0].export, 500 * PAGE_BYTES, 0, false), 0);
  logged_start ();
  cr_assert_eq (export_resize (m[0].export, 499 * PAGE_BYTES), -EINVAL);
  assert_logged_error ("a size of 1.9M is less than its reserve of 1.9M");
  resize (0, 500);
  drum_set_overcommit (drum, false);
  cr_assert_eq (export_resize (m[0].export, 2 * NSLOTS * PAGE_BYTES), -ENOSPC);
  assert_logged_error ("overcommit=no");
  check_all ();
  make (1, 1000, false, true);
  resize (1, 800);
  cr_assert_eq (export_resize (m[0].export, (uint64_t) (2 * NSLOTS - 800) * PAGE_BYTES), -ENOSPC);
  logged_start ();
  /* all but what is kept back */
  cr_assert_eq (export_resize (m[0].export, (uint64_t) (2 * NSLOTS - 800 - 93) * PAGE_BYTES), 0,
                "%s", logged_last ());
  cr_assert_eq (export_resize (m[1].export, 801 * PAGE_BYTES), -ENOSPC);
}

/* Where both have a page, the destination's stays; lost ones pass as such. */
Test (export_shape, passes)
{
  make (0, 1000, true, true);
  make (1, 1200, true, true);
  write_pages (0, 0, 600);
  write_pages (1, 300, 500);
  lose (0, 900);
  lose (0, 610);
  lose (1, 10);
  pass (0, 1);
  check_all ();
  cr_assert_eq (m[1].is[900], LOST);
  cr_assert_eq (m[1].is[10], LOST);
  write_pages (0, 0, 1000);
  check_all ();
  trim (1, 0, 1200);
  pass (0, 1);
  check_all ();
  cr_assert_eq (export_npages_used (m[1].export), 1000);
}

/* Without checksums as well; but not from one to the other. */
Test (export_shape, checksums)
{
  make (0, 1000, false, false);
  make (1, 1000, false, false);
  make (2, 1000, false, true);
  write_pages (0, 0, 600);
  write_pages (1, 500, 500);
  pass (0, 1);
  check_all ();
  cr_assert_eq (export_entry (m[1].export, 0).sum, 0);
  logged_start ();
  cr_assert_eq (export_pass (m[1].export, m[2].export), -EINVAL);
  assert_logged_error ("one has checksums, and the other has none");
  cr_assert_eq (export_pass (m[1].export, m[1].export), -EINVAL);
  assert_logged_error ("it is the same");
  check_all ();
}

/* A larger one fits if it has nothing beyond. */
Test (export_shape, passes_to_a_smaller_one)
{
  make (0, 1500, true, true);
  make (1, 700, true, true);
  write_pages (0, 0, 1500);
  pass (0, 1);
  assert_logged_error (
    "export \"number 0\": its pages can't pass to \"number 1\": some lie beyond");
  check_all ();
  trim (0, 701, 799);
  pass (0, 1);
  trim (0, 700, 1);
  lose (0, 700);
  pass (0, 1);
  check_all ();
  trim (0, 700, 1);
  pass (0, 1);
  cr_assert_eq (export_npages_used (m[1].export), 700);
  check_all ();
}

/* However much larger it is, and wherever it once had something. */
Test (export_shape, passes_to_a_much_smaller_one)
{
  const uint64_t far_bytes = UINT64_C (1) << 43;
  unsigned char data[PAGE_BYTES];

  make (0, 10, false, true);
  make (1, 10, false, true);
  write_pages (0, 0, 10);
  fill (data, 1);
  cr_assert_eq (export_resize (m[0].export, far_bytes), 0);
  cr_assert_eq (export_write (m[0].export, data, PAGE_BYTES, far_bytes - PAGE_BYTES), 0);
  cr_assert_eq (export_pass (m[0].export, m[1].export), -EFBIG);
  cr_assert_eq (export_trim (m[0].export, PAGE_BYTES, far_bytes - PAGE_BYTES), 0);
  pass (0, 1);
  cr_assert_eq (export_resize (m[0].export, 10 * PAGE_BYTES), 0);
  check_all ();
}

/* Nobody has more than its limit by it, and what others were promised stays theirs. */
Test (export_shape, passes_and_promises)
{
  make (0, 1000, true, true);
  make (1, 1000, true, true);
  write_pages (0, 0, 600);
  write_pages (1, 500, 300);
  cr_assert_eq (export_promise (m[1].export, 0, 799 * PAGE_BYTES, false), 0);
  pass (0, 1);
  assert_logged_error ("that one would come to 3.1M, and its limit is 3.1M");
  check_all ();
  cr_assert_eq (export_promise (m[1].export, 0, 800 * PAGE_BYTES, false), 0);
  pass (0, 1);
  check_all ();

  write_pages (0, 0, 1000);
  trim (1, 0, 1000);
  cr_assert_eq (export_promise (m[1].export, 0, 0, false), 0);
  cr_assert_eq (export_promise (m[0].export, 1000 * PAGE_BYTES, 0, false), 0);
  drum_take_any (drum, 4500);
  logged_start ();
  cr_assert_eq (export_pass (m[0].export, m[1].export), -ENOSPC);
  assert_logged_error (
    "what is reserved and not used would come to 3.9M, and the drum has 1.5M free");
  cr_assert_eq (export_promise (m[0].export, 400 * PAGE_BYTES, 0, false), 0);
  cr_assert_eq (export_pass (m[0].export, m[1].export), 0, "%s", logged_last ());
}

/* ---- beside others that walk the maps ---- */

static atomic_bool stop;
static _Atomic unsigned nwalks;

static void
note_unreadable (void *opaque, uint64_t page)
{
  (void) opaque;
  FAIL_UNLESS (false, "page %" PRIu64 " can't be read", page);
}

static void
note_failed_check (void *opaque, uint64_t page, int err)
{
  (void) opaque;
  FAIL_UNLESS (false, "page %" PRIu64 " can't be read: %d", page, err);
}

/* Moves all pages to other slots, or looks at all. */
static void *
walk (void *arg)
{
  bool move = arg;
  void *buf = aligned_alloc (PAGE_BYTES, 16 * PAGE_BYTES);
  struct pages_move moving = { .first_slot = 1,
                               .end_slot = SLOT_LOST,
                               .above = PRIO_ANY,
                               .buf = buf,
                               .unreadable = note_unreadable };
  struct pages_check check = {
    .first_slot = 1, .end_slot = SLOT_LOST, .buf = buf, .unreadable = note_failed_check
  };

  while (!atomic_load (&stop))
    for (unsigned i = 0; i < NEXPORTS; i++) {
      uint64_t page = 0;
      int ret = 0;

      while (page != UINT64_MAX && ret >= 0 && !atomic_load (&stop))
        if (move)
          ret = export_move (m[i].export, &page, 16, &moving);
        else
          export_check (m[i].export, &page, 16, &check);
      FAIL_UNLESS (ret >= 0, "pages can't be moved: %s", strerror (-ret));
      atomic_fetch_add (&nwalks, 1);
    }
  free (buf);
  return NULL;
}

/* Often there is a limit. */
static void
random_pass (unsigned from, unsigned to)
{
  uint64_t limit = rng_below (&rng, 3) ? 0 : count_slots (to) + rng_below (&rng, 500);

  cr_assert_eq (export_promise (m[to].export, 0, limit * PAGE_BYTES, false), 0);
  pass (from, to);
  cr_assert_eq (export_promise (m[to].export, 0, 0, false), 0);
}

static void
random_step (bool walkers)
{
  unsigned i = (unsigned) rng_below (&rng, NEXPORTS), what = (unsigned) rng_below (&rng, 100);
  unsigned page = (unsigned) rng_below (&rng, m[i].npages);
  unsigned n = 1 + (unsigned) rng_below (&rng, what % 4 ? 40 : m[i].npages);

  n = n < m[i].npages - page ? n : m[i].npages - page;
  if (what < 40)
    write_pages (i, page, n);
  else if (what < 50)
    trim (i, page, n);
  else if (what < 60)
    resize (i, 1 + (unsigned) rng_below (&rng, rng_below (&rng, 4) ? MAX_PAGES : m[i].npages));
  else if (what < 70)
    random_pass (i, (i + 1 + (unsigned) rng_below (&rng, NEXPORTS - 1)) % NEXPORTS);
  else if (what < 72 && !m[i].is[page])
    lose (i, page);
  else
    check_page (i, page);
  CHECK (export_npages_used (m[i].export) == count_slots (i), "%u", i);
  if (!walkers && step % 32 == 0)
    check_all ();
}

static void
compare_with_model (unsigned nsteps, bool with_files, bool walkers)
{
  pthread_t thread[2];

  for (unsigned i = 0; i < NEXPORTS; i++)
    make (i, 100 + (unsigned) rng_below (&rng, MAX_PAGES - 100), with_files, true);
  for (uintptr_t i = 0; i < 2 && walkers; i++)
    cr_assert_eq (pthread_create (&thread[i], NULL, walk, (void *) i), 0);
  for (step = 0; step < nsteps || (walkers && atomic_load (&nwalks) < 20 && !failed); step++)
    random_step (walkers);
  atomic_store (&stop, true);
  for (unsigned i = 0; i < 2 && walkers; i++)
    pthread_join (thread[i], NULL);
  assert_not_failed ();
  check_all ();
  for (unsigned i = 0; i < NEXPORTS; i++)
    trim (i, 0, m[i].npages);
  check_all ();
  cr_assert_eq (drum_nused_anywhere (drum), 0);
}

/* Whatever is done to them, three exports say what a naive model says. */
Test (export_shape, like_a_model)
{
  compare_with_model (random_steps (6000), false, false);
}

Test (export_shape, like_a_model_with_files)
{
  rng = rng_for (2);
  compare_with_model (random_steps (6000), true, false);
}

/* The same while pages are moved and checked. */
Test (export_shape, beside_walkers)
{
  rng = rng_for (3);
  compare_with_model (random_steps (6000), true, true);
}
