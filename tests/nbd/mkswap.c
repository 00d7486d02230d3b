/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mkswap.c - reset-on-mkswap=: a swap header of mkswap's over a used export frees it, also after the server was killed; what
 * hibernation does to a header does not.
 */
#include <config.h>

#include <string.h>

#include <criterion/criterion.h>

#include "tests/scratch.h"

#include "livedrum.h"

enum { NPAGES = 500, SIGNATURE_AT = 4086 };

TestSuite (mkswap, .init = livedrum_setup, .fini = livedrum_teardown, .timeout = 300);

static void
start (const char *reset, const char *state)
{
  livedrum_start (
    PARAMS (dev_path ("a,size=4M,prio=5"), dev_path ("b,size=4M"), "size=4M", reset, state));
}

/* What mkswap has for a device of this size: another UUID each time. */
static unsigned char *
make_header (void)
{
  char *path = scratch_path ("area");

  cr_assert_eq (
    shell ("rm -f %s; truncate -s 4M %s; chmod 600 %s; PATH=$PATH:/usr/sbin:/sbin mkswap %s", path,
           path, path, path),
    0);
  return file_contents (path, NULL);
}

static void
expect_used (unsigned npages)
{
  expect_uint (control_export (control), "used", npages * PAGE_BYTES);
}

static void
expect_freed (void)
{
  static unsigned char zeroes[PAGE_BYTES], data[PAGE_BYTES];

  expect_used (1);
  client_read (nbd, data, sizeof data, 100 * PAGE_BYTES);
  cr_assert_eq (memcmp (data, zeroes, sizeof data), 0);
  server_wait_stderr (&srv, "has a new swap header");
}

Test (mkswap, over_a_used_export)
{
  start ("reset-on-mkswap=yes", NULL);
  write_pages (1, NPAGES);
  client_write (nbd, make_header (), PAGE_BYTES, 0);
  expect_used (NPAGES); /* there was no header */
  expect_pages (1, NPAGES);
  client_write (nbd, make_header (), PAGE_BYTES, 0);
  expect_freed ();
  write_pages (1, NPAGES);
  expect_pages (1, NPAGES);
}

Test (mkswap, hibernation)
{
  unsigned char *header = make_header ();

  start ("reset-on-mkswap=yes", str ("state=%s", run_path ("state")));
  client_write (nbd, header, PAGE_BYTES, 0);
  write_pages (1, NPAGES);
  client_write (nbd, "S1SUSPEND", 10, SIGNATURE_AT);
  livedrum_kill ();
  start ("reset-on-mkswap=yes", str ("state=%s", run_path ("state")));
  client_write (nbd, header, PAGE_BYTES, 0);
  expect_used (NPAGES);
  expect_pages (1, NPAGES);
}

Test (mkswap, after_a_restart)
{
  start ("reset-on-mkswap=yes", str ("state=%s", run_path ("state")));
  client_write (nbd, make_header (), PAGE_BYTES, 0);
  write_pages (1, NPAGES);
  livedrum_kill ();
  start ("reset-on-mkswap=yes", str ("state=%s", run_path ("state")));
  expect_pages (1, NPAGES);
  client_write (nbd, make_header (), PAGE_BYTES, 0);
  expect_freed ();
  livedrum_kill ();
  start ("reset-on-mkswap=yes", str ("state=%s", run_path ("state")));
  expect_used (1);
}

Test (mkswap, is_off)
{
  start (NULL, NULL);
  client_write (nbd, make_header (), PAGE_BYTES, 0);
  write_pages (1, NPAGES);
  client_write (nbd, make_header (), PAGE_BYTES, 0);
  expect_used (NPAGES);
  expect_pages (1, NPAGES);
}
