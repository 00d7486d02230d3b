/* SPDX-License-Identifier: BSD-3-Clause
 *
 * placement.c - which page goes to which file: priorities, turns and stripes, seen in the backing files themselves.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include <criterion/criterion.h>

#include "tests/scratch.h"
#include "tests/stamp.h"

#include "client.h"
#include "dev.h"

enum { MAX_PAGES = 4096, LABEL_PAGES = 2, NOWHERE = -1 };

static void
setup (void)
{
  dev_setup ();
  if (!server_is_drum ())
    cr_skip_test ("only the drum has backing files");
}

TestSuite (placement, .init = setup, .fini = dev_teardown, .timeout = 300);

struct place {
  int file; /* index of its path, or NOWHERE */
  uint32_t slot;
};

static struct place where[MAX_PAGES];

/* Find the pages stamped with this sequence in the files, NULL at the end. */
static void
find_pages (const char *const *paths, uint32_t sequence)
{
  for (unsigned i = 0; i < MAX_PAGES; i++)
    where[i].file = NOWHERE;
  for (int file = 0; paths[file]; file++) {
    size_t len;
    unsigned char *data = file_contents (paths[file], &len);

    for (size_t slot = 0; slot < len / PAGE_BYTES; slot++) {
      struct stamp stamp;

      if (!stamp_read (data + slot * PAGE_BYTES, &stamp) || stamp.writer != 1 ||
          stamp.sequence != sequence)
        continue;
      cr_assert_geq (slot, LABEL_PAGES, "%s: page %" PRIu64 " is in slot %zu", paths[file],
                     stamp.page, slot);
      cr_assert_lt (stamp.page, MAX_PAGES);
      cr_assert_eq (where[stamp.page].file, NOWHERE, "page %" PRIu64 " is in two slots",
                    stamp.page);
      where[stamp.page] = (struct place){ file, slot };
    }
    free (data);
  }
}

static void
expect_file (unsigned first, unsigned end, int file)
{
  for (unsigned page = first; page < end; page++)
    cr_assert_eq (where[page].file, file, "page %u is in file %d, not %d", page, where[page].file,
                  file);
}

static void
write_one_by_one (struct nbd_handle *nbd, unsigned first, unsigned end, uint32_t sequence)
{
  for (unsigned page = first; page < end; page++)
    client_write_page (nbd, 1, sequence, page);
}

static void
write_at_once (struct nbd_handle *nbd, unsigned first, unsigned end, uint32_t sequence)
{
  char *buf = malloc ((end - first) * PAGE_BYTES);

  for (unsigned page = first; page < end; page++)
    stamp_fill (buf + (page - first) * PAGE_BYTES, (struct stamp){ 1, sequence, page });
  client_write (nbd, buf, (end - first) * PAGE_BYTES, (uint64_t) first * PAGE_BYTES);
  free (buf);
}

/* npages from 0 on lie in stripes of nstripe pages, on nfiles files by turns, whichever was first. */
static void
expect_turns (unsigned npages, unsigned nstripe, int nfiles)
{
  for (unsigned page = 0; page < npages; page++) {
    int expected = (where[0].file + page / nstripe) % nfiles;

    cr_assert_neq (where[page].file, NOWHERE, "page %u is nowhere", page);
    cr_assert_eq (where[page].file, expected, "page %u is in file %d, not %d", page,
                  where[page].file, expected);
  }
}

/* The highest priority is filled to its last slot before the next is touched, whatever the order on the command line. */
Test (placement, higher_priority_first)
{
  const char *const *paths = PARAMS (dev_path ("a"), dev_path ("b"), dev_path ("c"));
  struct server srv;
  struct nbd_handle *nbd;

  /* 126 usable slots each; 5 of 378 are kept back. */
  server_start (&srv,
                &(struct server_options){ .params = PARAMS (dev_path ("a,prio=1,size=512K"),
                                                            dev_path ("b,prio=32767,size=512K"),
                                                            dev_path ("c,size=512K")) });
  nbd = client_open (&srv);
  write_one_by_one (nbd, 0, 373, 1);
  find_pages (paths, 1);
  expect_file (0, 126, 1);
  expect_file (126, 252, 0);
  expect_file (252, 373, 2);
  client_close (nbd);
  server_stop (&srv);
  /* Labels stand where they were, on a drum that has been full. */
  for (unsigned i = 0; i < 3; i++)
    cr_assert_eq (memcmp (file_contents (paths[i], NULL), "DRUMSWAP", 8), 0);
}

/* Priority 0 is above the default, -1. */
Test (placement, zero_is_above_the_default)
{
  struct server srv;
  struct nbd_handle *nbd;

  server_start (&srv,
                &(struct server_options){
                  .params = PARAMS (dev_path ("a,size=512K"), dev_path ("b,size=512K,prio=0")) });
  nbd = client_open (&srv);
  write_one_by_one (nbd, 0, 100, 1);
  find_pages (PARAMS (dev_path ("a"), dev_path ("b")), 1);
  expect_file (0, 100, 1);
  client_close (nbd);
  server_stop (&srv);
}

static void
turns (unsigned nfiles, const char *stripe, unsigned nstripe, bool at_once)
{
  static uint32_t sequence; /* pages of an earlier round are still in the files */
  const char *paths[4] = { dev_path ("a"), dev_path ("b"), dev_path ("c") };
  const char *params[5] = { stripe };
  unsigned npages = nstripe * nfiles * 2 < 96 ? 96 : nstripe * nfiles * 2;
  struct server srv;
  struct nbd_handle *nbd;

  paths[nfiles] = NULL;
  for (unsigned i = 0; i < nfiles; i++)
    params[i + 1] = str ("%s,prio=7,size=10M", paths[i]);
  server_start (&srv, &(struct server_options){ .params = params });
  nbd = client_open (&srv);
  sequence++;
  if (at_once)
    write_at_once (nbd, 0, npages, sequence);
  else
    write_one_by_one (nbd, 0, npages, sequence);
  find_pages (paths, sequence);
  expect_turns (npages, nstripe, nfiles);
  client_close (nbd);
  server_stop (&srv);
}

/* Devices of equal priority take turns, 64 KiB at a time, if pages come one by one. */
Test (placement, turns_by_stripe_page_by_page)
{
  turns (2, "stripe=64K", 16, false);
  turns (3, "stripe=64K", 16, false);
}

/* And if they come in one request. */
Test (placement, turns_by_stripe_in_one_request)
{
  turns (2, "stripe=64K", 16, true);
  turns (3, "stripe=64K", 16, true);
}

/* The smallest, a middle and the largest stripe. */
Test (placement, other_stripes)
{
  turns (2, "stripe=4K", 1, false);
  turns (3, "stripe=4096", 1, true);
  turns (2, "stripe=256K", 64, false);
  turns (2, "stripe=4M", 1024, false);
}

/* Without stripe= it is 64 KiB, and devices without a priority are equals. */
Test (placement, defaults)
{
  struct server srv;
  struct nbd_handle *nbd;

  server_start (&srv, &(struct server_options){ .params = PARAMS (dev_path ("a,size=4M"),
                                                                  dev_path ("b,size=4M,prio=-1"),
                                                                  dev_path ("c,size=4M")) });
  nbd = client_open (&srv);
  write_one_by_one (nbd, 0, 480, 1);
  find_pages (PARAMS (dev_path ("a"), dev_path ("b"), dev_path ("c")), 1);
  expect_turns (480, 16, 3);
  client_close (nbd);
  server_stop (&srv);
}

/* A full device is passed over by its equals; only when all of them are full is it the next class's turn. */
Test (placement, full_equal_is_passed_over)
{
  struct server srv;
  struct nbd_handle *nbd;
  unsigned in_file[3] = { 0 };

  /* 62, 254 and 126 usable slots. */
  server_start (&srv, &(struct server_options){ .params = PARAMS (dev_path ("a,prio=1,size=256K"),
                                                                  dev_path ("b,prio=1,size=1M"),
                                                                  dev_path ("c,size=512K")) });
  nbd = client_open (&srv);
  write_one_by_one (nbd, 0, 400, 1);
  find_pages (PARAMS (dev_path ("a"), dev_path ("b"), dev_path ("c")), 1);
  for (unsigned page = 0; page < 400; page++)
    in_file[where[page].file]++;
  cr_assert_eq (in_file[0], 62);
  cr_assert_eq (in_file[1], 254);
  expect_file (62 + 254, 400, 2);
  client_close (nbd);
  server_stop (&srv);
}

/* Where the fast device has only single slots left, a large write still goes there. */
Test (placement, fragmented_fast_device_before_slow)
{
  struct server srv;
  struct nbd_handle *nbd;

  server_start (&srv, &(struct server_options){
                        .params = PARAMS (dev_path ("a,prio=1,size=1M"), dev_path ("b,size=4M")) });
  nbd = client_open (&srv);
  write_one_by_one (nbd, 0, 254, 1);
  for (unsigned page = 0; page < 254; page += 2)
    client_trim (nbd, PAGE_BYTES, page * PAGE_BYTES);
  write_at_once (nbd, 300, 364, 2);
  find_pages (PARAMS (dev_path ("a"), dev_path ("b")), 2);
  expect_file (300, 364, 0);
  client_close (nbd);
  server_stop (&srv);
}

/* A page that is written again goes to another slot: nothing is written in place. */
Test (placement, never_in_place)
{
  const char *const *paths = PARAMS (dev_path ("a"));
  static struct place before[100];
  struct server srv;
  struct nbd_handle *nbd;

  server_start (&srv, &(struct server_options){ .params = PARAMS (dev_path ("a,size=4M")) });
  nbd = client_open (&srv);
  write_at_once (nbd, 0, 100, 1);
  find_pages (paths, 1);
  memcpy (before, where, sizeof before);
  write_one_by_one (nbd, 0, 100, 2);
  find_pages (paths, 2);
  for (unsigned page = 0; page < 100; page++) {
    cr_assert_eq (where[page].file, 0);
    cr_assert_neq (where[page].slot, before[page].slot, "page %u was written in place", page);
  }
  client_close (nbd);
  server_stop (&srv);
}

/* One write of consecutive pages to an empty device lies in consecutive slots, so that it is few large writes. */
Test (placement, consecutive_on_one_device)
{
  struct server srv;
  struct nbd_handle *nbd;

  server_start (&srv, &(struct server_options){ .params = PARAMS (dev_path ("a,size=4M")) });
  nbd = client_open (&srv);
  write_at_once (nbd, 0, 512, 1);
  find_pages (PARAMS (dev_path ("a")), 1);
  for (unsigned page = 1; page < 512; page++)
    cr_assert_eq (where[page].slot, where[0].slot + page, "page %u", page);
  client_close (nbd);
  server_stop (&srv);
}
