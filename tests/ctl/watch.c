/* SPDX-License-Identifier: BSD-3-Clause
 *
 * watch.c - drumctl watch: what it shows, and that it gives the terminal back.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "tests/scratch.h"

#include "fake.h"
#include "run.h"

#define ENTERED "\033[?1049h"
#define LEFT    "\033[?1049l"

/* The canned status, and two seconds later: the first device has read 2000 times, 8 M, 1980 of them in at most 64 us, 19 in 128
 * and one in 1024. */
static char *
later (void)
{
  static const char *const change[][2] = {
    { "\"uptime\":93784.25", "\"uptime\":93786.25" },
    { "\"requests\":1000000,\"bytes\":12884901888", "\"requests\":1002000,\"bytes\":12893290496" },
    { "600000,390000,0,0,0,9990", "600000,391980,19,0,0,9991" },
  };
  char *text = fake_canned ("status.json");

  for (unsigned i = 0; i < sizeof change / sizeof change[0]; i++) {
    char *at = strstr (text, change[i][0]);

    cr_assert_not_null (at, "%s", change[i][0]);
    text = str ("%.*s%s%s", (int) (at - text), text, change[i][1], at + strlen (change[i][0]));
  }
  return text;
}

static struct fake_reply replies[3];

static void
setup_canned (void)
{
  setup ();
  replies[0] = (struct fake_reply){ .text = fake_canned ("status.json"), .once = true };
  replies[1] = (struct fake_reply){ .text = later () };
  fake_start (replies);
}

TestSuite (watch, .init = setup_canned, .fini = scratch_teardown, .timeout = 60);

Test (watch, text)
{
  struct result r = RUN ("watch", "--count", "2", "--interval", "0.01");

  cr_assert_eq (r.status, 0, "%s", r.err);
  expect_golden ("watch", r.out);
}

Test (watch, json)
{
  struct result r = RUN ("watch", "--count", "2", "--interval", "0.01", "--json");
  char *first = r.out, *second = strchr (first, '\n') + 1;
  double time;

  cr_assert_eq (r.status, 0, "%s", r.err);
  cr_assert_eq (sscanf (first, "{\"time\":%lf,", &time), 1);
  cr_assert_eq (sscanf (second, "{\"time\":%lf,", &time), 1);
  expect_golden ("watch.json",
                 str ("%.*s\n%s", (int) (strchr (strchr (first, ','), '\n') - strchr (first, ',')),
                      strchr (first, ','), strchr (second, ',')));
}

/* A server that has started anew, or another device under the same name, begins at nothing. */
Test (watch, server_restarts)
{
  char *at;

  replies[1].text = str ("%s", fake_canned ("status.json"));
  cr_assert_not_null (at = strstr (replies[1].text, "\"pid\":4711"));
  memcpy (at, "\"pid\":4712", 10);
  cr_assert_not_null (strstr (strstr (RUN ("watch", "-c", "2", "-i", "0.01").out, "\n\ndrum") + 2,
                              "since it started:"));
}

/* What it has read, 500000 requests, it has read in the last 2 seconds. */
Test (watch, device_is_another)
{
  char *at = strstr (replies[1].text, "0c8a3c1d2e02");

  cr_assert_not_null (at);
  memcpy (at, "ffffffffffff", 12);
  at = strstr (RUN ("watch", "-c", "2", "-i", "0.01").out, "in the last 2.0 s:");
  cr_assert_not_null (strstr (at, "\n/dev/nvme1n1p3      4G   6% read    250k     3G "), "%s", at);
}

/* The same as JSON. */
Test (watch, device_is_another_json)
{
  char *at = strstr (replies[1].text, "0c8a3c1d2e02");

  memcpy (at, "ffffffffffff", 12);
  at = strchr (RUN ("watch", "-c", "2", "-i", "0.01", "--json").out, '\n');
  cr_assert_not_null (strstr (at, "\"read\":{\"requests\":250000.000,"), "%s", at);
}

/* An export that was not there before, in the place of one that has gone: what it has written, it has written since. */
Test (watch, export_is_another)
{
  char *at = strstr (replies[1].text, "vm \\\"1\\\"");

  cr_assert_not_null (at);
  memcpy (at, "vm 2    ", 8);
  at = strstr (RUN ("watch", "-c", "2", "-i", "0.01").out, "in the last 2.0 s:");
  at = strstr (at, "\nvm 2 ");
  cr_assert_not_null (at);
  cr_assert_not_null (strstr (at, "\n  0 clients                 write    5.0    20K "), "%s", at);
}

static void
expect_terminal (struct session *s, bool raw)
{
  struct termios t;

  cr_assert_eq (tcgetattr (s->fd, &t), 0);
  cr_assert_eq (!(t.c_lflag & ICANON), raw);
  cr_assert_eq (!(t.c_lflag & ECHO), raw);
}

Test (watch, keys)
{
  struct session s;

  session_start (&s, 80, 24, ARGS ("watch", "--interval", "600"));
  session_expect (&s, ENTERED);
  session_expect (&s, "/dev/nvme0n1p3");
  session_expect (&s, "\033[J");
  expect_terminal (&s, true);
  cr_assert_eq (write (s.fd, "xq", 2), 2);
  session_expect (&s, LEFT);
  cr_assert_eq (session_end (&s), 0);
}

static void
expect_ended_by (int sig)
{
  struct session s;

  session_start (&s, 80, 24, ARGS ("watch", "--interval", "600"));
  session_expect (&s, "\033[J");
  kill (s.pid, sig);
  session_expect (&s, "\033[?25h" LEFT);
  cr_assert_eq (session_end (&s), -sig);
}

Test (watch, signals)
{
  expect_ended_by (SIGINT);
  expect_ended_by (SIGTERM);
  expect_ended_by (SIGHUP);
}

/* Also while the server is silent. */
Test (watch, signal_while_waiting)
{
  struct session s;

  replies[1].text = FAKE_SILENCE;
  session_start (&s, 80, 24, ARGS ("watch", "--interval", "0.01"));
  session_expect (&s, "\033[J");
  usleep (100000);
  kill (s.pid, SIGINT);
  session_expect (&s, LEFT);
  cr_assert_eq (session_end (&s), -SIGINT);
  cr_assert_null (strstr (s.seen, "drumctl:"), "%s", s.seen);
}

/* The reason is to be read where the shell goes on. */
Test (watch, server_goes)
{
  struct session s;

  replies[1] = (struct fake_reply){ .text = "", .hangs_up = true };
  session_start (&s, 80, 24, ARGS ("watch", "--interval", "0.01"));
  session_expect (&s, ENTERED);
  session_expect (&s, LEFT);
  session_expect (&s, ": the server has hung up\r\n");
  cr_assert_eq (session_end (&s), 1);
  cr_assert_null (strstr (s.seen, ENTERED));
}

/* Ctrl-Z gives the shell its terminal, and fg takes it again. (There is no shell here, so it goes on at once.) */
Test (watch, suspended)
{
  struct session s;

  session_start (&s, 80, 24, ARGS ("watch", "--interval", "600"));
  session_expect (&s, "\033[J");
  cr_assert_eq (write (s.fd, "\032", 1), 1);
  session_expect (&s, LEFT);
  session_expect (&s, ENTERED);
  session_expect (&s, "/dev/nvme0n1p3");
  session_expect (&s, "\033[J");
  expect_terminal (&s, true);
  cr_assert_eq (write (s.fd, "q", 1), 1);
  cr_assert_eq (session_end (&s), 0);
}

/* 80 columns are just enough. */
Test (watch, full_lines)
{
  struct session s;

  session_start (&s, 80, 24, ARGS ("watch", "--interval", "600"));
  session_expect (&s, "\r\nEXPORT ");
  session_expect (&s, " QUEUE   ERR\r\n");
  session_expect (
    &s, "  adding                    write      0     0B      -      -      -     0     0\r\n");
  cr_assert_eq (write (s.fd, "q", 1), 1);
  cr_assert_eq (session_end (&s), 0);
}

static unsigned
count_lines (const char *text)
{
  unsigned n = 1;

  for (; *text; text++)
    n += *text == '\n';
  return n;
}

Test (watch, window_changes)
{
  struct winsize small = { .ws_col = 30, .ws_row = 5 }, tiny = { .ws_col = 1, .ws_row = 1 };
  struct session s;
  char *picture;

  session_start (&s, 120, 50, ARGS ("watch", "--interval", "600"));
  session_expect (&s, "\033[J");
  cr_assert_eq (ioctl (s.fd, TIOCSWINSZ, &small), 0);
  session_expect (&s, "\033[H");
  session_expect (&s, " lines more)");
  cr_assert_eq (ioctl (s.fd, TIOCSWINSZ, &tiny), 0);
  session_expect (&s, "\033[H");
  small.ws_row = 4;
  cr_assert_eq (ioctl (s.fd, TIOCSWINSZ, &small), 0);
  session_expect (&s, "\033[H");
  picture = s.seen;
  session_expect (&s, "lines more)");
  cr_assert_leq (count_lines (picture), 4);
  cr_assert_eq (write (s.fd, "q", 1), 1);
  cr_assert_eq (session_end (&s), 0);
}

/* With a number of looks the last one stays to be read. */
Test (watch, count_on_a_terminal)
{
  struct session s;

  session_start (&s, 80, 24, ARGS ("watch", "--interval", "0.01", "--count", "2"));
  session_expect (&s, LEFT);
  session_expect (&s, "in the last 2.0 s:");
  cr_assert_eq (session_end (&s), 0);
}

enum { NEXPORTS = 1000 };

/* The canned status with a thousand exports, of which one has read so much, and another so much more than at first. */
static char *
fleet (const char *uptime, unsigned reads_of_7, unsigned reads_of_700)
{
  char *status = fake_canned ("status.json"), *from = strstr (status, "\"exports\":[") + 11;
  char *to = strstr (status, "], \"jobs\""), *text = NULL, *at = strstr (status, "93784.25");
  size_t len;
  FILE *out = open_memstream (&text, &len);

  memcpy (at, uptime, strlen (uptime));
  fprintf (out, "%.*s", (int) (from - status), status);
  for (unsigned i = 0; i < NEXPORTS; i++) {
    fprintf (out,
             "%s{\"name\":\"host-%u\",\"size\":8192,\"used\":4096,\"clients\":1,\"zero_pages\":0",
             i ? "," : "", i);
    for (unsigned op = 0; op < 4; op++) {
      static const char *const ops[] = { "read", "write", "trim", "zero" };
      unsigned n = op ? 0 : i == 7 ? reads_of_7 : i == 700 ? reads_of_700 : 0;

      fprintf (out,
               ",\"%s\":{\"requests\":%u,\"bytes\":0,\"errors\":0,\"in_flight\":0,"
               "\"seconds\":0,\"histogram\":[%u",
               ops[op], n, n);
      for (unsigned k = 1; k < 28; k++)
        fputs (",0", out);
      fputs ("]}", out);
    }
    putc ('}', out);
  }
  fputs (to, out);
  fclose (out);
  return text;
}

/* Of a thousand exports those are there that have something to do, the busiest first, and the devices after them. */
Test (watch, busiest)
{
  struct session s;

  replies[0].text = fleet ("93784.25", 1000, 10);
  replies[1].text = fleet ("93786.25", 1002, 14);
  session_start (&s, 80, 23, ARGS ("watch", "--interval", "0.5"));
  session_expect (&s, "since it started:");
  session_expect (&s, "\nhost-7 ");
  session_expect (&s, "\nhost-700 ");
  session_expect (&s, "\nhost-0 ");
  session_expect (&s, "\n(996 exports more, with less to do)");
  session_expect (&s, "\nDEVICE ");
  session_expect (&s, "\n/srv/swap/new ");
  session_expect (&s, "in the last 2.0 s:");
  session_expect (&s, "\nhost-700            4K  50% read     2.0 ");
  session_expect (&s, "\nhost-7              4K  50% read     1.0 ");
  cr_assert_eq (write (s.fd, "q", 1), 1);
  cr_assert_eq (session_end (&s), 0);
}

/* A low window has the three busiest in any case; a high one, and what is no terminal, have all. */
Test (watch, busiest_as_they_fit)
{
  struct session s;
  char *out;

  replies[0] = replies[1] = (struct fake_reply){ .text = fleet ("93784.25", 1000, 10) };
  session_start (&s, 80, 12, ARGS ("watch", "--interval", "600"));
  session_expect (&s, "\nhost-7 ");
  session_expect (&s, "\nhost-700 ");
  session_expect (&s, "\nhost-0 ");
  session_expect (&s, "\n(997 exports more, with less to do)");
  session_expect (&s, " lines more)");
  cr_assert_eq (write (s.fd, "q", 1), 1);
  cr_assert_eq (session_end (&s), 0);
  session_start (&s, 80, 5 + 8 + 2 * NEXPORTS, ARGS ("watch", "--interval", "600"));
  session_expect (&s, "\nhost-0 ");
  session_expect (&s, "\nhost-999 ");
  session_expect (&s, "\n/srv/swap/new ");
  cr_assert_eq (write (s.fd, "q", 1), 1);
  cr_assert_eq (session_end (&s), 0);
  out = RUN ("watch", "--count", "1").out;
  cr_assert_null (strstr (out, "exports more"));
  cr_assert_not_null (strstr (out, "\nhost-999 "));
}
