/* SPDX-License-Identifier: BSD-3-Clause
 *
 * claim.c - tests of lib/claim.c: whose is a file, and what is on it?
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/claim.h"
#include "tests/scratch.h"

#include "files.h"
#include "logged.h"

enum { MIB = 1 << 20 };

static char *path;
static struct stat st;

static void
setup (void)
{
  scratch_setup ();
  logged_start ();
  path = file_make ("f", 4 * MIB);
  cr_assert_eq (stat (path, &st), 0);
}

TestSuite (claim, .init = setup, .fini = scratch_teardown, .timeout = 60);

static int
open_file (const char *name)
{
  int fd = open (name, O_RDWR | O_CLOEXEC);

  cr_assert_geq (fd, 0, "%s: %m", name);
  return fd;
}

/* What is locked by this very process is the same file named twice: both names are said. */
Test (claim, names_the_other_name)
{
  char *other = scratch_path ("hard");
  int a = open_file (path), b;

  cr_assert_eq (link (path, other), 0);
  b = open_file (other);
  cr_assert_eq (claim_lock (a, path, &st), 0);
  cr_assert_eq (logged_count (""), 0);
  cr_assert_eq (claim_lock (b, other, &st), -EBUSY);
  cr_assert_eq (logged_count (str ("%s: is the same file as %s", other, path)), 1, "%s",
                logged_last ());
}

/* The lock ends with the descriptor. */
Test (claim, lock_ends_at_close)
{
  int a = open_file (path), b = open_file (path);

  cr_assert_eq (claim_lock (a, path, &st), 0);
  close (a);
  cr_assert_eq (claim_lock (b, path, &st), 0);
  cr_assert_eq (logged_count (""), 0);
}

/* Fork a process that locks the file; returns when it has. */
static pid_t
fork_holder (void)
{
  int fds[2];
  char c;
  pid_t pid;

  cr_assert_eq (pipe (fds), 0);
  fflush (NULL);
  pid = fork ();
  cr_assert_geq (pid, 0);
  if (pid == 0) {
    int fd = open (path, O_RDWR);
    flock (fd, LOCK_EX);
    if (write (fds[1], "x", 1) == 1)
      for (;;)
        pause ();
    _exit (1);
  }
  cr_assert_eq (read (fds[0], &c, 1), 1);
  return pid;
}

/* Another process that has the file is named by its number. */
Test (claim, names_the_other_process)
{
  pid_t pid = fork_holder ();
  int fd = open_file (path), ret = claim_lock (fd, path, &st);

  kill (pid, SIGKILL);
  waitpid (pid, NULL, 0);
  cr_assert_eq (ret, -EBUSY);
  cr_assert_eq (logged_count (str ("in use by process %d ", (int) pid)), 1, "%s", logged_last ());
  assert_logged_error (path);
  cr_assert_eq (claim_lock (fd, path, &st), 0, "the lock outlived its process");
}

/* A lock goes on in a child: a server that forks into the background keeps its devices. */
Test (claim, lock_outlives_a_fork)
{
  int fd = open_file (path), other = open_file (path), fds[2];
  pid_t pid;

  cr_assert_eq (claim_lock (fd, path, &st), 0);
  cr_assert_eq (pipe (fds), 0);
  fflush (NULL);
  pid = fork ();
  if (pid == 0) {
    char c;

    close (fds[1]);
    _exit (read (fds[0], &c, 1) != 0); /* until the parent closes its end */
  }
  close (fd);
  cr_assert_eq (claim_lock (other, path, &st), -EBUSY);
  close (fds[1]);
  waitpid (pid, NULL, 0);
  cr_assert_eq (claim_lock (other, path, &st), 0);
}

/* Lock the file with a descriptor that then only a message in a socket has, as the kernel has those of a process that is gone.
 * Returns the socket: closing it ends the lock. */
static int
lock_without_a_process (void)
{
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE (sizeof (int))];
  } control = { .header = { .cmsg_len = CMSG_LEN (sizeof (int)),
                            .cmsg_level = SOL_SOCKET,
                            .cmsg_type = SCM_RIGHTS } };
  struct iovec byte = { .iov_base = (char[]){ 'x' }, .iov_len = 1 };
  struct msghdr message = { .msg_iov = &byte,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = sizeof control };
  int fd = open_file (path), sockets[2];

  cr_assert_eq (flock (fd, LOCK_EX | LOCK_NB), 0);
  cr_assert_eq (socketpair (AF_UNIX, SOCK_STREAM, 0, sockets), 0);
  memcpy (CMSG_DATA (&control.header), &fd, sizeof fd);
  cr_assert_eq (sendmsg (sockets[0], &message, 0), 1);
  close (fd);
  close (sockets[0]);
  return sockets[1];
}

static void *
close_later (void *opaque)
{
  usleep (50000); /* most likely it is waited for by then, which nothing tells */
  close (*(int *) opaque);
  return NULL;
}

/* A lock that no process has any more is waited for. */
Test (claim, waits_for_what_nobody_has)
{
  int holder = lock_without_a_process (), fd = open_file (path);
  pthread_t thread;

  cr_assert_eq (pthread_create (&thread, NULL, close_later, &holder), 0);
  cr_assert_eq (claim_lock (fd, path, &st), 0, "%s", logged_last ());
  cr_assert_eq (logged_count (""), 0);
  pthread_join (thread, NULL);
}

/* But not for good. */
Test (claim, waits_no_longer_than_it_says)
{
  int holder = lock_without_a_process (), fd = open_file (path);

  cr_assert_eq (claim_lock (fd, path, &st), -EBUSY);
  cr_assert_eq (logged_count (str ("%s: is locked by another process", path)), 1, "%s",
                logged_last ());
  close (holder);
}

static int
check_foreign (void)
{
  int fd = open_file (path), ret = claim_check_foreign (fd, path, &st, (uint64_t) st.st_size);

  close (fd);
  return ret;
}

/* A file of zeroes may be taken; so may one that is smaller than what is looked at. */
Test (claim, zeroes_may_be_taken)
{
  cr_assert_eq (check_foreign (), 0);
  cr_assert_eq (truncate (path, 12288 + 100), 0);
  cr_assert_eq (stat (path, &st), 0);
  cr_assert_eq (check_foreign (), 0);
  cr_assert_eq (logged_count (""), 0);
}

/* Any byte in the first MiB is data; those behind it are not looked at. */
Test (claim, first_mib_must_be_zero)
{
  static const uint64_t at[] = { 0, 1, 4095, 4096, 100000, MIB - 1 };

  file_write (path, MIB, "x", 1);
  cr_assert_eq (check_foreign (), 0);
  for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
    file_write (path, at[i], "x", 1);
    cr_assert_eq (check_foreign (), -EEXIST, "byte %u", (unsigned) at[i]);
    cr_assert_eq (logged_count ("force=yes"), 1);
    assert_logged_error (path);
    file_write (path, at[i], "", 1);
  }
}

/* The last byte of a small file counts too. */
Test (claim, small_files_are_looked_at_to_the_end)
{
  cr_assert_eq (truncate (path, 3 * 4096 + 10), 0);
  cr_assert_eq (stat (path, &st), 0);
  file_write (path, 3 * 4096 + 9, "x", 1);
  cr_assert_eq (check_foreign (), -EEXIST);
}

static void
assert_signature (const char *command, const char *name)
{
  if (shell ("%s %s", command, path) != 0)
    cr_skip_test ("%s does not work here", command);
  cr_assert_eq (check_foreign (), -EEXIST, "%s is not seen", name);
  cr_assert_eq (logged_count (str ("holds a signature of %s: give force=yes", name)), 1, "%s",
                logged_last ());
  assert_logged_error (path);
}

/* File systems are known by name. */
Test (claim, knows_file_systems)
{
  assert_signature ("/sbin/mkfs.ext4 -F -q", "ext4");
}

/* Swap devices are known by name. */
Test (claim, knows_swap)
{
  assert_signature ("/sbin/mkswap", "swap");
}

/* Partition tables are known by name. */
Test (claim, knows_partition_tables)
{
  assert_signature ("echo start=2048 | /sbin/sfdisk", "dos");
}
