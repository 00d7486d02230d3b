/* SPDX-License-Identifier: BSD-3-Clause
 *
 * files.c - backing files: how they are made, filled, named, labelled and taken again.
 */
#include <config.h>

#include <endian.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "tests/scratch.h"

#include "client.h"
#include "dev.h"

enum { KIB = 1024, MIB = 1024 * KIB, DEVICE_UUID_AT = 32, GENERATION_AT = 56 };

static void
setup (void)
{
  dev_setup ();
  if (!server_is_drum ())
    cr_skip_test ("only the drum has backing files");
}

TestSuite (files, .init = setup, .fini = dev_teardown, .timeout = 300);

static void
start_and_stop (const char *param)
{
  struct server srv;

  server_start (&srv, &(struct server_options){ .params = PARAMS (param) });
  server_stop (&srv);
}

static uint64_t
generation (const char *path)
{
  unsigned char *label = file_contents (path, NULL);
  uint64_t value;

  cr_assert_eq (memcmp (label, "DRUMSWAP", 8), 0, "%s has no label", path);
  memcpy (&value, label + GENERATION_AT, sizeof value);
  return le64toh (value);
}

/* size= makes a file of exactly that size, with no holes, that only its owner may read; it stays. */
Test (files, created)
{
  struct stat st;

  umask (0);
  start_and_stop (dev_path ("a,size=4M"));
  st = file_stat (dev_path ("a"));
  cr_assert_eq (st.st_mode, S_IFREG | 0600, "mode %o", st.st_mode);
  cr_assert_eq (st.st_size, 4 * MIB);
  cr_assert_geq (st.st_blocks * 512, 4 * MIB);
  umask (077);
  start_and_stop (dev_path ("b,size=1000000"));
  st = file_stat (dev_path ("b"));
  cr_assert_eq (st.st_mode, S_IFREG | 0600);
  cr_assert_eq (st.st_size, 1000000);
  cr_assert_geq (st.st_blocks * 512, 1000000);
}

/* The same size= again is no error, so that a unit file works twice. */
Test (files, size_of_an_existing_file)
{
  start_and_stop (dev_path ("a,size=4M"));
  start_and_stop (dev_path ("a,size=4M"));
  start_and_stop (dev_path ("a,size=4096K,prio=3"));
  start_and_stop (dev_path ("a"));
}

/* Holes are filled before the file is used, and what is written in it stays. */
Test (files, holes_are_filled)
{
  char *path = dev_sparse ("a", 4 * MIB);

  file_write (path, 2 * MIB + 5, "here", 4);
  cr_assert_lt (file_stat (path).st_blocks * 512, MIB);
  start_and_stop (path);
  cr_assert_geq (file_stat (path).st_blocks * 512, 4 * MIB);
  cr_assert_eq (file_stat (path).st_size, 4 * MIB);
  cr_assert_eq (memcmp (file_contents (path, NULL) + 2 * MIB + 5, "here", 4), 0);
}

/* Blocks behind the end of a file do not make up for a hole inside it. */
Test (files, holes_are_found_whatever_st_blocks_says)
{
  char *path = dev_allocated ("a", 4 * MIB);
  int fd = open (path, O_RDWR | O_CLOEXEC);
  struct stat before, after;

  if (fallocate (fd, FALLOC_FL_KEEP_SIZE, 4 * MIB, 2 * MIB) == -1 ||
      fallocate (fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 2 * MIB, MIB) == -1)
    cr_skip_test ("this file system can't make such a file");
  close (fd);
  before = file_stat (path);
  cr_assert_geq (before.st_blocks * 512, 4 * MIB);
  start_and_stop (path);
  after = file_stat (path);
  cr_assert_geq (after.st_blocks * 512, before.st_blocks * 512 + MIB, "the hole is still there");
}

/* A comma in a name is written twice. */
Test (files, commas_in_names)
{
  start_and_stop (dev_path ("a,,b,size=1M"));
  cr_assert_eq (file_stat (dev_path ("a,b")).st_size, MIB);
  start_and_stop (dev_path ("a,,b"));
  start_and_stop (dev_path (",,c,,,,,size=2M,prio=7"));
  cr_assert_eq (file_stat (dev_path (",c,,")).st_size, 2 * MIB);
  start_and_stop (dev_path (",,c,,,,"));
}

/* Other odd names: spaces, equal signs, colons, bytes that are no characters. */
Test (files, odd_names)
{
  start_and_stop (str ("device=%s", dev_path ("a b,size=1M")));
  cr_assert_eq (file_stat (dev_path ("a b")).st_size, MIB);
  start_and_stop (str ("device=%s", dev_path ("x=y:z\xff,size=1M")));
  cr_assert_eq (file_stat (dev_path ("x=y:z\xff")).st_size, MIB);
}

/* A relative name is one from where nbdkit was started. */
Test (files, relative_names)
{
  cr_assert_eq (chdir (dev_path (".")), 0);
  start_and_stop ("a,size=1M");
  cr_assert_eq (file_stat (dev_path ("a")).st_size, MIB);
  start_and_stop ("device=./a");
}

/* A file that others may read is taken with a warning that names it and the mode it should have. */
Test (files, loose_permissions_are_warned_of)
{
  char *path = dev_allocated ("a", MIB), *text;
  struct server srv;

  cr_assert_eq (chmod (path, 0644), 0);
  server_start (&srv, &(struct server_options){ .params = PARAMS (path) });
  server_stop (&srv);
  text = server_stderr (&srv);
  cr_assert (strstr (text, path) && strstr (text, "0644") && strstr (text, "0600"), "%s", text);
  cr_assert_eq (chmod (path, 0600), 0);
  server_start (&srv, &(struct server_options){ .params = PARAMS (path) });
  server_stop (&srv);
  cr_assert_str_empty (server_stderr (&srv));
}

/* A server takes its own files again, whatever was written to them, without force=yes; each start raises the label's
 * generation and leaves the device's name as it is. Without state= the contents are gone. */
Test (files, taken_again)
{
  char *a = dev_path ("a"), *b = dev_path ("b");
  struct server srv;
  struct nbd_handle *nbd;
  unsigned char uuid[16];

  for (unsigned i = 1; i <= 3; i++) {
    uint64_t before_a = i > 1 ? generation (a) : 0, before_b = i > 1 ? generation (b) : 0;

    server_start (&srv, &(struct server_options){
                          .params = PARAMS (dev_path ("a,size=1M"), dev_path ("b,size=1M")) });
    nbd = client_open (&srv);
    cr_assert_gt (generation (a), before_a);
    cr_assert_gt (generation (b), before_b);
    if (i == 1)
      memcpy (uuid, file_contents (a, NULL) + DEVICE_UUID_AT, sizeof uuid);
    cr_assert_eq (memcmp (file_contents (a, NULL) + DEVICE_UUID_AT, uuid, sizeof uuid), 0);
    for (unsigned page = 0; page < 400; page++) {
      client_expect_page (nbd, 0, 0, page);
      client_write_page (nbd, i, 1, page);
    }
    client_close (nbd);
    if (i < 3)
      server_stop (&srv);
  }
  /* After a SIGKILL too. */
  kill (srv.pid, SIGKILL);
  server_reap (&srv);
  start_and_stop (a);
}

/* Files of two drums can be made one, and one of them alone be used. */
Test (files, taken_in_other_company)
{
  start_and_stop (dev_path ("a,size=1M"));
  start_and_stop (dev_path ("b,size=1M"));
  struct server srv;

  server_start (&srv,
                &(struct server_options){ .params = PARAMS (dev_path ("b"), dev_path ("a")) });
  server_stop (&srv);
  start_and_stop (dev_path ("b"));
}

/* A file that was made larger or smaller since is taken as it is now, with its new part allocated. */
Test (files, grown_and_shrunk)
{
  char *path = dev_path ("a");

  start_and_stop (dev_path ("a,size=1M"));
  cr_assert_eq (truncate (path, 3 * MIB), 0);
  start_and_stop (path);
  cr_assert_geq (file_stat (path).st_blocks * 512, 3 * MIB);
  cr_assert_eq (truncate (path, MIB / 2), 0);
  start_and_stop (path);
  cr_assert_eq (file_stat (path).st_size, MIB / 2);
}

/* dump_plugin and --help say what there is, without devices. */
Test (files, help)
{
  char *help;

  if (server_is_sanitized ())
    cr_skip_test ("the plugin needs the sanitizer's runtime preloaded");
  help = shell_output ("%s %s --help", NBDKIT, server_plugin ());

  cr_assert (strstr (help, "device=") && strstr (help, "stripe=") && strstr (help, "size=") &&
               strstr (help, "force=") && strstr (help, "checksum="),
             "%s", help);
  cr_assert_not_null (
    strstr (shell_output ("%s --dump-plugin %s", NBDKIT, server_plugin ()), "name=drum\n"));
}
