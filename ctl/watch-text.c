/* SPDX-License-Identifier: BSD-3-Clause
 *
 * watch-text.c - one interval as a table: two lines for each export and device, what is read and what is written.
 */
#include <config.h>

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rates.h"
#include "text.h"
#include "watch.h"

enum { FIXED_WIDTH = 65, MIN_NAME = 15, MAX_NAME = 48, MIN_EXPORTS = 3 };

enum { OTHER_LINES = 5 }; /* than those of exports and devices */

struct page {
  const struct snapshot *before, *now;
  double seconds;
  unsigned name_width;
  FILE *out;
};

/* A name in its column. What tells paths apart is at their end, so that is what is kept of a long one. */
static void
put_name (const struct page *page, const char *name)
{
  char *text = text_printable (name), *at = text;
  unsigned width = text_width (text), skipped = 0;

  if (width > page->name_width) {
    at += text_clip (text, width - page->name_width + 1);
    putc ('~', page->out);
    skipped = 1;
  }
  fprintf (page->out, "%s%*s", at, (int) (page->name_width - skipped - text_width (at)), "");
  free (text);
}

static const char *
latency (double seconds, const struct snapshot *now, char buf[TEXT_NUMBER])
{
  char bound[TEXT_NUMBER];

  if (seconds == 0)
    return "-";
  if (isfinite (seconds))
    return text_latency (seconds, buf);
  text_latency (now->nbuckets > 1 ? now->bounds[now->nbuckets - 2] : 0, bound);
  snprintf (buf, TEXT_NUMBER, ">%.20s", bound);
  return buf;
}

static void
put_rates (const struct page *page, const char *op, const struct counters *before,
           const struct counters *counters)
{
  struct rates r = rates_between (page->now, before, counters, page->seconds);
  char requests[TEXT_NUMBER], bytes[16], p50[TEXT_NUMBER], p99[TEXT_NUMBER], max[TEXT_NUMBER];

  fprintf (page->out, " %-5s %6s %6s %6s %6s %6s %5" PRIu64 " %5" PRIu64 "\n", op,
           text_decimal (r.requests, requests),
           format_bytes (r.bytes < 1e18 ? (uint64_t) r.bytes : 0, bytes),
           latency (r.p50, page->now, p50), latency (r.p99, page->now, p99),
           latency (r.max, page->now, max), r.in_flight, r.errors);
}

static void
put_use (const struct page *page, uint64_t used, uint64_t size)
{
  char bytes[16];

  fprintf (page->out, " %6s %3u%%", format_bytes (used, bytes), text_percent (used, size));
}

/* The second line and those after it: a remark in place of the name. */
static void
put_more (const struct page *page, const char *remark, const char *op,
          const struct counters *before, const struct counters *counters)
{
  put_name (page, remark);
  fprintf (page->out, "%12s", "");
  put_rates (page, op, before, counters);
}

static void
put_export (const struct page *page, const struct export *e)
{
  const struct export *before = snapshot_export_before (page->before, page->now, e);
  char *clients = text_format ("  %" PRIu64 " client%s", e->clients, e->clients == 1 ? "" : "s");

  put_name (page, text_export (e->name));
  put_use (page, e->used, export_most (e));
  put_rates (page, "read", before ? &before->read : NULL, &e->read);
  put_more (page, clients, "write", before ? &before->write : NULL, &e->write);
  if (e->trim.requests)
    put_more (page, "", "trim", before ? &before->trim : NULL, &e->trim);
  if (e->zero.requests)
    put_more (page, "", "zero", before ? &before->zero : NULL, &e->zero);
  free (clients);
}

/* Lines that it takes. */
static unsigned
export_lines (const struct export *e)
{
  return 2 + (e->trim.requests != 0) + (e->zero.requests != 0);
}

/* An export, and how much it has to do: requests a second, and those that are under way. */
struct busy {
  const struct export *e;
  double requests;
};

static double
requests_of (const struct page *page, const struct counters *before,
             const struct counters *counters)
{
  struct rates r = rates_between (page->now, before, counters, page->seconds);

  return r.requests + (double) r.in_flight;
}

static struct busy
busy_of (const struct page *page, const struct export *e)
{
  const struct export *was = snapshot_export_before (page->before, page->now, e);
  struct busy busy = { .e = e };

  busy.requests += requests_of (page, was ? &was->read : NULL, &e->read);
  busy.requests += requests_of (page, was ? &was->write : NULL, &e->write);
  busy.requests += requests_of (page, was ? &was->trim : NULL, &e->trim);
  busy.requests += requests_of (page, was ? &was->zero : NULL, &e->zero);
  return busy;
}

/* Those of which that does not tell are as the server has them. */
static int
busiest_first (const void *a, const void *b)
{
  const struct busy *x = a, *y = b;

  if (x->requests != y->requests)
    return x->requests > y->requests ? -1 : 1;
  return x->e < y->e ? -1 : x->e > y->e;
}

/* Those that have a place in so many lines, but a few in any case, and how many have none. */
static void
put_busiest (const struct page *page, unsigned lines)
{
  size_t n = page->now->nexports, shown = 0;
  struct busy *busy = need (calloc (n, sizeof *busy));

  for (size_t i = 0; i < n; i++)
    busy[i] = busy_of (page, &page->now->exports[i]);
  qsort (busy, n, sizeof *busy, busiest_first);
  for (unsigned used = 1; shown < n; shown++) { /* 1: the last line */
    used += export_lines (busy[shown].e);
    if (used > lines && shown >= MIN_EXPORTS)
      break;
    put_export (page, busy[shown].e);
  }
  if (shown < n)
    fprintf (page->out, "(%zu export%s more, with less to do)\n", n - shown,
             n - shown == 1 ? "" : "s");
  free (busy);
}

static void
put_exports (const struct page *page, unsigned height)
{
  size_t rest = OTHER_LINES + 2 * page->now->ndevices, lines = 0;

  for (size_t i = 0; i < page->now->nexports; i++)
    lines += export_lines (&page->now->exports[i]);
  if (height && rest + lines > height) {
    put_busiest (page, rest < height ? height - (unsigned) rest : 0);
    return;
  }
  for (size_t i = 0; i < page->now->nexports; i++)
    put_export (page, &page->now->exports[i]);
}

static void
put_device (const struct page *page, const struct device *d)
{
  const struct device *before = snapshot_device_before (page->before, d);
  bool is_open = strcmp (d->state, "open") == 0;
  char *remark = is_open ? text_format ("  prio %d", d->prio) : text_format ("  %s", d->state);

  put_name (page, d->name);
  put_use (page, d->room.used, d->room.used + d->room.avail);
  put_rates (page, "read", before ? &before->read : NULL, &d->read);
  put_more (page, remark, "write", before ? &before->write : NULL, &d->write);
  free (remark);
}

static void
put_heading (const struct page *page, const char *what)
{
  fprintf (page->out, "%-*s %6s %4s %-5s %6s %6s %6s %6s %6s %5s %5s\n", (int) page->name_width,
           what, "USED", "USE%", "", "REQ/S", "B/S", "P50", "P99", "MAX", "QUEUE", "ERR");
}

static void
put_title (const struct page *page)
{
  char *version = text_printable (page->now->version);
  char uptime[TEXT_NUMBER], used[16], size[16], reserved[16];

  fprintf (page->out, "drum %s, up %s, %s of %s used", version,
           text_duration (page->now->uptime, uptime), format_bytes (page->now->room.used, used),
           format_bytes (page->now->room.size, size));
  if (page->now->reserved)
    fprintf (page->out, ", %s reserved", format_bytes (page->now->reserved, reserved));
  fputs ("; ", page->out);
  if (page->before)
    fprintf (page->out, "in the last %.1f s:\n", page->seconds);
  else
    fputs ("since it started:\n", page->out);
  free (version);
}

void
watch_text (const struct snapshot *before, const struct snapshot *now, unsigned width,
            unsigned height, FILE *out)
{
  struct page page = { rates_same_server (before, now) ? before : NULL, now,
                       rates_seconds (before, now),
                       width > FIXED_WIDTH + MIN_NAME ? width - FIXED_WIDTH : MIN_NAME, out };

  if (page.name_width > MAX_NAME)
    page.name_width = MAX_NAME;
  put_title (&page);
  putc ('\n', out);
  put_heading (&page, "EXPORT");
  put_exports (&page, height);
  putc ('\n', out);
  put_heading (&page, "DEVICE");
  for (size_t i = 0; i < now->ndevices; i++)
    put_device (&page, &now->devices[i]);
}
