/* SPDX-License-Identifier: BSD-3-Clause
 *
 * logging.c - a server whose standard error is a pipe that nobody reads, and full.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "tests/faults/faults.h"
#include "tests/scratch.h"

#include "client.h"
#include "control.h"
#include "dev.h"

enum {
  NPAGES = 100,
  NREADS = 2000
}; /* the pages are few enough for the device not to be called failing */

static struct server srv;
static struct faults *faults;
static struct nbd_handle *nbd;
static int control, pipe_fds[2];

static void
fill_pipe (void)
{
  char c = '\n';

  cr_assert_eq (fcntl (pipe_fds[1], F_SETFL, O_NONBLOCK), 0);
  while (write (pipe_fds[1], &c, 1) == 1)
    ;
  cr_assert_eq (errno, EAGAIN);
  cr_assert_eq (fcntl (pipe_fds[1], F_SETFL, 0), 0);
}

static void
setup (void)
{
  char *path;

  dev_setup ();
  if (!server_is_drum ())
    cr_skip_test ("only the drum has devices");
  path = run_path ("faults");
  faults = faults_open (path);
  cr_assert_not_null (faults, "%s: %m", path);
  cr_assert_eq (pipe2 (pipe_fds, O_CLOEXEC), 0);
  server_start (
    &srv, &(struct server_options){ .threads = 1,
                                    .params = PARAMS (dev_path ("a,size=4M,prio=5"),
                                                      dev_path ("b,size=4M"), control_param ()),
                                    .stderr_fd = pipe_fds[1],
                                    .faults = path });
  control = control_open ();
  nbd = client_open (&srv);
  fill_pipe ();
}

TestSuite (logging, .init = setup, .fini = dev_teardown, .timeout = 300);

static struct faults_rule *
fail (enum faults_call calls)
{
  struct faults_rule *rule =
    faults_add (faults, dev_path ("a"),
                &(struct faults_plan){ .calls = calls, .action = FAULTS_FAIL, .error = EIO });

  cr_assert_not_null (rule);
  return rule;
}

static void
stop (void)
{
  client_close (nbd);
  close (control);
  server_stop (&srv);
}

/* The next line that is not empty. */
static void
next_line (FILE *f, char *line, int size)
{
  do
    cr_assert_not_null (fgets (line, size, f));
  while (*line == '\n');
}

/* Requests are answered, more of them than lines can wait; when somebody reads the lines come in order, and say how many are lost. */
Test (logging, requests_go_on)
{
  FILE *f = fdopen (pipe_fds[0], "r");
  unsigned nlines = 0, nlost = 0, page;
  char line[8192], *lost;
  struct faults_rule *rule;

  for (page = 0; page < NPAGES; page++)
    client_write_page (nbd, 1, 1, page);
  rule = fail (FAULTS_READ);
  for (unsigned i = 0; i < NREADS; i++) {
    cr_assert_eq (nbd_pread (nbd, line, PAGE_BYTES, i % NPAGES * PAGE_BYTES, 0), -1);
    cr_assert_eq (nbd_get_errno (), EIO);
  }
  faults_remove (rule);
  for (page = 0; page < NPAGES; page++)
    client_expect_page (nbd, 1, 1, page);
  control_status (control);

  for (;;) {
    next_line (f, line, sizeof line);
    lost = strstr (line, " lines of the log are lost");
    if (lost)
      break;
    if (!strstr (line, "can't be read: at"))
      continue; /* that the device is failing */
    cr_assert_eq (sscanf (strstr (line, ": page "), ": page %u can't", &page), 1, "%s", line);
    cr_assert_eq (page, nlines++ % NPAGES, "%s", line);
  }
  *lost = 0;
  nlost = (unsigned) strtoul (strrchr (line, ' '), NULL, 10);
  cr_assert_gt (nlines, 100);
  cr_assert_geq (nlines + nlost, NREADS);
  stop ();
}

/* A device fails, empties itself, and leaves; nobody ever hears of it, and the server ends. */
Test (logging, it_ends)
{
  struct faults_rule *rule;

  client_write_page (nbd, 1, 1, 0);
  rule = fail (FAULTS_WRITE);
  for (unsigned page = 1; page < NPAGES; page++)
    client_write_page (nbd, 1, 1, page);
  while (json_object_array_length (member (control_status (control), "jobs")) == 0)
    control_forget (); /* a job that nobody asked for: no event says that it begins */
  control_wait (control, 1, "done");
  for (unsigned page = 0; page < NPAGES; page++)
    client_expect_page (nbd, 1, 1, page);
  expect_str (control_device (control, dev_path ("a")), "state", "failed");
  control_run (control, "done", "'verb': 'remove', 'device': '%s'", dev_path ("a"));
  faults_remove (rule);
  if (server_is_sanitized ())
    close (pipe_fds[0]); /* TSan flushes stderr at the end, and waits for who writes there */
  stop ();
}
