/* SPDX-License-Identifier: BSD-3-Clause
 *
 * swapdev.c - tests of lib/swapdev.c: what may become a swap device, and what is left when it does not.
 *
 * swapdev_io.c tests its transfers.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/label.h"
#include "tests/scratch.h"

#include "devices.h"
#include "files.h"
#include "logged.h"

enum { MIB = 1 << 20, RESERVED_BYTES = SWAPDEV_NRESERVED * PAGE_BYTES };

static struct swapdev_spec spec = { .prio = 3 };
static struct swapdev *dev;
static unsigned char buf[PAGE_BYTES];

static void
setup (void)
{
  scratch_setup ();
  logged_start ();
}

TestSuite (swapdev, .init = setup, .fini = scratch_teardown, .timeout = 60);

static void
open_device (void)
{
  cr_assert_eq (swapdev_open (&spec, &dev), 0, "%s", logged_last ());
}

static void
prepare (uint64_t generation)
{
  struct swapdev_identity identity = { .drum = "the drum's name", .generation = generation };

  uuid_copy (identity.device, swapdev_identity (dev)->device);
  cr_assert_eq (swapdev_prepare (dev, &identity), 0, "%s", logged_last ());
}

/* It can't be opened: the error, and one line with the path and this. */
static void
assert_refused (int error, const char *says)
{
  struct swapdev *none = NULL;
  int ret = swapdev_open (&spec, &none);

  cr_assert_eq (ret, error, "%d: %s", ret, logged_last ());
  cr_assert_null (none, "output changed on failure");
  cr_assert_eq (logged_count (spec.path), 1, "the path is not named: %s", logged_last ());
  assert_logged_error (says);
}

/* ---- files ---- */

/* A file that does not exist is created with all its space, for its owner alone. */
Test (swapdev, creates_files)
{
  struct stat st;

  umask (0);
  spec.path = scratch_path ("new");
  spec.create_bytes = MIB;
  open_device ();
  prepare (1);
  st = file_stat (spec.path);
  cr_assert_eq (st.st_mode, S_IFREG | 0600);
  cr_assert_eq (st.st_size, MIB);
  cr_assert_geq ((uint64_t) st.st_blocks * 512, MIB);
  cr_assert_eq (swapdev_nslots (dev), 256);
  cr_assert_eq (swapdev_nusable (dev), 254);
  cr_assert_eq (swapdev_prio (dev), 3);
  cr_assert_str_eq (swapdev_path (dev), spec.path);
  cr_assert_not (swapdev_is_block (dev));
  cr_assert_not (swapdev_is_labelled (dev));
  swapdev_close (dev);
  cr_assert_eq (scratch_count (), 1, "a close removes nothing");
  cr_assert_eq (logged_count (""), 0);
}

/* Undo removes what was created, whether it was prepared or not. */
Test (swapdev, undo_removes_what_it_created)
{
  for (unsigned i = 0; i < 2; i++) {
    spec.path = scratch_path ("new");
    spec.create_bytes = MIB;
    open_device ();
    if (i)
      prepare (1);
    cr_assert_eq (scratch_count (), 1);
    swapdev_undo (dev);
    cr_assert_eq (scratch_count (), 0);
  }
}

/* Open changes nothing of what is there; close neither. */
Test (swapdev, open_changes_nothing)
{
  struct stat before, after;

  spec.path = file_make ("f", MIB);
  before = file_stat (spec.path);
  open_device ();
  swapdev_close (dev);
  after = file_stat (spec.path);
  cr_assert_eq (after.st_size, before.st_size);
  cr_assert_eq (after.st_blocks, before.st_blocks);
  cr_assert_eq (after.st_mtime, before.st_mtime);
}

/* Holes of an existing file are filled; what is written behind the first two pages stays. */
Test (swapdev, fills_sparse_files)
{
  spec.path = file_make ("f", 2 * MIB);
  file_write (spec.path, MIB + 5, "contents", 8);
  open_device ();
  prepare (1);
  cr_assert_geq ((uint64_t) file_stat (spec.path).st_blocks * 512, 2 * MIB);
  file_read (spec.path, MIB + 5, buf, 8);
  cr_assert_eq (memcmp (buf, "contents", 8), 0);
  swapdev_close (dev);
}

/* Undo puts the first two pages of an existing file back, byte for byte. */
Test (swapdev, undo_restores_what_it_overwrote)
{
  unsigned char *before, *after;
  size_t len;

  spec.path = file_make ("f", MIB);
  spec.force = true;
  for (unsigned i = 0; i < 3 * PAGE_BYTES; i += 5)
    file_write (spec.path, i, "abcde", 5);
  before = file_contents (spec.path, &len);
  open_device ();
  prepare (1);
  after = file_contents (spec.path, &len);
  cr_assert_neq (memcmp (before, after, RESERVED_BYTES), 0, "no label");
  cr_assert_eq (memcmp (before + RESERVED_BYTES, after + RESERVED_BYTES, len - RESERVED_BYTES), 0);
  swapdev_undo (dev);
  after = file_contents (spec.path, &len);
  cr_assert_eq (len, MIB);
  cr_assert_eq (memcmp (before, after, len), 0);
}

/* A rest of less than a page is not used. */
Test (swapdev, uses_whole_pages)
{
  spec.path = file_make ("f", 3 * PAGE_BYTES + 4095);
  open_device ();
  prepare (1);
  cr_assert_eq (swapdev_nslots (dev), 3);
  cr_assert_eq (swapdev_nusable (dev), 1);
  swapdev_close (dev);
}

/* A file that others may read is taken, with a warning. */
Test (swapdev, warns_about_permissions)
{
  spec.path = file_make ("f", MIB);
  cr_assert_eq (chmod (spec.path, 0640), 0);
  open_device ();
  cr_assert_eq (logged_count ("insecure permissions 0640, 0600 suggested"), 1);
  cr_assert (logged_last_level () == LEVEL_WARNING);
  swapdev_close (dev);
}

/* ---- what is refused ---- */

/* Too small: a label, a table of bad slots and one page are the least; said with the size. */
Test (swapdev, refuses_tiny_files)
{
  spec.path = file_make ("f", 3 * PAGE_BYTES - 1);
  assert_refused (-EINVAL, "is 12287 bytes");
  cr_assert_eq (truncate (spec.path, 0), 0);
  assert_refused (-EINVAL, "is 0 bytes");
  spec.path = scratch_path ("new");
  spec.create_bytes = PAGE_BYTES;
  assert_refused (-EINVAL, "is 4096 bytes");
  cr_assert_eq (scratch_count (), 1);
}

/* Too large: more than a drum can number; nothing is created. */
Test (swapdev, refuses_huge_files)
{
  spec.path = scratch_path ("new");
  spec.create_bytes = (UINT64_C (1) << 44) - PAGE_BYTES;
  assert_refused (-EFBIG, "16T");
  spec.create_bytes = INT64_MAX;
  assert_refused (-EFBIG, "16T");
  cr_assert_eq (scratch_count (), 0);
}

/* No file, and no size= to create it; or a folder that is not there. */
Test (swapdev, refuses_missing_files)
{
  spec.path = scratch_path ("missing");
  assert_refused (-ENOENT, "size=SIZE");
  spec.path = scratch_path ("missing/f");
  spec.create_bytes = MIB;
  assert_refused (-ENOENT, "can't be created");
}

/* size= on a file that has another is a mistake; one that has it is taken, and not removed again. */
Test (swapdev, refuses_another_size)
{
  spec.path = file_make ("f", MIB);
  spec.create_bytes = 2 * MIB;
  assert_refused (-EINVAL, "exists with 1048576 bytes");
  cr_assert_eq (file_stat (spec.path).st_size, MIB);
  spec.create_bytes = MIB;
  open_device ();
  swapdev_undo (dev);
  cr_assert_eq (scratch_count (), 1);
}

/* Folders, character devices and pipes are no swap devices. */
Test (swapdev, refuses_other_kinds)
{
  spec.path = scratch_path ("");
  assert_refused (-EINVAL, "is a directory");
  spec.path = "/dev/null";
  assert_refused (-EINVAL, "special file");
  spec.path = scratch_path ("fifo");
  cr_assert_eq (mkfifo (spec.path, 0600), 0);
  assert_refused (-EINVAL, "special file");
}

/* A symbolic link to a file is that file. */
Test (swapdev, follows_links)
{
  char *file = file_make ("f", MIB);

  spec.path = scratch_path ("link");
  cr_assert_eq (symlink (file, spec.path), 0);
  open_device ();
  prepare (1);
  cr_assert_geq ((uint64_t) file_stat (file).st_blocks * 512, MIB);
  swapdev_close (dev);
}

/* The same file by another name, whichever way, is refused with both names. */
Test (swapdev, refuses_the_same_file_twice)
{
  static const char *const names[] = { "f", "hard", "soft", "./f" };
  char *file = file_make ("f", MIB);

  cr_assert_eq (link (file, scratch_path ("hard")), 0);
  cr_assert_eq (symlink (file, scratch_path ("soft")), 0);
  spec.path = file;
  open_device ();
  for (unsigned i = 0; i < 4; i++) {
    spec.path = scratch_path (names[i]);
    cr_assert_eq (swapdev_open (&spec, &dev), -EBUSY, "%s", names[i]);
    cr_assert_eq (logged_count (str ("%s: is the same file as %s,", spec.path, file)), 1, "%s",
                  logged_last ());
    assert_logged_error ("name each device once");
  }
}

/* A device is at its own path and at any other of its file, and at no other file's. */
Test (swapdev, is_at_each_name_of_its_file)
{
  static const char *const names[] = { "f", "hard", "soft", "./f" };
  char *file = file_make ("f", MIB);

  cr_assert_eq (link (file, scratch_path ("hard")), 0);
  cr_assert_eq (symlink (file, scratch_path ("soft")), 0);
  spec.path = file;
  open_device ();
  for (unsigned i = 0; i < 4; i++)
    cr_assert (swapdev_is_at (dev, place_of (scratch_path (names[i]))), "%s", names[i]);
  cr_assert_not (swapdev_is_at (dev, place_of (file_make ("g", MIB))));
  cr_assert_not (swapdev_is_at (dev, place_of (scratch_path ("missing"))));
  cr_assert_not (swapdev_is_at (dev, place_of ("/dev/null")));
  cr_assert_eq (unlink (file), 0);
  cr_assert (swapdev_is_at (dev, place_of (file)), "it has its name also when that is gone");
  swapdev_close (dev);
}

/* What carries someone's data is refused, unless force is given. */
Test (swapdev, refuses_data_unless_forced)
{
  spec.path = file_make ("f", 4 * MIB);
  file_write (spec.path, 500000, "precious", 8);
  assert_refused (-EEXIST, "force=yes");
  spec.force = true;
  open_device ();
  swapdev_close (dev);
  file_read (spec.path, 500000, buf, 8);
  cr_assert_eq (memcmp (buf, "precious", 8), 0, "open changed something");
}

/* ---- label ---- */

/* Give the file a label, and close it. */
static void
make_labelled (uint64_t generation)
{
  spec.path = file_make ("f", MIB);
  open_device ();
  prepare (generation);
  swapdev_close (dev);
}

/* A label that was written is found at the next open, without force, whatever the slots look like. */
Test (swapdev, knows_its_own_devices)
{
  struct swapdev_identity identity;

  make_labelled (41);
  for (unsigned i = SWAPDEV_NRESERVED; i < 256; i++)
    file_write (spec.path, i * PAGE_BYTES + 500, "any data", 8);
  open_device ();
  cr_assert (swapdev_is_labelled (dev));
  identity = *swapdev_identity (dev);
  cr_assert_eq (identity.generation, 41);
  cr_assert_eq (memcmp (identity.drum, "the drum's name", 16), 0);
  cr_assert_eq (logged_count (""), 0);
  swapdev_close (dev);
}

/* A device that holds pages of a state is that state's alone, until it is disowned; unless the state has gone with the machine's
 * memory. */
Test (swapdev, is_of_its_state_until_it_is_disowned)
{
  struct swapdev_identity identity = { .generation = 1, .state = "the state's own" };
  uuid_t other = "another state's";

  spec.path = file_make ("f", MIB);
  open_device ();
  uuid_copy (identity.device, swapdev_identity (dev)->device);
  cr_assert_eq (swapdev_prepare (dev, &identity), 0);
  swapdev_close (dev);
  assert_refused (-EEXIST, "give the state= folder that has it");
  spec.state = other;
  assert_refused (-EEXIST, "which is not the one in state=");
  spec.state = identity.state;
  open_device ();
  memset (identity.boot, 1, sizeof identity.boot);
  cr_assert_eq (swapdev_prepare (dev, &identity), 0);
  swapdev_close (dev);
  spec.state = NULL;
  open_device (); /* that was another boot */
  uuid_clear (identity.boot);
  cr_assert_eq (swapdev_prepare (dev, &identity), 0);
  cr_assert_eq (swapdev_disown (dev), 0);
  swapdev_close (dev);
  open_device ();
  cr_assert (uuid_is_null (swapdev_identity (dev)->state));
  cr_assert_eq (memcmp (swapdev_identity (dev)->device, identity.device, sizeof (uuid_t)), 0);
  swapdev_close (dev);
}

/* Devices that were never one have identities of their own. */
Test (swapdev, new_devices_have_new_names)
{
  uuid_t first;

  spec.path = file_make ("f", MIB);
  open_device ();
  uuid_copy (first, swapdev_identity (dev)->device);
  cr_assert_not (uuid_is_null (first));
  swapdev_close (dev);
  open_device ();
  cr_assert_neq (uuid_compare (first, swapdev_identity (dev)->device), 0);
  cr_assert_eq (swapdev_identity (dev)->generation, 0);
  swapdev_close (dev);
}

/* A damaged label is none: the file is then someone's data. */
Test (swapdev, a_damaged_label_is_none)
{
  make_labelled (1);
  for (unsigned at = 0; at < PAGE_BYTES; at += at < 80 ? 1 : 251) {
    unsigned char byte;

    file_read (spec.path, at, &byte, 1);
    byte ^= 0x20;
    file_write (spec.path, at, &byte, 1);
    assert_refused (-EEXIST, "force=yes");
    byte ^= 0x20;
    file_write (spec.path, at, &byte, 1);
  }
  open_device ();
  swapdev_close (dev);
}

/* ---- bad slots ---- */

static struct badslots bad;

static void
write_bad_slots (void)
{
  badslots_encode (&bad, buf);
  file_write (spec.path, PAGE_BYTES, buf, sizeof buf);
}

/* Bad slots are never allocated; those named twice, out of range or reserved count once, or not at all. */
Test (swapdev, honours_bad_slots)
{
  static const uint32_t slots[] = { 2, 100, 100, 255, 256, 0, 1, UINT32_MAX, 77 };
  struct slot_run run;
  unsigned nfree = 0;

  make_labelled (1);
  bad.n = sizeof slots / sizeof slots[0];
  memcpy (bad.slot, slots, sizeof slots);
  write_bad_slots ();
  open_device ();
  prepare (2);
  cr_assert_eq (swapdev_nusable (dev), 254 - 4, "%u", swapdev_nusable (dev));
  cr_assert_eq (swapdev_nbad (dev), 4);
  cr_assert_eq (blist_nfree (swapdev_blist (dev)), 254 - 4);
  while (blist_alloc (swapdev_blist (dev), 1, 1, &run) == 0) {
    cr_assert (run.first > 2 && run.first != 100 && run.first != 255 && run.first != 77, "slot %u",
               run.first);
    nfree++;
  }
  cr_assert_eq (nfree, 250);
  swapdev_close (dev);
  open_device ();
  prepare (3);
  cr_assert_eq (swapdev_nusable (dev), 250, "forgotten at the second start");
  swapdev_close (dev);
}

/* A table that is full of one slot, or of all, is taken as it is. */
Test (swapdev, honours_a_full_table)
{
  make_labelled (1);
  bad.n = LABEL_MAX_BAD;
  for (unsigned i = 0; i < LABEL_MAX_BAD; i++)
    bad.slot[i] = i;
  write_bad_slots ();
  open_device ();
  prepare (2);
  cr_assert_eq (swapdev_nusable (dev), 0);
  swapdev_close (dev);
}

/* A damaged table is said, and begun anew. */
Test (swapdev, says_that_the_table_is_damaged)
{
  make_labelled (1);
  file_write (spec.path, PAGE_BYTES + 20, "x", 1);
  open_device ();
  cr_assert_eq (logged_count ("bad slots is damaged"), 1);
  cr_assert (logged_last_level () == LEVEL_WARNING);
  prepare (2);
  cr_assert_eq (swapdev_nusable (dev), 254);
  swapdev_close (dev);
}

/* ---- block devices ---- */

static int loop_fd;

/* A loop device of this size on a file of the scratch folder. It goes when loop_fd is closed and nobody else has it, at
 * the latest when the test's process ends. */
static char *
make_loop (uint64_t bytes)
{
  char *file = file_make ("disk", bytes), *path;
  struct loop_info64 info = { .lo_flags = LO_FLAGS_AUTOCLEAR };
  int control = open ("/dev/loop-control", O_RDWR | O_CLOEXEC);
  int file_fd = open (file, O_RDWR | O_CLOEXEC);

  for (unsigned tries = 0; control >= 0 && tries < 20; tries++) {
    path = str ("/dev/loop%d", ioctl (control, LOOP_CTL_GET_FREE));
    loop_fd = open (path, O_RDWR | O_CLOEXEC);
    if (loop_fd < 0)
      break;
    if (ioctl (loop_fd, LOOP_SET_FD, file_fd) == 0) { /* or another process was faster */
      cr_assert_eq (ioctl (loop_fd, LOOP_SET_STATUS64, &info), 0);
      close (control);
      close (file_fd);
      return path;
    }
    close (loop_fd);
  }
  cr_skip_test ("no loop devices here: %s", strerror (errno));
  return NULL;
}

/* A block device has the size that the kernel says, is not preallocated, and works. */
Test (swapdev, takes_block_devices)
{
  char data[PAGE_BYTES] = "data";
  struct iovec iov = { .iov_base = data, .iov_len = sizeof data };

  spec.path = make_loop (MIB);
  open_device ();
  prepare (1);
  cr_assert (swapdev_is_block (dev));
  cr_assert_eq (swapdev_nslots (dev), 256);
  cr_assert_eq (swapdev_write (dev, NULL, 255, &iov, 1), 0);
  iov = (struct iovec){ .iov_base = buf, .iov_len = sizeof buf };
  cr_assert_eq (swapdev_read (dev, NULL, 255, &iov, 1), 0);
  cr_assert_eq (memcmp (buf, data, sizeof buf), 0);
  swapdev_close (dev);
  cr_assert_eq (logged_count (""), 0);
  open_device ();
  cr_assert (swapdev_is_labelled (dev));
  swapdev_close (dev);
}

/* A block device of another size than size= is refused. */
Test (swapdev, refuses_another_size_of_a_block_device)
{
  spec.path = make_loop (MIB);
  spec.create_bytes = 2 * MIB;
  assert_refused (-EINVAL, "exists with 1048576 bytes");
}

/* The same block device twice is refused with both names. */
Test (swapdev, refuses_the_same_block_device_twice)
{
  char *loop = make_loop (MIB);

  spec.path = loop;
  open_device ();
  spec.path = scratch_path ("link");
  cr_assert_eq (symlink (loop, spec.path), 0);
  cr_assert_eq (swapdev_open (&spec, &dev), -EBUSY);
  cr_assert_eq (logged_count (str ("%s: is the same file as %s,", spec.path, loop)), 1, "%s",
                logged_last ());
}

/* A block device with a file system is refused; one that is mounted, even with force. */
Test (swapdev, refuses_mounted_block_devices)
{
  char *dir = scratch_path ("mnt");

  spec.path = make_loop (8 * MIB);
  if (shell ("/sbin/mkfs.ext4 -q -F %s", spec.path) != 0)
    cr_skip_test ("mkfs.ext4 does not work here");
  assert_refused (-EEXIST, "ext4");
  cr_assert_eq (mkdir (dir, 0700), 0);
  /* In a mount namespace of its own, which ends with the test. */
  if (unshare (CLONE_NEWNS) == -1 || mount ("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == -1 ||
      mount (spec.path, dir, "ext4", 0, NULL) == -1)
    cr_skip_test ("no mounting here: %s", strerror (errno));
  close (loop_fd);
  spec.force = true;
  assert_refused (-EBUSY, "in use by the kernel");
  cr_assert_eq (umount (dir), 0);
}
