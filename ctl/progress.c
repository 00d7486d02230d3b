/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "terminal.h"
#include "text.h"

enum { LINE_PERCENT = 10, LINE_SECONDS = 10, MIN_BAR = 8 };

char *
job_subject (const struct job *job)
{
  return text_printable (job->device   ? job->device
                         : job->export ? text_export (job->export)
                                       : "the drum");
}

const struct job_words *
job_words (const struct job *job)
{
  static const struct job_words words[] = {
    { "add", "adding", "added", "move", "moved" },
    { "remove", "removing", "removed", "move", "moved" },
    { "rebalance", "rebalancing", "rebalanced", "move", "moved" },
    { "evacuate", "evacuating", "evacuated", "move", "moved" },
    { "scrub", "scrubbing", "scrubbed", "read", "read" },
    { "export-remove", "removing", "removed", "free", "freed" },
    { "export-resize", "resizing", "resized", "give up", "given up" },
    { "export-move", "moving", "moved", "pass on", "passed on" },
    { "shutdown", "shutting down", "shut down", "do", "done" },
  };
  static const struct job_words other = { "job", "at work", "done", "do", "done" };

  for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
    if (strcmp (job->kind, words[i].kind) == 0)
      return &words[i];
  return &other;
}

/* Clients move pages, too: a job may do less than its total, or more. */
static unsigned
percent (const struct job *job)
{
  return text_percent (job->done < job->total ? job->done : job->total, job->total);
}

/* "42%, 1.2G of 2.9G, 104M/s, 0:17 left", the caller's. */
static char *
figures (const struct job *job, const char *separator)
{
  double rate = job->seconds > 0.001 ? (double) job->done / job->seconds : 0;
  uint64_t rest = job->total > job->done ? job->total - job->done : 0;
  char done[16], total[16], speed[TEXT_NUMBER], left[TEXT_NUMBER] = "-:--";

  if (rate >= 1)
    text_duration ((double) rest / rate, left);
  return text_format ("%3u%%%s%s of %s%s%s%s%s left", percent (job), separator,
                      format_bytes (job->done, done), format_bytes (job->total, total), separator,
                      text_rate (rate, speed), separator, left);
}

/* A job without a total, or before it knows it. */
static char *
waiting (const struct job *job, const char *name)
{
  char duration[TEXT_NUMBER];

  return text_format ("%s: %s, %s", name, job_words (job)->doing,
                      text_duration (job->seconds, duration));
}

static char *
bar (const struct job *job, const char *name, unsigned width)
{
  char *text = figures (job, "  "), *line;
  unsigned used = text_width (name) + text_width (text) + 6, room = width > used ? width - used : 0;
  unsigned full;

  if (room > 60)
    room = 60;
  full = room * percent (job) / 100;
  if (room < MIN_BAR)
    line = text_format ("%s  %s", name, text);
  else
    line = text_format ("%s  [%.*s%*s] %s", name, (int) full,
                        "############################################################",
                        (int) (room - full), "", text);
  free (text);
  return line;
}

/* Over the one before; never as wide as the terminal, whose cursor would go to the next line. */
static void
draw (const struct job *job, const char *name)
{
  unsigned width = terminal_columns () - 1;
  char *line = job->total ? bar (job, name, width) : waiting (job, name);

  printf ("\r%.*s\033[K", (int) text_clip (line, width), line);
  fflush (stdout);
  free (line);
}

static void
print_line (struct progress *p, const struct job *job, const char *name)
{
  const struct job_words *words = job_words (job);
  char *text = figures (job, ", "), *at = text;
  char total[16];

  while (*at == ' ')
    at++;
  if (!p->begun && job->total)
    printf ("%s: %s (job %" PRIu64 "), %s to %s\n", name, words->doing, job->id,
            format_bytes (job->total, total), words->to_bytes);
  else if (!p->begun)
    printf ("%s: %s (job %" PRIu64 ")\n", name, words->doing, job->id);
  else if (job->total)
    printf ("%s: %s\n", name, at);
  else
    return free (text);
  fflush (stdout);
  free (text);
}

void
progress_show (struct progress *p, const struct job *job)
{
  char *name = job_subject (job);

  if (terminal_is ())
    draw (job, name);
  else if (!p->begun || percent (job) >= p->percent + LINE_PERCENT ||
           job->seconds >= p->seconds + LINE_SECONDS) {
    print_line (p, job, name);
    p->percent = percent (job);
    p->seconds = job->seconds;
  }
  p->begun = true;
  free (name);
}

void
progress_clear (struct progress *p)
{
  if (p->begun && terminal_is ()) {
    fputs ("\r\033[K", stdout);
    fflush (stdout);
  }
}
