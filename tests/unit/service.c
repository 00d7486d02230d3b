/* SPDX-License-Identifier: BSD-3-Clause
 *
 * service.c - tests of lib/service.c: a start does all that is asked for, or nothing at all.
 *
 * service_faults.c makes every step of a start fail.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/export.h"
#include "lib/label.h"
#include "lib/service.h"
#include "tests/scratch.h"

#include "devices.h"
#include "files.h"
#include "logged.h"
#include "tests/unit/served.h"

enum { MIB = 1 << 20, MAX_SPECS = 300 };

static struct swapdev_spec spec[MAX_SPECS];
static struct service_config config;
static struct service service;

static void
setup (void)
{
  scratch_setup ();
  logged_start ();
  config = (struct service_config){ .devices = spec,
                                    .stripe_bytes = STRIPE_DEFAULT_BYTES,
                                    .checksum = true };
}

TestSuite (service, .init = setup, .fini = scratch_teardown, .timeout = 60);

static void
add_spec (const char *path, uint64_t create_bytes)
{
  spec[config.ndevices++] = (struct swapdev_spec){ .path = path, .create_bytes = create_bytes };
}

static void
add_new_file (const char *name, uint64_t bytes)
{
  add_spec (scratch_path (name), bytes);
}

static struct label
read_label (const char *path)
{
  char page[PAGE_BYTES];
  struct label label;

  file_read (path, 0, page, sizeof page);
  cr_assert_eq (label_decode (page, &label), 0, "%s has no label", path);
  return label;
}

/* The start fails, with one line that has this in it, and leaves nothing behind. */
static void
assert_fails (int error, const char *says)
{
  unsigned nfiles = scratch_count ();
  struct service untouched = service;
  int ret = service_start (&config, &service);

  cr_assert_eq (ret, error, "%d", ret);
  assert_logged_error (says);
  cr_assert_eq (scratch_count (), nfiles, "files are left behind");
  cr_assert_eq (memcmp (&service, &untouched, sizeof service), 0, "output changed on failure");
}

/* Without size=, the export is as large as the usable slots less those kept back. */
Test (service, default_size_is_what_fits)
{
  add_new_file ("a", MIB);
  add_new_file ("b", 2 * MIB);
  cr_assert_eq (service_start (&config, &service), 0);
  cr_assert_eq (export_size_bytes (served (&service)), (254 + 510 - 11) * PAGE_BYTES);
  cr_assert_str_eq (export_name (served (&service)), "");
  service_stop (&service);
  cr_assert_eq (logged_count (""), 0);
}

/* size= may be more than there is. */
Test (service, size_may_be_thin)
{
  add_new_file ("a", MIB);
  config.size_bytes = UINT64_C (1) << 40;
  cr_assert_eq (service_start (&config, &service), 0);
  cr_assert_eq (export_size_bytes (served (&service)), UINT64_C (1) << 40);
  service_stop (&service);
}

/* Files stay after a stop and can be taken again, by the same drum, one generation later. */
Test (service, generation_goes_up)
{
  struct label first, second, b;

  add_new_file ("a", MIB);
  cr_assert_eq (service_start (&config, &service), 0);
  first = read_label (spec[0].path);
  cr_assert_eq (first.identity.generation, 1);
  cr_assert_eq (first.size_bytes, MIB);
  service_stop (&service);

  spec[0].create_bytes = 0;
  add_new_file ("b", MIB);
  cr_assert_eq (service_start (&config, &service), 0);
  second = read_label (spec[0].path);
  b = read_label (spec[1].path);
  cr_assert_eq (second.identity.generation, 2);
  cr_assert_eq (uuid_compare (second.identity.drum, first.identity.drum), 0);
  cr_assert_eq (uuid_compare (second.identity.device, first.identity.device), 0);
  cr_assert_eq (b.identity.generation, 2, "all devices of a drum have one generation");
  cr_assert_eq (uuid_compare (b.identity.drum, first.identity.drum), 0);
  cr_assert_neq (uuid_compare (b.identity.device, first.identity.device), 0);
  service_stop (&service);
}

/* Our own files are taken again whatever their slots look like: a file system's signature, and no zero. */
Test (service, own_devices_are_not_probed)
{
  char *disk = file_make ("disk", 4 * MIB);
  size_t len;
  unsigned char *data;

  cr_assert_eq (shell ("mkfs.ext4 -F -q %s", disk), 0);
  data = file_contents (disk, &len);
  add_new_file ("a", 4 * MIB);
  cr_assert_eq (service_start (&config, &service), 0);
  service_stop (&service);
  file_write (spec[0].path, 2 * PAGE_BYTES, data + 2 * PAGE_BYTES, len - 2 * PAGE_BYTES);
  file_write (spec[0].path, 8 * PAGE_BYTES, data, 16 * PAGE_BYTES);
  spec[0].create_bytes = 0;
  cr_assert_eq (service_start (&config, &service), 0);
  service_stop (&service);
  cr_assert_eq (logged_count (""), 0);
}

/* Undo removes what the start created, and puts the first pages of what was there back, byte for byte. */
Test (service, undo_leaves_everything_as_it_was)
{
  char *old = file_make ("old", MIB);
  size_t len, len_after;
  unsigned char *before, *after;

  for (unsigned i = 0; i < 3; i++)
    file_write (old, i * PAGE_BYTES + 10, "precious", 8);
  before = file_contents (old, &len);
  add_spec (old, 0);
  spec[0].force = true;
  add_new_file ("new", MIB);
  cr_assert_eq (service_start (&config, &service), 0);
  cr_assert_eq (scratch_count (), 2);
  read_label (old);
  service_undo (&service);
  cr_assert_eq (scratch_count (), 1);
  after = file_contents (old, &len_after);
  cr_assert (len == len_after && memcmp (before, after, len) == 0, "the file has changed");
}

/* One bad device among good ones: nothing is created, nothing is changed. */
Test (service, one_bad_device_stops_all)
{
  char *old = file_make ("old", MIB);
  size_t len;
  unsigned char *data;

  add_new_file ("new", MIB);
  add_spec (old, 0);
  add_spec (scratch_path ("missing"), 0);
  assert_fails (-ENOENT, "missing");
  data = file_contents (old, &len);
  for (size_t i = 0; i < len; i++)
    cr_assert (data[i] == 0, "byte %zu has changed", i);
}

/* A name given twice is refused, also when the file does not exist yet. */
Test (service, duplicates)
{
  add_new_file ("new", MIB);
  add_new_file ("new", MIB);
  assert_fails (-EBUSY, "new: is the same file as");
}

/* The stripe is checked, and named. */
Test (service, bad_stripe)
{
  add_new_file ("new", MIB);
  config.stripe_bytes = 12345;
  assert_fails (-EINVAL, "stripe=: 12345");
}

/* More devices than a drum may have are refused before one is touched. */
Test (service, too_many_devices)
{
  for (unsigned i = 0; i <= DRUM_MAX_DEVICES; i++)
    add_new_file (str ("%u", i), MIB);
  assert_fails (-EMFILE, "device=: 257");
}

/* More slots than a drum may have are refused before one is allocated. */
Test (service, too_many_slots)
{
  add_new_file ("a", UINT64_C (10) << 40);
  add_new_file ("b", UINT64_C (10) << 40);
  assert_fails (-EFBIG, "device=");
}

/* A drum all of whose slots are kept back is too small, and says so. */
Test (service, too_small)
{
  add_new_file ("a", 3 * PAGE_BYTES);
  assert_fails (-ENOSPC, "device=");
}

/* A size that is no multiple of the page size is refused. */
Test (service, odd_sizes)
{
  add_new_file ("a", MIB);
  config.size_bytes = 1000;
  assert_fails (-EINVAL, "size=");
}

/* An export beyond the address space is a matter of memory, and size= is named. */
Test (service, huge_sizes)
{
  add_new_file ("a", MIB);
  config.size_bytes = UINT64_C (1) << 62;
  assert_fails (-ENOMEM, "size=: no memory");
}

/* States of all servers so far have it so: a later one finds it in them. */
Test (service, what_a_start_asked_for_is_kept)
{
  struct export_spec asked = { .name = "x",
                               .size_bytes = MIB,
                               .terms = { 8192, 65536, 7, 1, 2, true } };
  const char *text;

  add_new_file ("a", MIB);
  config.state_dir = scratch_path ("state");
  config.exports = &asked;
  config.nexports = 1;
  cr_assert_eq (service_start (&config, &service), 0);
  service_stop (&service);
  text = (const char *) file_contents (scratch_path ("state/manifest"), NULL);
  cr_assert (strstr (text, "\"size=1048576,reserve=8192,limit=65536,weight=7,iops=1,bandwidth=2,"
                           "exclusive=1\""),
             "%s", text);
}
