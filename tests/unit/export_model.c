/* SPDX-License-Identifier: BSD-3-Clause
 *
 * export_model.c - lib/export.c compared with a shadow copy, over random requests of any alignment.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/export.h"
#include "tests/random.h"
#include "tests/scratch.h"

#include "devices.h"
#include "logged.h"

enum { NPAGES = 700, BYTES = NPAGES * PAGE_BYTES };

struct model {
  struct drum *drum;
  struct export *export;
  struct rng rng;
  unsigned step, nfull;
  unsigned char shadow[BYTES];
  bool used[NPAGES]; /* the page is not zero */
  unsigned nused;
};

static struct model m;
static unsigned char buf[BYTES];

#define CHECK(condition, ...)                                                                      \
  do {                                                                                             \
    if (!(condition))                                                                              \
      cr_assert (false, "DRUM_TEST_SEED=%" PRIu64 ", step %u: not %s: %s", random_seed (), m.step, \
                 #condition, str (__VA_ARGS__));                                                   \
  } while (0)

static bool
is_zero (const unsigned char *p)
{
  static const unsigned char zeroes[PAGE_BYTES];

  return memcmp (p, zeroes, PAGE_BYTES) == 0;
}

/* Count the pages of a range that was changed. */
static void
recount (uint64_t offset, uint64_t length)
{
  for (uint64_t page = offset / PAGE_BYTES; page * PAGE_BYTES < offset + length; page++) {
    bool used = !is_zero (m.shadow + page * PAGE_BYTES);

    m.nused += used - m.used[page];
    m.used[page] = used;
  }
}

/* Any offset and length; often whole pages, often few. */
static void
random_range (uint64_t *offset, uint64_t *length)
{
  static const uint64_t most[] = { 600, PAGE_BYTES, 5 * PAGE_BYTES, 64 * PAGE_BYTES, BYTES };
  uint64_t unit = rng_below (&m.rng, 3) == 0 ? PAGE_BYTES : rng_below (&m.rng, 2) ? 512 : 1;

  *length = 1 + rng_below (&m.rng, most[rng_below (&m.rng, 16) % 5]);
  *offset = rng_below (&m.rng, BYTES - *length + 1);
  *offset -= *offset % unit;
  *length += *length % unit ? unit - *length % unit : 0;
}

/* Random bytes, with whole pages of zeroes, and parts, among them. */
static void
random_data (unsigned char *data, uint64_t offset, uint64_t length)
{
  uint64_t at = 0;

  while (at < length) {
    uint64_t n = PAGE_BYTES - (offset + at) % PAGE_BYTES, kind = rng_below (&m.rng, 8);

    n = n < length - at ? n : length - at;
    if (kind < 2)
      memset (data + at, 0, n);
    else if (kind < 4) {
      memset (data + at, 0, n);
      data[at + rng_below (&m.rng, n)] = (unsigned char) rng_next (&m.rng);
    } else
      rng_fill (&m.rng, data + at, n);
    at += n;
  }
}

/* How many pages would get a first slot by this write: if there is room for those, it can't fail. */
static unsigned
count_new (uint64_t offset, uint64_t length)
{
  unsigned n = 0;

  for (uint64_t page = offset / PAGE_BYTES; page * PAGE_BYTES < offset + length; page++)
    n += !m.used[page];
  return n;
}

static uint64_t
room (void)
{
  struct drum_usage usage;

  drum_usage (m.drum, &usage);
  return usage.nfree < usage.nkept ? 0 : usage.nfree - usage.nkept;
}

/* A write that failed: each page is as it was, or as it was to be. Which, is seen by reading it. */
static void
adopt (const unsigned char *wanted, uint64_t offset, uint64_t length)
{
  unsigned char now[PAGE_BYTES];

  for (uint64_t at = offset, n; at < offset + length; at += n) {
    uint64_t page = at / PAGE_BYTES, start = page * PAGE_BYTES;

    n = start + PAGE_BYTES - at < offset + length - at ? start + PAGE_BYTES - at
                                                       : offset + length - at;
    CHECK (export_read (m.export, now, PAGE_BYTES, start) == 0, "page %" PRIu64, page);
    if (memcmp (now, m.shadow + start, PAGE_BYTES) == 0)
      continue;
    memcpy (m.shadow + at, wanted + (at - offset), n);
    CHECK (memcmp (now, m.shadow + start, PAGE_BYTES) == 0, "page %" PRIu64 " is mixed", page);
  }
}

static void
step_write (void)
{
  uint64_t offset, length, room_before = room ();
  unsigned nnew;
  int ret;

  random_range (&offset, &length);
  nnew = count_new (offset, length);
  random_data (buf, offset, length);
  ret = export_write (m.export, buf, length, offset);
  CHECK (ret == 0 || ret == -ENOSPC, "%d", ret);
  CHECK (ret == 0 || nnew > room_before, "full, with room for %u", nnew);
  if (ret == 0)
    memcpy (m.shadow + offset, buf, length);
  else
    adopt (buf, offset, length);
  m.nfull += ret < 0;
  recount (offset, length);
}

static void
step_read (void)
{
  uint64_t offset, length;

  random_range (&offset, &length);
  memset (buf, 0xee, length + 1);
  CHECK (export_read (m.export, buf, length, offset) == 0, "%" PRIu64 " at %" PRIu64, length,
         offset);
  for (uint64_t i = 0; memcmp (buf, m.shadow + offset, length) != 0 && i < length; i++)
    CHECK (buf[i] == m.shadow[offset + i], "byte %" PRIu64 " is %02x", offset + i, buf[i]);
  CHECK (offset + length == BYTES || buf[length] == 0xee, "read too much");
}

static void
step_trim (void)
{
  uint64_t offset, length, first, end;

  random_range (&offset, &length);
  CHECK (export_trim (m.export, length, offset) == 0, "%" PRIu64 " at %" PRIu64, length, offset);
  first = (offset + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
  end = (offset + length) / PAGE_BYTES * PAGE_BYTES;
  if (first < end)
    memset (m.shadow + first, 0, end - first);
  recount (offset, length);
}

/* A page at an end of the range that is not zero, and of which the range has a part only, must be read. */
static bool
must_read (uint64_t offset, uint64_t length)
{
  uint64_t end = offset + length;

  return (offset % PAGE_BYTES && m.used[offset / PAGE_BYTES]) ||
         (end % PAGE_BYTES && m.used[end / PAGE_BYTES]);
}

static void
step_zero (bool fast)
{
  uint64_t offset, length;
  int ret;

  random_range (&offset, &length);
  ret = export_zero (m.export, length, offset, fast);
  CHECK (ret == (fast && must_read (offset, length) ? -EOPNOTSUPP : 0), "%d", ret);
  if (ret == 0)
    memset (m.shadow + offset, 0, length);
  recount (offset, length);
}

static void
step_cache (void)
{
  uint64_t offset, length;

  random_range (&offset, &length);
  CHECK (export_cache (m.export, length, offset) == 0, "%" PRIu64 " at %" PRIu64, length, offset);
}

struct cover {
  uint64_t next, end;
  unsigned n;
  bool data; /* of the last */
};

/* Without gaps from the start of the range on and not beyond it, each of one kind throughout, and as long as can be. */
static int
check_extent (void *opaque, uint64_t offset, uint64_t length, bool data)
{
  struct cover *c = opaque;

  CHECK (offset == c->next && length > 0 && offset + length <= c->end, "%" PRIu64 " at %" PRIu64,
         length, offset);
  CHECK (c->n == 0 || data != c->data, "extent %u goes on with the same", c->n);
  for (uint64_t at = offset; at < offset + length; at = (at / PAGE_BYTES + 1) * PAGE_BYTES)
    CHECK (m.used[at / PAGE_BYTES] == data, "page %" PRIu64, at / PAGE_BYTES);
  c->data = data;
  c->next = offset + length;
  c->n++;
  return 0;
}

static void
step_extents (void)
{
  struct cover c = { .n = 0 };
  uint64_t offset, length;
  bool one = rng_below (&m.rng, 2);

  random_range (&offset, &length);
  c.next = offset;
  c.end = offset + length;
  CHECK (export_extents (m.export, length, offset, one, check_extent, &c) == 0, "%d", one);
  CHECK (one ? c.n == 1 : c.next == c.end, "%u extents, up to %" PRIu64, c.n, c.next);
}

static void
random_step (void)
{
  uint64_t what = rng_below (&m.rng, 100);
  bool grows = m.step / 200 % 2 == 0;

  if (what < (grows ? 50 : 25))
    step_write ();
  else if (what < 70)
    step_read ();
  else if (what < 80)
    step_trim ();
  else if (what < 90)
    step_zero (what % 2);
  else if (what < 93)
    step_cache ();
  else
    step_extents ();
}

static void
compare_with_shadow (unsigned nsteps, bool checksum, unsigned who)
{
  struct export_config config = { .name = "shadow", .size_bytes = BYTES, .checksum = checksum };

  m.rng = rng_for (who);
  cr_assert_eq (export_create (m.drum, &config, &m.export), 0);
  for (m.step = 0; m.step < nsteps; m.step++) {
    random_step ();
    CHECK (export_npages_used (m.export) == m.nused, "%u",
           (unsigned) export_npages_used (m.export));
    CHECK (drum_nused (m.drum) == m.nused, "%u", (unsigned) drum_nused (m.drum));
    CHECK (m.step % 16 || drum_check (m.drum), "%s", "");
  }
  CHECK (export_read (m.export, buf, BYTES, 0) == 0, "all");
  CHECK (memcmp (buf, m.shadow, BYTES) == 0, "all");
  CHECK (m.nfull > 0 || nsteps < 1000, "never full: the drum is too large");
  CHECK (export_trim (m.export, BYTES, 0) == 0, "all");
  CHECK (drum_nused (m.drum) == 0 && drum_check (m.drum), "all");
  export_destroy (m.export);
  drum_destroy (m.drum);
}

static void
setup (void)
{
  scratch_setup ();
  logged_start ();
}

TestSuite (export_model, .init = setup, .fini = scratch_teardown, .timeout = 600);

/* Whatever is asked, the export says the same as a shadow copy, and uses a slot for each page that is not zero. */
Test (export_model, one_device)
{
  m.drum = drum_make (16);
  drum_add_file (m.drum, "a", 0, 400);
  compare_with_shadow (random_steps (6000), true, 1);
}

/* The same over three equal devices, with the smallest stripe. */
Test (export_model, equal_devices)
{
  m.drum = drum_make (1);
  for (unsigned i = 0; i < 3; i++)
    drum_add_file (m.drum, str ("%u", i), 4, 130);
  compare_with_shadow (random_steps (6000), true, 2);
}

/* The same over many small devices of several priorities, without checksums. */
Test (export_model, many_small_devices)
{
  m.drum = drum_make (16);
  for (unsigned i = 0; i < 20; i++)
    drum_add_file (m.drum, str ("%u", i), (int) i % 5, 1 + 2 * i);
  compare_with_shadow (random_steps (6000), false, 3);
}
