/* SPDX-License-Identifier: BSD-3-Clause
 *
 * label.c - tests of lib/label.c: what stands on a device must be read by every later version.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <endian.h>
#include <errno.h>
#include <string.h>
#include <xxhash.h>

#include "lib/label.h"
#include "lib/units.h"

/* Where the fields stand, written down once more. */
enum { VERSION_AT = 8, PAGE_SIZE_AT = 12, DRUM_AT = 16, SIZE_AT = 48, GENERATION_AT = 56 };
enum {
  NBAD_AT = 12,
  BAD_AT = 16,
  CHECKSUM_AT = PAGE_BYTES - 8,
  SECTOR = 512,
  SECTOR_CHECKSUM_AT = SECTOR - 8
};

static unsigned char page[PAGE_BYTES];

static const struct label example = {
  .identity = {
    .drum = "ABCDEFGHIJKLMNO",
    .device = "abcdefghijklmno",
    .generation = UINT64_C (0x0123456789abcdef),
  },
  .size_bytes = UINT64_C (0xfedcba9876543210),
};

/* As whoever wrote the page would have signed it. */
static void
sign (void)
{
  uint64_t sum = htole64 (XXH3_64bits (page, CHECKSUM_AT));

  memcpy (page + CHECKSUM_AT, &sum, sizeof sum);
}

static uint64_t
get64 (unsigned at)
{
  uint64_t value;

  memcpy (&value, page + at, sizeof value);
  return le64toh (value);
}

static void
put32 (unsigned at, uint32_t value)
{
  value = htole32 (value);
  memcpy (page + at, &value, sizeof value);
}

/* What was encoded is decoded. */
Test (label, round_trip)
{
  struct label label;

  memset (&label, 0xff, sizeof label);
  label_encode (&example, page);
  cr_assert_eq (label_decode (page, &label), 0);
  cr_assert_eq (memcmp (&label, &example, sizeof label), 0);
}

/* The layout on the device: fixed places, little endian, zeroes, and checksums at the end of the first sector and of the page. */
Test (label, layout)
{
  label_encode (&example, page);
  cr_assert_eq (memcmp (page, "DRUMSWAP", 8), 0);
  cr_assert_eq (get64 (VERSION_AT), UINT64_C (4096) << 32 | 1);
  cr_assert_eq (memcmp (page + DRUM_AT, "ABCDEFGHIJKLMNO\0abcdefghijklmno", 32), 0);
  cr_assert_eq (get64 (SIZE_AT), example.size_bytes);
  cr_assert_eq (get64 (GENERATION_AT), example.identity.generation);
  for (unsigned i = GENERATION_AT + 8; i < CHECKSUM_AT; i++)
    cr_assert (page[i] == 0 || (i >= SECTOR_CHECKSUM_AT && i < SECTOR), "byte %u is used", i);
  cr_assert_eq (get64 (SECTOR_CHECKSUM_AT), XXH3_64bits (page, SECTOR_CHECKSUM_AT));
  cr_assert_eq (get64 (CHECKSUM_AT), XXH3_64bits (page, CHECKSUM_AT));
}

/* A label with any one byte changed is not ours; but for the page's checksum, which may be another start's. */
Test (label, every_byte_counts)
{
  struct label label = { .size_bytes = 77 };

  label_encode (&example, page);
  for (unsigned i = 0; i < CHECKSUM_AT; i++) {
    page[i] ^= 0x10;
    cr_assert (label_decode (page, &label) == -ENOENT, "byte %u does not matter", i);
    page[i] ^= 0x10;
  }
  cr_assert_eq (label.size_bytes, 77, "output changed on failure");
  cr_assert_eq (label_decode (page, &label), 0);
}

/* When the power fails while a label is written over another, it is the old one or the new one, whichever sectors are there. */
Test (label, is_never_half)
{
  struct label next = example, label;
  unsigned char old[PAGE_BYTES], new[PAGE_BYTES];

  next.identity.generation++;
  label_encode (&example, old);
  label_encode (&next, new);
  for (unsigned sectors = 0; sectors < 1U << PAGE_BYTES / SECTOR; sectors++) {
    for (unsigned i = 0; i < PAGE_BYTES / SECTOR; i++)
      memcpy (page + i * SECTOR, (sectors >> i & 1 ? new : old) + i * SECTOR, SECTOR);
    cr_assert_eq (label_decode (page, &label), 0, "sectors %#x", sectors);
    cr_assert_eq (label.identity.generation, example.identity.generation + (sectors & 1));
  }
}

/* The first labels had no checksum of the sector. */
Test (label, old_ones_are_known)
{
  struct label label;

  label_encode (&example, page);
  memset (page + SECTOR_CHECKSUM_AT, 0, 8);
  sign ();
  cr_assert_eq (label_decode (page, &label), 0);
  cr_assert_eq (label.size_bytes, example.size_bytes);
}

/* Zeroes, and what file systems put there, are no label. */
Test (label, other_pages_are_no_labels)
{
  struct label label;

  cr_assert_eq (label_decode (page, &label), -ENOENT);
  sign ();
  cr_assert_eq (label_decode (page, &label), -ENOENT);
  memset (page, 0xff, sizeof page);
  cr_assert_eq (label_decode (page, &label), -ENOENT);
}

/* A sound label of another version, or for pages of another size, is ours, but not for us. */
Test (label, other_versions_are_refused)
{
  struct label label = { .size_bytes = 77 };

  label_encode (&example, page);
  put32 (VERSION_AT, 2);
  sign ();
  cr_assert_eq (label_decode (page, &label), -EPROTO);
  label_encode (&example, page);
  put32 (PAGE_SIZE_AT, 16384);
  sign ();
  cr_assert_eq (label_decode (page, &label), -EPROTO);
  cr_assert_eq (label.size_bytes, 77, "output changed on failure");
}

/* Tables of bad slots of any length come back as they were. */
Test (badslots, round_trip)
{
  static const uint32_t n[] = { 0, 1, 2, 999, LABEL_MAX_BAD };
  static struct badslots bad, back;

  for (size_t i = 0; i < sizeof n / sizeof n[0]; i++) {
    bad.n = n[i];
    for (uint32_t k = 0; k < bad.n; k++)
      bad.slot[k] = SLOT_MAX - k * k;
    badslots_encode (&bad, page);
    memset (&back, 0xff, sizeof back);
    cr_assert_eq (badslots_decode (page, &back), 0);
    cr_assert_eq (back.n, bad.n);
    cr_assert_eq (memcmp (back.slot, bad.slot, bad.n * sizeof bad.slot[0]), 0);
  }
}

/* A table with any one byte changed is none. */
Test (badslots, every_byte_counts)
{
  static struct badslots bad = { .n = 2, .slot = { 5, 6 } }, back = { .n = 77 };

  badslots_encode (&bad, page);
  for (unsigned i = 0; i < PAGE_BYTES; i++) {
    page[i] ^= 0x01;
    cr_assert (badslots_decode (page, &back) == -ENOENT, "byte %u does not matter", i);
    page[i] ^= 0x01;
  }
  cr_assert_eq (back.n, 77, "output changed on failure");
}

/* A sound table that claims more slots than it has room for is not read beyond its end. */
Test (badslots, length_is_checked)
{
  static struct badslots bad = { .n = 1, .slot = { 5 } }, back = { .n = 77 };

  badslots_encode (&bad, page);
  put32 (NBAD_AT, LABEL_MAX_BAD + 1);
  sign ();
  cr_assert_eq (badslots_decode (page, &back), -ENOENT);
  put32 (NBAD_AT, UINT32_MAX);
  sign ();
  cr_assert_eq (badslots_decode (page, &back), -ENOENT);
  put32 (NBAD_AT, LABEL_MAX_BAD);
  sign ();
  cr_assert_eq (badslots_decode (page, &back), 0);
  cr_assert_eq (back.n, LABEL_MAX_BAD);
}
