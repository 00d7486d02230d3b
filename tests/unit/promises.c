/* SPDX-License-Identifier: BSD-3-Clause
 *
 * promises.c - tests of what exports are promised, and of what they may not exceed: several exports on one drum.
 *
 * drum_model.c compares the accounting of slots with a plain array; here it is that of pages, with devices that fail.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "lib/drum-health.h"
#include "lib/export.h"
#include "lib/mapfile.h"
#include "lib/pagemap.h"
#include "lib/pages.h"
#include "lib/placement.h"
#include "lib/stats.h"
#include "tests/random.h"
#include "tests/scratch.h"
#include "tests/stamp.h"

#include "devices.h"
#include "failed.h"
#include "faulty.h"
#include "logged.h"

enum { NEXPORTS = 4, NPAGES = 300, NSLOTS = 639, NUSABLE = NSLOTS - 9, MAX_REQUEST = 64 };

static struct drum *drum;
static struct export *export[NEXPORTS];
static uint64_t later_ns; /* than it is */

uint64_t __real_now_ns (void);
uint64_t __wrap_now_ns (void);

uint64_t
__wrap_now_ns (void)
{
  return __real_now_ns () + later_ns;
}

static struct export *
make_export (const char *name, uint64_t npages)
{
  struct export_config config = { .name = name,
                                  .size_bytes = npages * PAGE_BYTES,
                                  .checksum = true };
  struct export *e = NULL;

  cr_assert_eq (export_create (drum, &config, &e), 0, "%s", logged_last ());
  return e;
}

/* Two devices, a and b, with NSLOTS slots together. */
static void
setup (void)
{
  static const char *const name[NEXPORTS] = { "e0", "e1", "e2", "e3" };

  scratch_setup ();
  logged_start ();
  drum = drum_make (16);
  drum_add_file (drum, "a", 1, 320);
  drum_add_file (drum, "b", 0, NSLOTS - 320);
  for (unsigned i = 0; i < NEXPORTS; i++)
    export[i] = make_export (name[i], NPAGES);
}

static void
teardown (void)
{
  faulty_clear ();
  for (unsigned i = 0; i < NEXPORTS; i++)
    export_destroy (export[i]);
  drum_destroy (drum);
  scratch_teardown ();
}

TestSuite (promises, .init = setup, .fini = teardown, .timeout = 600);

static int
promise (unsigned i, uint64_t nreserved, uint64_t nlimit)
{
  return export_promise (export[i], nreserved * PAGE_BYTES, nlimit * PAGE_BYTES, false);
}

static int
write_pages (unsigned i, uint64_t first, uint64_t n)
{
  static _Thread_local char data[NPAGES * PAGE_BYTES];

  for (uint64_t page = first; page < first + n; page++)
    stamp_fill (data + (page - first) * PAGE_BYTES, (struct stamp){ i + 1, 1, page });
  return export_write (export[i], data, n * PAGE_BYTES, first * PAGE_BYTES);
}

static int
trim_pages (unsigned i, uint64_t first, uint64_t n)
{
  return export_trim (export[i], n * PAGE_BYTES, first * PAGE_BYTES);
}

static uint64_t
npromised (void)
{
  struct drum_usage usage;

  drum_usage (drum, &usage);
  return usage.npromised;
}

/* Have the exports from first on write until nothing is left for them. */
static void
fill_drum (unsigned first)
{
  for (unsigned i = first; i < NEXPORTS; i++)
    write_pages (i, 0, NPAGES);
  for (unsigned i = first; i < NEXPORTS; i++)
    cr_assert (export_npages_used (export[i]) == NPAGES || write_pages (i, NPAGES - 1, 1) < 0);
}

/* With the rest of the drum full, each has his reserve, and not a page more; and his pages can be rewritten. */
Test (promises, are_kept_on_a_full_drum)
{
  cr_assert_eq (promise (0, 100, 0), 0);
  cr_assert_eq (promise (1, 77, 0), 0);
  cr_assert_eq (npromised (), 177);
  fill_drum (2);
  cr_assert_eq (export_npages_used (export[2]) + export_npages_used (export[3]), NUSABLE - 177);
  cr_assert_eq (write_pages (0, 0, 100), 0);
  cr_assert_eq (write_pages (0, 100, 1), -ENOSPC);
  for (unsigned page = 0; page < 77; page++)
    cr_assert_eq (write_pages (1, 2 * page, 1), 0, "page %u", page);
  cr_assert_eq (write_pages (1, 1, 1), -ENOSPC);
  cr_assert_eq (npromised (), 0);
  cr_assert_eq (write_pages (0, 0, 100), 0);
  cr_assert_eq (trim_pages (0, 10, 20), 0);
  cr_assert_eq (npromised (), 20);
  cr_assert_eq (write_pages (1, 1, 1), -ENOSPC, "took what is promised to another");
  cr_assert_eq (write_pages (0, 110, 20), 0);
}

/* A limit is for new pages of that export alone: no others', no rewrites; and it is said once, until it has fallen well below. */
Test (promises, limit)
{
  cr_assert_eq (promise (0, 0, 40), 0);
  cr_assert_eq (write_pages (0, 0, 41), -ENOSPC);
  cr_assert_eq (export_npages_used (export[0]), 40);
  cr_assert_eq (logged_count ("export \"e0\": has reached its limit of 160K"), 1);
  cr_assert_eq (write_pages (0, 100, 1), -ENOSPC);
  cr_assert_eq (write_pages (0, 0, 40), 0);
  cr_assert_eq (write_pages (1, 0, NPAGES), 0);
  cr_assert_eq (trim_pages (0, 0, 20), 0);
  cr_assert_eq (write_pages (0, 100, 21), -ENOSPC);
  cr_assert_eq (logged_count (""), 1, "%s", logged_last ());
  cr_assert_eq (trim_pages (0, 20, 81), 0);
  cr_assert_eq (write_pages (0, 200, 22), -ENOSPC);
  cr_assert_eq (logged_count ("limit"), 2);
  cr_assert_eq (logged_count (""), 2, "%s", logged_last ());
  cr_assert_eq (promise (0, 0, 0), 0);
  cr_assert_eq (write_pages (0, 0, NPAGES), 0);
}

/* It opens no device that is closing. */
Test (promises, limit_leaves_closing_devices_alone)
{
  struct swapdev *dev;

  cr_assert_eq (promise (0, 0, 10), 0);
  cr_assert_eq (drum_close_device (drum, place_of (scratch_path ("a")), &dev), 0);
  cr_assert_eq (write_pages (0, 0, 11), -ENOSPC);
  drum_assert_state (drum, "a", DEVICE_CLOSING);
}

/* What can't be promised is refused, with numbers, and nothing changes; less than before is always promised. */
Test (promises, what_can_be_promised)
{
  cr_assert_eq (promise (0, NPAGES + 1, 0), -EINVAL);
  assert_logged_error ("export \"e0\": a size of 1.1M is less than its reserve of 1.1M");
  cr_assert_eq (promise (0, 50, 49), -EINVAL);
  assert_logged_error ("a limit of 196K is less than its reserve of 200K");
  cr_assert_eq (export_promise (export[0], PAGE_BYTES + 1, 0, false), -EINVAL);
  assert_logged_error ("multiples of 4096");
  cr_assert_eq (promise (0, NPAGES, NPAGES), 0);
  cr_assert_eq (promise (1, NPAGES, 0), 0);
  logged_start (); /* little is left for others */
  cr_assert_eq (promise (2, NUSABLE - 2 * NPAGES + 1, 0), -ENOSPC);
  assert_logged_error ("all reserves would come to 2.4M, and the drum has 2.4M");
  cr_assert_eq (export_reserve_bytes (export[2]), 0);
  cr_assert_eq (promise (2, NUSABLE - 2 * NPAGES, 0), 0);
  cr_assert_eq (promise (2, 1, 0), 0);
  cr_assert_eq (promise (1, 0, 0), 0);
  cr_assert_eq (write_pages (3, 0, NPAGES), 0);
  logged_start ();
  cr_assert_eq (promise (1, NUSABLE - 2 * NPAGES, 0), -ENOSPC);
  assert_logged_error (
    "what is reserved and not used would come to 1.2M, and the drum has 1.2M free");
  cr_assert_eq (promise (1, NUSABLE - 2 * NPAGES - 1, 0), 0);
  cr_assert_eq (export_limit_bytes (export[0]), NPAGES * PAGE_BYTES);
}

/* Without overcommit the sizes of all have to fit, those that come and those that are there. */
Test (promises, no_overcommit)
{
  struct export_config config = { .name = "one", .size_bytes = PAGE_BYTES, .checksum = true };
  struct export *one = NULL;
  struct swapdev *dev;

  cr_assert_eq (export_create (drum, &config, &one), 0);
  export_destroy (one);
  one = NULL;
  drum_set_overcommit (drum, false);
  cr_assert_eq (logged_count ("overcommit=no: the exports come to 4.6M, and the drum has 2.4M"), 1);
  logged_start ();
  cr_assert_eq (export_create (drum, &config, &one), -ENOSPC);
  assert_logged_error (
    "a size of 4K: all sizes would come to 4.6M, and the drum has 2.4M (overcommit=no)");
  cr_assert_null (one);
  drum_add_file (drum, "c", 0, 700);
  cr_assert_eq (export_create (drum, &config, &one), 0);
  cr_assert_eq (drum_close_device (drum, place_of (scratch_path ("c")), &dev), -ENOSPC);
  assert_logged_error ("/c: without it the drum has 2.4M, and 4.6M is the size of all exports");
  drum_set_overcommit (drum, true);
  cr_assert_eq (drum_close_device (drum, place_of (scratch_path ("c")), &dev), 0);
  export_destroy (one);
}

/* A device without which reserves could not be kept stays. */
Test (promises, need_their_devices)
{
  struct swapdev *dev;

  cr_assert_eq (promise (0, 300, 0), 0);
  cr_assert_eq (promise (1, 16, 0), 0);
  cr_assert_eq (drum_close_device (drum, place_of (scratch_path ("a")), &dev), -ENOSPC);
  assert_logged_error ("/a: without it the drum has 1.2M, and 1.2M are reserved for exports");
  cr_assert_eq (promise (1, 0, 0), 0);
  cr_assert_eq (drum_close_device (drum, place_of (scratch_path ("a")), &dev), -ENOSPC);
  assert_logged_error ("have room for 0B beside what is reserved");
  cr_assert_eq (promise (0, 260, 0), 0);
  cr_assert_eq (write_pages (1, 0, 30), 0);
  cr_assert_eq (drum_close_device (drum, place_of (scratch_path ("a")), &dev), -ENOSPC);
  assert_logged_error ("/a: holds 120K, and the other devices have room for 44K beside");
  cr_assert_eq (trim_pages (1, 0, 19), 0);
  cr_assert_eq (drum_close_device (drum, place_of (scratch_path ("a")), &dev), 0);
}

/* A failing device can't be refused: that is said once, with numbers; and when they can be kept again. */
Test (promises, a_device_that_fails)
{
  struct drum_device_info info;

  cr_assert_eq (promise (0, 300, 0), 0);
  cr_assert_eq (promise (1, 300, 0), 0);
  cr_assert (drum_find_file (drum, "a", &info));
  drum_fail_device (drum, info.swapdev, "a test");
  cr_assert_eq (
    logged_count ("can't keep what it promised: 2.3M are reserved, and 2.3M of that not "
                  "used yet; it has 1.2M, and 1.2M of that free"),
    1);
  cr_assert_eq (write_pages (2, 0, 1), -ENOSPC, "there is nothing but for those with a reserve");
  cr_assert_eq (write_pages (0, 0, 300), 0, "first come, first served");
  cr_assert_eq (write_pages (1, 0, 300), -ENOSPC);
  cr_assert_eq (export_npages_used (export[1]), NSLOTS - 320 - 5 + 1 - 300);
  cr_assert_eq (logged_count ("promised"), 1);
  drum_add_file (drum, "c", 0, 320);
  cr_assert_eq (logged_count ("can keep what it promised again: 2.3M are reserved"), 1);
  cr_assert_eq (write_pages (1, 0, 300), 0);
}

/* A restart where a device is missing promises what it did before. */
Test (promises, by_force)
{
  cr_assert_eq (export_promise (export[0], 300 * PAGE_BYTES, 0, true), 0);
  cr_assert_eq (export_promise (export[1], 300 * PAGE_BYTES, 0, true), 0);
  cr_assert_eq (logged_count ("promised"), 0);
  cr_assert_eq (export_promise (export[2], 300 * PAGE_BYTES, 0, true), 0);
  cr_assert_eq (logged_count ("can't keep what it promised: 3.5M are reserved"), 1);
  cr_assert_eq (export_promise (export[3], 300 * PAGE_BYTES, 0, true), 0);
  cr_assert_eq (logged_count ("promised"), 1);
  cr_assert_eq (export_reserve_bytes (export[3]), 300 * PAGE_BYTES);
  cr_assert_eq (promise (3, 200, 0), 0, "less can always be promised");
}

/* To fill a range takes a reserve for those of its pages that have no slot. */
Test (promises, fill)
{
  uint64_t reserve = 7;

  cr_assert_eq (write_pages (0, 0, 20), 0);
  cr_assert_eq (export_fill (export[0], 20 * PAGE_BYTES, 10 * PAGE_BYTES, &reserve), 0);
  cr_assert_eq (reserve, 30 * PAGE_BYTES);
  cr_assert_eq (export_fill (export[0], 2, 31 * PAGE_BYTES - 1, &reserve), 0);
  cr_assert_eq (reserve, 22 * PAGE_BYTES + 8 * PAGE_BYTES, "never less than before");
  cr_assert_eq (export_fill (export[0], 11 * PAGE_BYTES + 1, 30 * PAGE_BYTES - 1, &reserve), 0);
  cr_assert_eq (reserve, 32 * PAGE_BYTES);
  cr_assert_eq (export_fill (export[0], NPAGES * PAGE_BYTES, 1, &reserve), -EINVAL);
  assert_logged_error ("has no 1.1M at 1B");
  cr_assert_eq (export_fill (export[0], UINT64_MAX, 2, &reserve), -EINVAL);
  logged_start ();
  cr_assert_eq (promise (0, 32, 40), 0);
  cr_assert_eq (export_fill (export[0], NPAGES * PAGE_BYTES, 0, &reserve), -ENOSPC);
  assert_logged_error ("filling that takes a reserve of 1.1M, and its limit is 160K");
  cr_assert_eq (reserve, 32 * PAGE_BYTES);
  cr_assert_eq (export_reserve_bytes (export[0]), 32 * PAGE_BYTES);
  cr_assert_eq (promise (0, 0, 0), 0);
  cr_assert_eq (export_fill (export[0], NPAGES * PAGE_BYTES, 0, &reserve), 0);
  fill_drum (1);
  cr_assert_eq (write_pages (0, 0, NPAGES), 0);
}

/* What is promised to an export is everybody's again once it is gone. */
Test (promises, end_with_the_export)
{
  struct export *e = make_export ("gone", 300);

  cr_assert_eq (export_promise (e, 300 * PAGE_BYTES, 0, false), 0);
  cr_assert_eq (promise (0, 300, 0), 0);
  cr_assert_eq (promise (1, 300, 0), -ENOSPC);
  export_destroy (e);
  cr_assert_eq (npromised (), 300);
  cr_assert_eq (promise (1, 300, 0), 0);
}

/* Random requests of several exports, and what they should be. */
struct model {
  struct rng rng;
  unsigned step, nfull, nfailed, nhonoured;
  bool used[NEXPORTS][NPAGES];
  uint64_t nused[NEXPORTS], nreserved[NEXPORTS], nlimit[NEXPORTS];
};

static struct model m;

#define CHECK(condition, ...)                                                                      \
  do {                                                                                             \
    if (!(condition))                                                                              \
      cr_assert (false, "DRUM_TEST_SEED=%" PRIu64 ", step %u: not %s: %s", random_seed (), m.step, \
                 #condition, str (__VA_ARGS__));                                                   \
  } while (0)

static uint64_t
less (uint64_t a, uint64_t b)
{
  return a > b ? a - b : 0;
}

/* A request of export i has ended: which of the pages have a slot now? */
static void
recount (unsigned i, uint64_t first, uint64_t n)
{
  for (uint64_t page = first; page < first + n; page++) {
    bool used = pagemap_has_slot (export_entry (export[i], page));

    m.nused[i] += used - m.used[i][page];
    m.used[i][page] = used;
  }
}

/* Some writes fail: of data, or of entries of a map. */
static bool
let_fail (void)
{
  if (rng_below (&m.rng, 4))
    return false;
  faulty_add (
    &(struct faulty){ .calls = FAULTY_WRITE,
                      .action = rng_below (&m.rng, 2) ? FAULTY_FAIL : FAULTY_TEAR,
                      .error = rng_below (&m.rng, 2) ? EIO : ENOSPC,
                      .skip = (unsigned) rng_below (&m.rng, 3),
                      .count = rng_below (&m.rng, 8) ? 1 + (unsigned) rng_below (&m.rng, 4) : 0 });
  return true;
}

/* The disks work again, and what is suspect is well; later, that which is looked at later. */
static void
heal (void)
{
  struct drum_device_info info[2];

  faulty_clear ();
  later_ns += UINT64_C (60) * 1000000000;
  drum_heal (drum);
  drum_devices (drum, info, 2);
  for (unsigned i = 0; i < 2; i++)
    if (info[i].state != DEVICE_OPEN)
      cr_assert_eq (drum_reopen_device (drum, place_of (swapdev_path (info[i].swapdev))), 0);
  drum_heal (drum);
}

/* Whole pages, some of them zeroes. What is within a reserve can't fail; what is not may, and never goes beyond a limit. */
static void
step_write (bool faults)
{
  static char data[MAX_REQUEST * PAGE_BYTES];
  unsigned i = (unsigned) rng_below (&m.rng, NEXPORTS);
  uint64_t n = 1 + rng_below (&m.rng, MAX_REQUEST), first = rng_below (&m.rng, NPAGES - n + 1);
  uint64_t nnew = 0, before = m.nused[i];
  int ret;

  memset (data, 0, sizeof data);
  for (uint64_t k = 0; k < n; k++) {
    if (rng_below (&m.rng, 8) == 0)
      continue;
    nnew += !m.used[i][first + k];
    stamp_fill (data + k * PAGE_BYTES, (struct stamp){ i + 1, m.step, first + k });
  }
  ret = export_write (export[i], data, n * PAGE_BYTES, first * PAGE_BYTES);
  recount (i, first, n);
  if (before + nnew <= m.nreserved[i] && !faults) {
    CHECK (ret == 0, "%u and %u of %u: %d", (unsigned) before, (unsigned) nnew,
           (unsigned) m.nreserved[i], ret);
    m.nhonoured += nnew > 0;
  }
  CHECK (ret == 0 || ret == -ENOSPC || (faults && ret == -EIO), "%d", ret);
  CHECK (!m.nlimit[i] || m.nused[i] <= m.nlimit[i] || m.nused[i] <= before, "%u of %u",
         (unsigned) m.nused[i], (unsigned) m.nlimit[i]);
  m.nfull += ret == -ENOSPC;
  m.nfailed += faults && ret < 0;
}

static void
step_clear (void)
{
  unsigned i = (unsigned) rng_below (&m.rng, NEXPORTS);
  uint64_t n = 1 + rng_below (&m.rng, 2 * MAX_REQUEST), first = rng_below (&m.rng, NPAGES - n + 1);
  int ret = rng_below (&m.rng, 2)
              ? export_trim (export[i], n * PAGE_BYTES, first * PAGE_BYTES)
              : export_zero (export[i], n * PAGE_BYTES, first * PAGE_BYTES, false);

  CHECK (ret == 0 || ret == -EIO || ret == -ENOSPC, "%d", ret);
  recount (i, first, n);
}

static void
step_promise (void)
{
  unsigned i = (unsigned) rng_below (&m.rng, NEXPORTS);
  uint64_t nreserved = rng_below (&m.rng, 3) ? rng_below (&m.rng, 200) : 0, fill = 0;
  uint64_t nlimit = rng_below (&m.rng, 2) ? 0 : nreserved + rng_below (&m.rng, 100);

  if (rng_below (&m.rng, 4) == 0) {
    if (export_fill (export[i], 50 * PAGE_BYTES, 70 * PAGE_BYTES, &fill) == 0)
      m.nreserved[i] = fill / PAGE_BYTES;
  } else if (promise (i, nreserved, nlimit) == 0) {
    m.nreserved[i] = nreserved;
    m.nlimit[i] = nlimit;
  }
}

static void
check_accounts (void)
{
  uint64_t nused = 0, unfilled = 0;
  struct drum_usage usage;

  for (unsigned i = 0; i < NEXPORTS; i++) {
    CHECK (export_npages_used (export[i]) == m.nused[i], "export %u: %u, not %u", i,
           (unsigned) export_npages_used (export[i]), (unsigned) m.nused[i]);
    nused += m.nused[i];
    unfilled += less (m.nreserved[i], m.nused[i]);
  }
  drum_usage (drum, &usage);
  CHECK (usage.npromised == unfilled, "%u", (unsigned) usage.npromised);
  CHECK (usage.nslots - usage.nfree == nused, "%u", (unsigned) (usage.nslots - usage.nfree));
  CHECK (usage.nfree >= usage.nkept + usage.npromised, "%u free", (unsigned) usage.nfree);
  CHECK (m.step % 16 || drum_check (drum), "%s", "");
}

/* Each export has just the slots that its pages have, whatever is asked and fails; and nobody takes what is promised to another. */
Test (promises, like_a_model)
{
  unsigned nsteps = random_steps (8000);
  struct mapfile *map;
  int dirfd = open (scratch_path (""), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

  for (unsigned i = 0; i < 2; i++) { /* two of them have a file for their map */
    struct export_config config = { .name = "file",
                                    .size_bytes = NPAGES * PAGE_BYTES,
                                    .checksum = true };

    cr_assert_eq (mapfile_create (dirfd, scratch_path (""), str ("map-%u", i), NPAGES, &map), 0);
    config.file = map;
    export_destroy (export[i]);
    cr_assert_eq (export_create (drum, &config, &export[i]), 0);
  }
  close (dirfd);
  m.rng = rng_for (1);
  for (m.step = 0; m.step < nsteps; m.step++) {
    uint64_t what = rng_below (&m.rng, 100);
    bool faults = let_fail ();

    if (what < 60)
      step_write (faults);
    else if (what < 95)
      step_clear ();
    if (faults)
      heal ();
    if (what >= 95)
      step_promise ();
    check_accounts ();
  }
  CHECK (nsteps < 1000 || (m.nfull > 10 && m.nfailed > 10 && m.nhonoured > 10), "%u, %u, %u",
         m.nfull, m.nfailed, m.nhonoured);
}

enum { NTHREADS = 6, NLIMIT = 70, RESERVED = 120 };

static unsigned nsteps;

/* The first export has a reserve, and uses just that; the second has a limit; the others are greedy. Several threads each. */
static void *
one_of_many (void *arg)
{
  uintptr_t me = (uintptr_t) arg;
  unsigned i = (unsigned) (me % NEXPORTS);
  struct rng rng = rng_for (me);
  uint64_t share = i == 0 ? RESERVED / 2 : NPAGES; /* two threads, with their own pages */
  uint64_t base = i == 0 ? me / NEXPORTS * share : 0;

  for (unsigned step = 0; step < nsteps && !failed; step++) {
    uint64_t n = 1 + rng_below (&rng, MAX_REQUEST < share ? MAX_REQUEST : share);
    uint64_t first = base + rng_below (&rng, share - n + 1);
    int ret =
      rng_below (&rng, i == 0 ? 2 : 4) ? write_pages (i, first, n) : trim_pages (i, first, n);

    FAIL_UNLESS (ret == 0 || (ret == -ENOSPC && i != 0), "export %u: %s", i, strerror (-ret));
    FAIL_UNLESS (export_npages_used (export[1]) <= NLIMIT, "%u pages",
                 (unsigned) export_npages_used (export[1]));
  }
  return NULL;
}

/* The greedy fill the drum while others find what they were promised, and no limit is exceeded. */
Test (promises, many_at_once)
{
  pthread_t thread[NTHREADS];
  uint64_t nused = 0;

  nsteps = random_steps (1500);
  cr_assert_eq (promise (0, RESERVED, 0), 0);
  cr_assert_eq (promise (1, 10, NLIMIT), 0);
  fill_drum (2);
  for (uintptr_t i = 0; i < NTHREADS; i++)
    cr_assert_eq (pthread_create (&thread[i], NULL, one_of_many, (void *) i), 0);
  for (unsigned i = 0; i < NTHREADS; i++)
    pthread_join (thread[i], NULL);
  assert_not_failed ();
  for (unsigned i = 0; i < NEXPORTS; i++) {
    uint64_t n = 0;

    for (uint64_t page = 0; page < NPAGES; page++)
      n += pagemap_has_slot (export_entry (export[i], page));
    cr_assert_eq (export_npages_used (export[i]), n, "export %u", i);
    nused += n;
  }
  cr_assert_eq (drum_nused (drum), nused);
  cr_assert (drum_check (drum));
}

static void
ignore_unreadable (void *opaque, uint64_t page)
{
  (void) opaque;
  (void) page;
}

/* Pages that move off a device take nothing that is promised. Those that are lost are none of their export's. */
Test (promises, moves_take_nothing)
{
  static char buf[NPAGES * PAGE_BYTES];
  struct drum_device_info info;
  struct pages_move move = { .buf = buf, .above = PRIO_ANY, .unreadable = ignore_unreadable };
  uint64_t page = 0;

  cr_assert_eq (write_pages (0, 0, 100), 0);
  cr_assert (drum_find_file (drum, "a", &info));
  move.first_slot = info.first;
  move.end_slot = info.end;
  drum_fail_device (drum, info.swapdev, "a test");
  cr_assert_eq (promise (0, 110, 0), 0);
  cr_assert_eq (export_promise (export[1], 255 * PAGE_BYTES, 0, true), 0);
  cr_assert_eq (export_move (export[0], &page, 50, &move), 50);
  cr_assert_eq (export_move (export[0], &page, 1, &move), -ENOSPC);
  cr_assert_eq (export_promise (export[1], 256 * PAGE_BYTES, 0, true), 0);
  cr_assert_eq (export_move (export[0], &page, 1, &move), -ENOSPC, "nor when there is less");
  cr_assert_eq (export_npages_used (export[0]), 100);
  cr_assert_eq (write_pages (1, 0, 255), 0);
  faulty_add (&(struct faulty){ .name = "a", .calls = FAULTY_READ, .error = EIO });
  move.lose = true;
  cr_assert_eq (export_move (export[0], &page, 20, &move), 20);
  cr_assert_eq (export_npages_used (export[0]), 80);
  cr_assert_eq (npromised (), 30 + 1);
  cr_assert_eq (write_pages (0, 50, 1), 0, "a page that is lost is a new one");
  cr_assert_eq (export_npages_used (export[0]), 81);
}
