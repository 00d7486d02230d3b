/* SPDX-License-Identifier: BSD-3-Clause
 *
 * attached.c - attached.c: several devices on one host, each with its own keeper. Threads of the test stand for them.
 */
#include <config.h>

#include "ctl/attached.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/scratch.h"

/* ATTACHED_DIR is a relative path here. */
static void
set_up (void)
{
  scratch_setup ();
  cr_assert_eq (chdir (scratch_path (".")), 0);
  cr_assert_eq (mkdir (ATTACHED_DIR, 0700), 0);
}

TestSuite (attached, .init = set_up, .fini = scratch_teardown, .timeout = 60);

static int
listen_as (int index)
{
  struct sockaddr_un addr;
  int fd = socket (AF_UNIX, SOCK_DGRAM, 0);

  attached_address (index, &addr);
  cr_assert_eq (bind (fd, (struct sockaddr *) &addr, sizeof addr), 0, "%m");
  return fd;
}

struct keeper {
  int fd;
  const char *uri;
};

static void *
answer (void *arg)
{
  const struct keeper *k = arg;
  char reply[ATTACHED_REPLY_BYTES], request[16];
  struct sockaddr_un from;
  socklen_t len = sizeof from;

  snprintf (reply, sizeof reply, "state=up\nuri=%s\nuriel=x\n", k->uri);
  for (; recvfrom (k->fd, request, sizeof request, 0, (struct sockaddr *) &from, &len) > 0;
       len = sizeof from)
    sendto (k->fd, reply, strlen (reply), 0, (struct sockaddr *) &from, len);
  return NULL;
}

/* Until the test ends. */
static void
keep (int index, const char *uri)
{
  struct keeper *k = malloc (sizeof *k);
  pthread_t thread;

  *k = (struct keeper){ listen_as (index), uri };
  cr_assert_eq (pthread_create (&thread, NULL, answer, k), 0);
  pthread_detach (thread);
}

Test (attached, by_uri)
{
  keep (0, "nbd://h/a");
  keep (10, "nbd://h/ab");
  keep (9, "nbd://h:10810/a");
  close (listen_as (3)); /* its keeper was killed */
  cr_assert_eq (attached_find ("nbd://h/a"), 0);
  cr_assert_eq (attached_find ("nbd://h/ab"), 10);
  cr_assert_eq (attached_find ("nbd://h:10810/a"), 9);
  cr_assert_eq (attached_find ("nbd://h/"), -1);
  cr_assert_eq (attached_find ("x"), -1);
  cr_assert_eq (attached_find (""), -1);
}

Test (attached, none)
{
  cr_assert_eq (attached_find ("nbd://h/a"), -1);
  cr_assert_eq (rmdir (ATTACHED_DIR), 0);
  cr_assert_eq (attached_find ("nbd://h/a"), -1);
}
