/* SPDX-License-Identifier: BSD-3-Clause
 *
 * watch.c - drumctl watch: one snapshot after the other, and the keys and signals between them.
 *
 * Each snapshot has a connection of its own: an interval may be longer than a server keeps a silent client, and it has few
 * places.
 */
#include <config.h>

#include "watch.h"

#include <poll.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "drumctl.h"
#include "options.h"
#include "screen.h"
#include "signals.h"
#include "terminal.h"
#include "text.h"

enum { PLAIN_WIDTH = 80 };

struct watch {
  double interval;
  int count; /* 0: for ever */
  bool json;
  bool screen;
  int wake, keys; /* descriptors; -1: none */
  struct snapshot *before, *now;
};

static double
clock_seconds (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}

/* The text for the window, or for who reads standard output, the caller's. */
static char *
frame (const struct watch *w)
{
  unsigned width = w->screen ? terminal_columns () : PLAIN_WIDTH;
  unsigned height = terminal_is () ? terminal_lines () : 0;
  char *text = NULL;
  size_t len;
  FILE *out = need (open_memstream (&text, &len));

  watch_text (w->before, w->now, width, height, out);
  fclose (out);
  return need (text);
}

static void
show (const struct watch *w)
{
  char *text;

  if (w->json)
    watch_json (w->before, w->now, stdout);
  else {
    text = frame (w);
    if (w->screen)
      screen_draw (text);
    else
      printf ("%s%s", w->before ? "\n" : "", text);
    free (text);
  }
  fflush (stdout);
}

/* Did somebody press q, or hang up? */
static bool
quits (struct watch *w)
{
  char key;
  ssize_t n = read (w->keys, &key, 1);

  if (n == 0)
    w->keys = -1;
  return n == 1 && (key == 'q' || key == 'Q');
}

static void
suspend (const struct watch *w)
{
  screen_leave ();
  signals_suspend ();
  if (w->screen)
    screen_enter ();
}

/* Keys and signals until then. False: it is enough. */
static bool
pause_until (struct watch *w, double when)
{
  for (;;) {
    struct pollfd fds[2] = { { .fd = w->wake, .events = POLLIN },
                             { .fd = w->keys, .events = POLLIN } };
    double left = when - clock_seconds ();
    char drain[64];

    if (signals_caught ())
      return false;
    if (signals_suspended ()) {
      suspend (w);
      show (w);
    }
    if (w->screen && signals_resized ())
      show (w);
    if (left <= 0)
      return true;
    if (poll (fds, 2, (int) (left < 3600 ? left * 1000 + 1 : 3600e3)) <= 0)
      continue;
    if (fds[0].revents && read (w->wake, drain, sizeof drain) == -1)
      continue;
    if (fds[1].revents && quits (w))
      return false;
  }
}

static int
loop (struct watch *w)
{
  double when = clock_seconds ();

  for (int n = 0; w->count == 0 || n < w->count; n++) {
    if (n && !pause_until (w, when += w->interval))
      return STATUS_DONE;
    if (when < clock_seconds () - w->interval)
      when = clock_seconds (); /* we were stopped for a while */
    snapshot_free (w->before);
    w->before = w->now;
    w->now = snapshot_ask_once (false);
    if (!w->now)
      return STATUS_FAILED;
    if (w->screen)
      screen_enter ();
    show (w);
    if (ferror (stdout))
      return STATUS_FAILED;
  }
  return STATUS_DONE;
}

static int
run_watch (const struct verb *self, int argc, char **argv)
{
  struct watch w = { .interval = 2, .keys = -1 };
  const struct option_spec options[] = {
    { 'i', "interval", "SECONDS", option_seconds, &w.interval, "from one look to the next (2)" },
    { 'c', "count", "N", option_count, &w.count, "look so many times (for ever)" },
    { 'J', "json", NULL, option_switch, &w.json, "print JSON, an object a line" },
    { 0 },
  };
  int status = options_parse (self, options, 0, 0, &argc, &argv);

  if (status >= 0)
    return status;
  w.screen = !w.json && terminal_is ();
  if (w.screen && isatty (STDIN_FILENO))
    w.keys = STDIN_FILENO;
  w.wake = signals_catch_all ();
  status = loop (&w);
  screen_leave ();
  if (w.screen && w.count && w.now && status == STATUS_DONE) {
    w.screen = false;
    show (&w); /* what was asked for is there to be read */
  }
  snapshot_free (w.before);
  snapshot_free (w.now);
  return status;
}

const struct verb verb_watch = {
  .name = "watch",
  .summary = "Show again and again what goes in and out, and how fast; q quits.",
  .run = run_watch,
};
