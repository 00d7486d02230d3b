/* SPDX-License-Identifier: BSD-3-Clause
 *
 * swaphdr.c - tests of lib/swaphdr.c: what it makes is what mkswap makes, and what others take for a swap area; and it reads both.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <byteswap.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/swaphdr.h"
#include "tests/scratch.h"

#include "files.h"

#define UUID "0f0e0d0c-1112-4314-9516-171819202122"
#define PATH "PATH=$PATH:/usr/sbin:/sbin "

/* Where things stand, from the kernel's union swap_header. */
enum { VERSION_AT = 1024, LAST_PAGE_AT = 1028, UUID_AT = 1036, LABEL_AT = 1052 };

static unsigned char data[SWAPHDR_MAX_PAGE_BYTES];

TestSuite (swaphdr, .init = scratch_setup, .fini = scratch_teardown, .timeout = 60);

static struct swaphdr
header (uint32_t page_bytes, uint64_t npages)
{
  struct swaphdr h = { .page_bytes = page_bytes, .last_page = swaphdr_last_page (npages) };

  cr_assert_eq (uuid_parse (UUID, h.uuid), 0);
  return h;
}

/* A file with what is in data, of so many pages. */
static char *
write_area (const char *name, uint32_t page_bytes, uint64_t npages)
{
  char *path = file_make (name, npages * page_bytes);

  file_write (path, 0, data, page_bytes);
  return path;
}

static void
assert_as_mkswap (uint32_t page_bytes, uint64_t npages, const char *label)
{
  struct swaphdr h = header (page_bytes, npages);
  char *ours, *theirs = file_make ("theirs", npages * page_bytes);

  strcpy (h.label, label);
  memset (data, 0xee, sizeof data);
  swaphdr_build (data, &h);
  ours = write_area ("ours", page_bytes, npages);
  cr_assert_eq (shell (PATH "mkswap -p %u -U %s %s %s", page_bytes, UUID,
                       *label ? str ("-L %s", label) : "", theirs),
                0);
  cr_assert_eq (shell ("cmp -n %u %s %s", 2 * page_bytes, ours, theirs), 0, "%u bytes, \"%s\"",
                page_bytes, label);
  unlink (ours);
  unlink (theirs);
}

Test (swaphdr, is_mkswaps)
{
  assert_as_mkswap (4096, SWAPHDR_MIN_PAGES, "");
  assert_as_mkswap (4096, 12345, "fifteen-letters");
  assert_as_mkswap (4096, UINT64_C (1) << 31, "x"); /* more than an int, in a file of holes */
  assert_as_mkswap (65536, 1000, "");
}

/* What those say who look at it: libblkid (and so udev, and mount), swaplabel, file. */
Test (swaphdr, is_a_swap_area_for_others)
{
  struct swaphdr h = header (4096, 100);
  char *path;

  strcpy (h.label, "label");
  swaphdr_build (data, &h);
  path = write_area ("area", 4096, 100);
  cr_assert_eq (
    shell (
      "test \"$(" PATH
      "blkid -p -o value -s TYPE -s UUID -s LABEL %s | sort | tr '\\n' ' ')\" = '%s label swap '",
      path, UUID),
    0);
  cr_assert_eq (shell ("test \"$(" PATH
                       "swaplabel %s | tr -s '\\n ' ' ')\" = 'LABEL: label UUID: %s '",
                       path, UUID),
                0);
  if (shell ("command -v file") == 0)
    cr_assert_eq (shell ("file %s | grep -i 'swap file.*version 1.*size 99 pages.*%s'", path, UUID),
                  0);
}

/* The most that mkswap does. */
Test (swaphdr, last_page)
{
  cr_assert_eq (swaphdr_last_page (10), 9);
  cr_assert_eq (swaphdr_last_page (UINT32_MAX), UINT32_MAX - 1);
  cr_assert_eq (swaphdr_last_page (UINT64_C (1) << 40), UINT32_MAX - 1);
}

Test (swaphdr, reads_what_it_makes)
{
  for (uint32_t page_bytes = 4096; page_bytes <= SWAPHDR_MAX_PAGE_BYTES; page_bytes *= 2) {
    struct swaphdr h = header (page_bytes, 77), got = { 0 };

    strcpy (h.label, "a label");
    swaphdr_build (data, &h);
    cr_assert (swaphdr_parse (data, page_bytes, &got));
    cr_assert_eq (got.page_bytes, page_bytes);
    cr_assert_eq (got.last_page, 76);
    cr_assert_not (got.suspended);
    cr_assert_eq (uuid_compare (got.uuid, h.uuid), 0);
    cr_assert_str_eq (got.label, "a label");
    got.last_page = 1;
    cr_assert_not (swaphdr_parse (data, page_bytes - 1, &got), "%u bytes of a larger page",
                   page_bytes - 1);
    cr_assert_eq (got.last_page, 1, "output changed on failure");
  }
}

/* A host of the other byte order; the kernel takes them all. */
Test (swaphdr, other_byte_order)
{
  struct swaphdr h = header (4096, 77), got;

  swaphdr_build (data, &h);
  for (unsigned at = VERSION_AT; at < UUID_AT; at += 4) {
    uint32_t number;

    memcpy (&number, data + at, 4);
    number = bswap_32 (number);
    memcpy (data + at, &number, 4);
  }
  cr_assert (swaphdr_parse (data, 4096, &got));
  cr_assert_eq (got.last_page, 76);
  cr_assert_eq (uuid_compare (got.uuid, h.uuid), 0);
}

/* A label that fills its field has no zero at its end. */
Test (swaphdr, full_label)
{
  struct swaphdr h = header (4096, 77), got;

  swaphdr_build (data, &h);
  memset (data + LABEL_AT, 'x', 16);
  cr_assert (swaphdr_parse (data, 4096, &got));
  cr_assert_str_eq (got.label, "xxxxxxxxxxxxxxx");
}

/* Hibernation puts its signature in the place of the other. */
Test (swaphdr, suspended)
{
  struct swaphdr h = header (4096, 77), got;

  swaphdr_build (data, &h);
  memcpy (data + 4086, "S1SUSPEND", 10);
  cr_assert (swaphdr_parse (data, 4096, &got));
  cr_assert (got.suspended);
  cr_assert_eq (uuid_compare (got.uuid, h.uuid), 0);
}

Test (swaphdr, is_none)
{
  struct swaphdr h = header (4096, 77), got;

  memset (data, 0, sizeof data);
  cr_assert_not (swaphdr_parse (data, 4096, &got), "zeroes");
  swaphdr_build (data, &h);
  data[4095] = '1';
  cr_assert_not (swaphdr_parse (data, 4096, &got), "the first version");
  swaphdr_build (data, &h);
  data[VERSION_AT] = 2;
  cr_assert_not (swaphdr_parse (data, 4096, &got), "a version to come");
}

/* It is for ever: a client may name it in its fstab. */
Test (swaphdr, uuid_of_a_name)
{
  uuid_t empty, one, other;
  char text[UUID_STR_LEN];

  swaphdr_uuid_for ("", empty);
  swaphdr_uuid_for ("host-1", one);
  swaphdr_uuid_for ("host-2", other);
  cr_assert_neq (uuid_compare (one, other), 0);
  cr_assert_neq (uuid_compare (one, empty), 0);
  cr_assert_eq (uuid_type (one), 5);
  uuid_unparse_lower (one, text);
  cr_assert_str_eq (text, "050fb9e2-81b8-547c-aa22-3c628351c296");
}
