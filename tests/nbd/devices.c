/* SPDX-License-Identifier: BSD-3-Clause
 *
 * devices.c - block devices, where there are loop devices and we may use them.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "tests/scratch.h"

#include "client.h"
#include "dev.h"

enum { MIB = 1 << 20 };

static void
setup (void)
{
  dev_setup ();
  if (!server_is_drum ())
    cr_skip_test ("only the drum has backing devices");
}

TestSuite (devices, .init = setup, .fini = dev_teardown, .timeout = 300);

/* A loop device over a file, that goes away by itself when nobody has it open. *fd keeps it. */
static char *
make_loop_with (const char *file, unsigned sector_bytes, int *fd)
{
  int control = open ("/dev/loop-control", O_RDWR | O_CLOEXEC), backing;
  struct loop_config config = { .block_size = sector_bytes, .info.lo_flags = LO_FLAGS_AUTOCLEAR };
  char *path = NULL;

  if (control == -1)
    cr_skip_test ("/dev/loop-control: %s", strerror (errno));
  backing = open (file, O_RDWR | O_CLOEXEC);
  cr_assert_geq (backing, 0, "%s: %m", file);
  config.fd = backing;
  for (;;) {
    int n = ioctl (control, LOOP_CTL_GET_FREE);

    path = str ("/dev/loop%d", n);
    *fd = n == -1 ? -1 : open (path, O_RDWR | O_CLOEXEC);
    if (*fd == -1)
      cr_skip_test ("no loop device: %s", strerror (errno));
    if (ioctl (*fd, LOOP_CONFIGURE, &config) == 0)
      break;
    if (errno != EBUSY) /* another test was faster */
      cr_skip_test ("%s: %s", path, strerror (errno));
    close (*fd);
  }
  close (backing);
  close (control);
  return path;
}

static char *
make_loop (const char *file, int *fd)
{
  return make_loop_with (file, 512, fd);
}

/* Has the server this file open with O_DIRECT? */
static bool
is_direct (const struct server *srv, const char *path)
{
  char *line = shell_output ("for fd in /proc/%d/fd/*; do test \"$(readlink $fd)\" = '%s' && "
                             "sed -n 's/^flags:[[:space:]]*//p' /proc/%d/fdinfo/${fd##*/}; done; :",
                             (int) srv->pid, path, (int) srv->pid);

  cr_assert_neq (*line, 0, "%s is not open", path);
  return strtoul (line, NULL, 8) & O_DIRECT;
}

/* With direct=yes: files and block devices with sectors of either size; requests of any alignment, many at once. */
Test (devices, direct)
{
  static char data[3 * MIB], back[3 * MIB + 2];
  struct rng rng = rng_for (7);
  int fd[2];
  char *loop[2] = { make_loop_with (dev_allocated ("disk512", 2 * MIB), 512, &fd[0]),
                    make_loop_with (dev_allocated ("disk4096", 2 * MIB), 4096, &fd[1]) };
  struct server srv;
  struct nbd_handle *nbd;

  server_start (&srv,
                &(struct server_options){
                  .params = PARAMS (loop[0], loop[1], dev_path ("a,size=2M"), "direct=yes") });
  cr_assert (is_direct (&srv, loop[0]) && is_direct (&srv, loop[1]));
  /* Where the tests' files lie on a file system without O_DIRECT, that is said. */
  cr_assert (is_direct (&srv, dev_path ("a")) != (strstr (server_stderr (&srv), "direct=") != NULL),
             "%s", server_stderr (&srv));
  nbd = client_open (&srv);
  for (unsigned i = 0; i < random_steps (50); i++) {
    unsigned at = (unsigned) rng_below (&rng, sizeof data - 8),
             len = 8 * (unsigned) (1 + rng_below (&rng, 40000));

    len = at + len > sizeof data ? sizeof data - at : len;
    rng_fill (&rng, data + at, len - 8);
    client_write (nbd, data + at, len, at);
    at = (unsigned) rng_below (&rng, sizeof data);
    len = 1 + (unsigned) rng_below (&rng, sizeof data - at);
    memset (back, 0xee, sizeof back);
    client_read (nbd, back + 1, len, at);
    cr_assert (memcmp (back + 1, data + at, len) == 0 && back[0] == back[len + 1],
               "DRUM_TEST_SEED=%ju, step %u", (uintmax_t) random_seed (), i);
  }
  client_close (nbd);
  server_stop (&srv);
  close (fd[0]);
  close (fd[1]);
}

/* Without it, through the page cache. */
Test (devices, not_direct)
{
  struct server srv;

  server_start (&srv, &(struct server_options){ .params = PARAMS (dev_path ("a,size=1M")) });
  cr_assert_not (is_direct (&srv, dev_path ("a")));
  server_stop (&srv);
}

/* A block device works as a file does, together with one, and its priority counts. */
Test (devices, block_device)
{
  int fd;
  char *loop = make_loop (dev_allocated ("disk", 2 * MIB), &fd);
  struct server srv;
  struct nbd_handle *nbd;

  server_start (&srv, &(struct server_options){
                        .params = PARAMS (dev_path ("a,size=1M"), str ("%s,prio=3", loop)) });
  nbd = client_open (&srv);
  cr_assert_eq (nbd_get_size (nbd), (254 + 510 - 11) * PAGE_BYTES);
  for (unsigned page = 0; page < 700; page++)
    client_write_page (nbd, 1, 1, page);
  for (unsigned page = 0; page < 700; page++)
    client_expect_page (nbd, 1, 1, page);
  client_close (nbd);
  server_stop (&srv);
  /* And again, without force=yes. */
  server_start (&srv, &(struct server_options){ .params = PARAMS (loop) });
  server_stop (&srv);
  close (fd);
}

/* A block device may hold anything but a signature: it is never all zero. */
Test (devices, block_device_with_old_data)
{
  int fd;
  char *loop = make_loop (dev_allocated ("disk", 2 * MIB), &fd);
  struct server srv;

  cr_assert_eq (pwrite (fd, "old", 3, 5000), 3);
  server_start (&srv, &(struct server_options){ .params = PARAMS (loop) });
  server_stop (&srv);
  close (fd);
}

/* One with a file system is refused, and not touched. */
Test (devices, block_device_with_a_file_system)
{
  int fd;
  char *loop = make_loop (dev_allocated ("disk", 8 * MIB), &fd), *line;

  cr_assert_eq (shell ("PATH=$PATH:/sbin:/usr/sbin; mkfs.ext4 -q -F %s", loop), 0);
  line = server_refuses (&(struct server_options){ .params = PARAMS (loop) });
  cr_assert (strstr (line, loop) && strstr (line, "ext4") && strstr (line, "force=yes"), "%s",
             line);
  close (fd);
}

/* One that somebody has for himself alone (the kernel: mounted, swap, RAID) is refused, with force=yes too. */
Test (devices, busy_block_device)
{
  int fd, exclusive;
  char *loop = make_loop (dev_allocated ("disk", 2 * MIB), &fd), *line;

  exclusive = open (loop, O_RDONLY | O_EXCL | O_CLOEXEC);
  cr_assert_geq (exclusive, 0, "%s: %m", loop);
  line = server_refuses (&(struct server_options){ .params = PARAMS (loop, "force=yes") });
  cr_assert (strstr (line, loop) && strstr (line, "in use"), "%s", line);
  close (exclusive);
  close (fd);
}

/* The same block device twice, and one held by another server. */
Test (devices, block_device_twice)
{
  int fd;
  char *loop = make_loop (dev_allocated ("disk", 2 * MIB), &fd), *line;
  struct server srv;

  cr_assert_eq (symlink (loop, dev_path ("link")), 0);
  line = server_refuses (&(struct server_options){ .params = PARAMS (loop, dev_path ("link")) });
  cr_assert (strstr (line, loop) && strstr (line, dev_path ("link")), "%s", line);
  server_start (&srv, &(struct server_options){ .params = PARAMS (loop) });
  line = server_refuses (&(struct server_options){ .params = PARAMS (loop) });
  cr_assert_not_null (strstr (line, loop), "%s", line);
  server_stop (&srv);
  close (fd);
}

/* size= of another size is an error for a block device too. */
Test (devices, size_of_a_block_device)
{
  int fd;
  char *loop = make_loop (dev_allocated ("disk", 2 * MIB), &fd), *line;

  line = server_refuses (&(struct server_options){ .params = PARAMS (str ("%s,size=1M", loop)) });
  cr_assert (strstr (line, loop) && strstr (line, "size="), "%s", line);
  close (fd);
}
