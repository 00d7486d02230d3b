/* SPDX-License-Identifier: BSD-3-Clause
 *
 * pagesum.c - tests of lib/pagesum.c.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/pagesum.h"
#include "lib/units.h"
#include "tests/random.h"

static unsigned char page[PAGE_BYTES];

static int
compare (const void *a, const void *b)
{
  uint32_t x = *(const uint32_t *) a, y = *(const uint32_t *) b;

  return x < y ? -1 : x > y;
}

/* How many of n keys are not the only ones of their value. Of 65536 good ones, about 1. */
static unsigned
count_same (uint32_t *key, unsigned n)
{
  unsigned same = 0;

  qsort (key, n, sizeof *key, compare);
  for (unsigned i = 1; i < n; i++)
    same += key[i] == key[i - 1];
  return same;
}

/* Any one bit of a page changes its checksum. */
Test (pagesum, every_bit_counts)
{
  struct rng rng = rng_for (1);
  uint32_t sum;

  rng_fill (&rng, page, sizeof page);
  sum = pagesum_contents (page);
  for (unsigned bit = 0; bit < 8 * PAGE_BYTES; bit++) {
    page[bit / 8] ^= 1u << bit % 8;
    cr_assert (pagesum_contents (page) != sum, "bit %u does not matter", bit);
    page[bit / 8] ^= 1u << bit % 8;
  }
  cr_assert_eq (pagesum_contents (page), sum);
}

/* Pages of one export have different keys, whether they are neighbours or lie far apart. */
Test (pagesum, pages_have_keys_of_their_own)
{
  enum { N = 1 << 16 };
  static uint32_t key[N];
  uint64_t export_key = pagesum_export_key ("");

  for (unsigned shift = 0; shift < 32; shift += 4) {
    for (uint64_t i = 0; i < N; i++)
      key[i] = pagesum_key (export_key, i << shift);
    cr_assert_leq (count_same (key, N), 10, "pages %u apart", 1u << shift);
  }
}

/* The same page of two exports has different keys; the difference is not the same for all pages. */
Test (pagesum, exports_have_keys_of_their_own)
{
  uint64_t a = pagesum_export_key ("a"), b = pagesum_export_key ("b");
  unsigned same = 0;

  cr_assert_neq (a, b);
  cr_assert_neq (pagesum_export_key (""), pagesum_export_key ("default"));
  for (uint64_t p = 0; p < 10000; p++)
    same += (pagesum_key (a, p) ^ pagesum_key (b, p)) ==
            (pagesum_key (a, p + 1) ^ pagesum_key (b, p + 1));
  cr_assert_leq (same, 1);
}

/* Checksums and keys are kept across a restart, so they may never change. */
Test (pagesum, stays_the_same_for_ever)
{
  for (unsigned i = 0; i < PAGE_BYTES; i++)
    page[i] = (unsigned char) (i * 7 + i / 256);
  cr_assert_eq (pagesum_contents (page), 0xeb6f9064);
  cr_assert_eq (pagesum_export_key ("golden"), UINT64_C (0x7d263ba9f3ffb622));
  cr_assert_eq (pagesum_key (UINT64_C (0x7d263ba9f3ffb622), UINT64_C (0x123456789)), 0xb9cc7730);
}

/* A page of zeroes is found to be one, and no other: whichever byte is not zero. */
Test (pagesum, zeroes)
{
  memset (page, 0, sizeof page);
  cr_assert (page_is_zero (page));
  for (unsigned i = 0; i < PAGE_BYTES; i++) {
    page[i] = 0x80 >> i % 8;
    cr_assert (!page_is_zero (page), "byte %u does not matter", i);
    page[i] = 0;
  }
  memset (page, 1, sizeof page);
  cr_assert_not (page_is_zero (page), "all bytes alike");
  memset (page, 0, 8);
  cr_assert_not (page_is_zero (page));
}

/* Data need not be aligned: nbdkit's buffers are not. */
Test (pagesum, takes_unaligned_data)
{
  static unsigned char buf[PAGE_BYTES + 16];

  for (unsigned shift = 0; shift < 16; shift++) {
    memset (buf, 0xaa, sizeof buf);
    memset (buf + shift, 0, PAGE_BYTES);
    cr_assert (page_is_zero (buf + shift), "at %u", shift);
    memset (page, 0, sizeof page);
    cr_assert_eq (pagesum_contents (buf + shift), pagesum_contents (page));
  }
}
