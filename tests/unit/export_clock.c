/* SPDX-License-Identifier: BSD-3-Clause
 *
 * export_clock.c - how long does a request take, and how long its transfer, by a clock that goes on by one whenever somebody looks at it?
 */
#include <config.h>

#include <criterion/criterion.h>
#include <string.h>

#include "lib/export.h"
#include "lib/rangelock.h"
#include "lib/stats.h"
#include "tests/scratch.h"

#include "devices.h"
#include "logged.h"

enum { NPAGES = 100 };

static struct drum *drum;
static struct export *export;
static struct swapdev *swapdev;
static char pages[2 * PAGE_BYTES];
static uint64_t ticks = UINT64_C (1) << 40; /* long after the start */
static bool waits;                          /* for its pages */

uint64_t __wrap_now_ns (void);
bool __real_rangelock_lock (struct rangelock *rl, struct rangelock_holder *holder, uint64_t start,
                            uint64_t end, bool exclusive);
bool __wrap_rangelock_lock (struct rangelock *rl, struct rangelock_holder *holder, uint64_t start,
                            uint64_t end, bool exclusive);

uint64_t
__wrap_now_ns (void)
{
  return ++ticks;
}

bool
__wrap_rangelock_lock (struct rangelock *rl, struct rangelock_holder *holder, uint64_t start,
                       uint64_t end, bool exclusive)
{
  __real_rangelock_lock (rl, holder, start, end, exclusive);
  ticks += waits ? 1000 : 0;
  return waits;
}

static void
setup (void)
{
  struct export_config config = { .name = "e",
                                  .size_bytes = NPAGES * PAGE_BYTES,
                                  .checksum = true };
  struct drum_device_info info;

  scratch_setup ();
  logged_start ();
  drum = drum_make (16);
  drum_add_file (drum, "a", 0, NPAGES);
  cr_assert (drum_find_file (drum, "a", &info));
  swapdev = info.swapdev;
  cr_assert_eq (export_create (drum, &config, &export), 0);
  memset (pages, 1, sizeof pages);
  /* The device has not seen it before, and looks who it is. */
  cr_assert_eq (export_write (export, pages, sizeof pages, 0), 0);
}

static void
teardown (void)
{
  export_destroy (export);
  drum_destroy (drum);
  scratch_teardown ();
}

TestSuite (export_clock, .init = setup, .fini = teardown, .timeout = 120);

/* The next request takes so long, and its transfer. */
static void
assert_takes (bool write, unsigned npages, uint64_t ns, uint64_t transfer_ns)
{
  enum export_op op = write ? EXPORT_WRITE : EXPORT_READ;
  struct stats_snapshot before[2], after[2];

  export_stats (export, op, &before[0]);
  stats_read (swapdev_stats (swapdev, write), &before[1]);
  cr_assert_eq (write ? export_write (export, pages, npages * PAGE_BYTES, 0)
                      : export_read (export, pages, npages * PAGE_BYTES, 0),
                0);
  export_stats (export, op, &after[0]);
  stats_read (swapdev_stats (swapdev, write), &after[1]);
  cr_assert_eq (after[0].total_ns - before[0].total_ns, ns);
  cr_assert_eq (after[1].total_ns - before[1].total_ns, transfer_ns);
  cr_assert_eq (after[0].last_ns, ticks);
}

/* A page: a read begins and ends with its transfer. A write may have to wait for a slot, and so begins before it. */
Test (export_clock, a_page_ends_with_its_transfer)
{
  assert_takes (true, 1, 2, 1);
  assert_takes (false, 1, 1, 1);
}

/* To make or check the sums of more takes time. */
Test (export_clock, more_pages_end_later)
{
  assert_takes (true, 2, 3, 1);
  assert_takes (false, 2, 2, 1);
}

/* Who waits for his pages keeps no device waiting. */
Test (export_clock, transfers_begin_when_the_pages_are_ours)
{
  waits = true;
  assert_takes (true, 1, 1002, 1);
  assert_takes (false, 1, 1002, 1);
}

/* What needs no transfer takes time, too. */
Test (export_clock, without_a_transfer)
{
  memset (pages, 0, sizeof pages);
  assert_takes (true, 1, 1, 0);
  assert_takes (false, 1, 1, 0);
}
