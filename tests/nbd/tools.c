/* SPDX-License-Identifier: BSD-3-Clause
 *
 * tools.c - other people's NBD clients work against it.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "tests/scratch.h"

#include "client.h"
#include "dev.h"

enum { MIB = 1 << 20 };

TestSuite (tools, .init = dev_setup, .fini = dev_teardown, .timeout = 600);

static char *
start (struct server *srv)
{
  server_start (srv,
                &(struct server_options){ .params = PARAMS (dev_path ("a,prio=1,size=12M"),
                                                            dev_path ("b,prio=1,size=12M"),
                                                            dev_path ("c,size=24M"), "size=32M"),
                                          .memory_bytes = 32 * MIB });
  return str ("nbd+unix:///?socket=%s", srv->socket);
}

static void
require (const char *tool, const char *package)
{
  if (shell ("command -v %s", tool) != 0)
    cr_skip_test ("%s is missing (Debian: apt-get install %s)", tool, package);
}

/* qemu-io: patterns written at odd places read back; zeroes and discards read as zeroes. */
Test (tools, qemu_io)
{
  struct server srv;
  char *uri = start (&srv);

  require ("qemu-io", "qemu-utils");
  cr_assert_eq (
    shell ("qemu-io -f raw '%s' -c 'write -P 0xaa 0 1M' -c 'write -P 0xbb 1000 5000' "
           "-c 'read -P 0xaa 0 1000' -c 'read -P 0xbb 1000 5000' "
           "-c 'read -P 0xaa 6000 1042576' -c 'read -P 0 1M 1M' "
           "-c 'write -z 64k 64k' -c 'read -P 0 64k 64k' "
           "-c 'write -z -u 200k 5000' -c 'read -P 0 200k 5000' "
           "-c 'discard 512k 64k' -c 'read -P 0 512k 64k' "
           "-c 'aio_write -P 0xcc 2M 1M' -c 'aio_write -P 0xdd 3M 1M' -c 'aio_flush' "
           "-c 'read -P 0xcc 2M 1M' -c 'read -P 0xdd 3M 1M' -c flush "
           "| tee /dev/stderr | grep -q 'Pattern verification failed' && exit 1; exit 0",
           uri),
    0);
  server_stop (&srv);
}

/* nbdcopy: in and out again is the same, holes too. */
Test (tools, nbdcopy)
{
  struct server srv;
  char *uri = start (&srv), *in = run_path ("in"), *out = run_path ("out");

  require ("nbdcopy", "libnbd-bin");
  cr_assert_eq (
    shell ("set -e; truncate -s 32M '%s'\n"
           "for at in 0 5 17 31; do\n"
           "  dd if=/dev/urandom of='%s' bs=1M seek=$at count=1 conv=notrunc status=none\n"
           "done\n"
           "dd if=/dev/urandom of='%s' bs=1 seek=9000001 count=5000 conv=notrunc status=none\n"
           "nbdcopy --flush '%s' '%s'\n"
           "nbdcopy '%s' '%s'\n"
           "cmp '%s' '%s'",
           in, in, in, in, uri, uri, out, in, out),
    0);
  server_stop (&srv);
}

/* nbdinfo: the map shows what was written, the list the one export. */
Test (tools, nbdinfo)
{
  struct server srv;
  char *uri = start (&srv), *map;
  struct nbd_handle *nbd = client_open (&srv);

  require ("nbdinfo", "libnbd-bin");
  for (unsigned page = 16; page < 32; page++)
    client_write_page (nbd, 1, 1, page);
  client_close (nbd);
  if (server_is_drum ()) {
    map = shell_output ("nbdinfo --map '%s' | awk '{print $1, $2, $3}'", uri);
    cr_assert_str_eq (map, "0 65536 3\n65536 65536 0\n131072 33423360 3\n");
  }
  cr_assert_eq (shell ("test $(nbdinfo --size '%s') = 33554432", uri), 0);
  cr_assert_eq (shell ("nbdinfo --list '%s' | grep -F 'export=\"\"'", uri), 0);
  cr_assert_eq (shell ("nbdinfo --can multi-conn '%s' && nbdinfo --can trim '%s'", uri, uri), 0);
  server_stop (&srv);
}

/* fio: random reads, writes and trims, every block verified. */
Test (tools, fio)
{
  struct server srv;
  char *uri = start (&srv);
  unsigned mib = random_steps (24);

  require ("fio", "fio");
  if (shell ("fio --enghelp | grep -qw nbd") != 0)
    cr_skip_test ("this fio has no nbd engine");
  cr_assert_eq (shell ("cd '%s' && fio --name=verify --ioengine=nbd --uri='%s' --rw=randrw --bs=4k "
                       "--iodepth=16 --size=32M --io_size=%uM --verify=crc32c --verify_fatal=1 "
                       "--verify_backlog=512 --randseed=%u",
                       run_path ("."), uri, 2 * mib, (unsigned) random_seed ()),
                0);
  cr_assert_eq (shell ("cd '%s' && fio --name=trim --ioengine=nbd --uri='%s' --rw=randtrimwrite "
                       "--bs=512-20k --blockalign=512 --iodepth=16 --size=32M --io_size=%uM "
                       "--randseed=%u",
                       run_path ("."), uri, mib, (unsigned) random_seed ()),
                0);
  server_stop (&srv);
}
