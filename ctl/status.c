/* SPDX-License-Identifier: BSD-3-Clause
 *
 * status.c - the drum on one screen: drumctl status.
 */
#include <config.h>

#include <inttypes.h>
#include <json-c/json.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/units.h"

#include "drumctl.h"
#include "options.h"
#include "snapshot.h"
#include "text.h"

enum { LABEL = 10 };

static void
print_room (const char *label, const struct room *room, const char *note)
{
  char size[16], used[16], avail[16];

  printf ("%-*s %6s %6s %6s %4u%%  %s\n", LABEL, label, format_bytes (room->size, size),
          format_bytes (room->used, used), format_bytes (room->avail, avail),
          text_percent (room->used, room->used + room->avail), note);
}

static void
print_rooms (const struct snapshot *snap)
{
  char *note, kept[16];

  printf ("%-*s %6s %6s %6s %5s\n", LABEL, "", "SIZE", "USED", "AVAIL", "USE%");
  note = text_format ("%s kept for rewrites", format_bytes (snap->kept, kept));
  print_room ("drum", &snap->room, note);
  free (note);
  for (size_t i = 0; i < snap->nclasses; i++) {
    const struct class *class = &snap->classes[i];
    char *label = text_format ("prio %d", class->prio);

    note = text_format ("%" PRIu64 " device%s", class->ndevices, class->ndevices == 1 ? "" : "s");
    print_room (label, &class->room, note);
    free (label);
    free (note);
  }
}

static void
print_exports (const struct snapshot *snap)
{
  uint64_t promised = 0, used = 0;
  char bytes[16];

  for (size_t i = 0; i < snap->nexports; i++) {
    promised += snap->exports[i].size;
    used += snap->exports[i].used;
  }
  printf ("%-*s %s to %zu export%s", LABEL, "promised", format_bytes (promised, bytes),
          snap->nexports, snap->nexports == 1 ? "" : "s");
  if (snap->room.size)
    printf (", %.2f of the drum", (double) promised / (double) snap->room.size);
  printf ("; %s written%s\n", format_bytes (used, bytes),
          snap->overcommit ? "" : "; no overcommit");
}

/* What is said of some exports only; none of it where no export has it. */
static void
print_terms (const struct snapshot *snap)
{
  uint64_t reserve = 0, limit = 0, nreserves = 0, nlimits = 0;
  char bytes[16], left[16];

  for (size_t i = 0; i < snap->nexports; i++) {
    reserve += snap->exports[i].reserve;
    limit += snap->exports[i].limit;
    nreserves += snap->exports[i].reserve != 0;
    nlimits += snap->exports[i].limit != 0;
  }
  if (nreserves)
    printf ("%-*s %s for %" PRIu64 " export%s, of which %s are not used yet\n", LABEL, "reserved",
            format_bytes (reserve, bytes), nreserves, nreserves == 1 ? "" : "s",
            format_bytes (snap->reserved, left));
  if (nlimits)
    printf ("%-*s %" PRIu64 " export%s, to %s in all\n", LABEL, "limited", nlimits,
            nlimits == 1 ? "" : "s", format_bytes (limit, bytes));
}

static void
add_counters (struct counters *sum, const struct counters *more)
{
  sum->requests += more->requests;
  sum->bytes += more->bytes;
  sum->errors += more->errors;
}

static void
print_io (const char *label, const struct counters *io)
{
  char bytes[16];

  printf ("%-*s %s in %" PRIu64 " request%s, %" PRIu64 " error%s\n", LABEL, label,
          format_bytes (io->bytes, bytes), io->requests, io->requests == 1 ? "" : "s", io->errors,
          io->errors == 1 ? "" : "s");
}

/* In is what a client gets back, and out what it puts there, as swap has it. */
static void
print_traffic (const struct snapshot *snap)
{
  struct counters in = { .requests = 0 }, out = { .requests = 0 };
  uint64_t zero_pages = 0;

  for (size_t i = 0; i < snap->nexports; i++) {
    add_counters (&in, &snap->exports[i].read);
    add_counters (&out, &snap->exports[i].write);
    zero_pages += snap->exports[i].zero_pages;
  }
  print_io ("paged in", &in);
  print_io ("paged out", &out);
  printf ("%-*s %u%% of the pages written, which took no slot\n", LABEL, "zeroes",
          text_percent (zero_pages, out.bytes / PAGE_BYTES));
}

/* How high, 0 to 8: the most is 8, half of it 7, and so on, so that few are seen beside many. */
static unsigned
height (uint64_t n, uint64_t most)
{
  unsigned halves = 0;

  if (n == 0)
    return 0;
  for (; n <= most / 2 && halves < 7; halves++)
    most /= 2;
  return 8 - halves;
}

static void
print_runs (const struct snapshot *snap)
{
  static const char *const blocks[] = { " ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" };
  static const char *const ascii[] = { " ", "_", ".", ":", "-", "=", "+", "*", "#" };
  const char *const *level = text_is_utf8 () ? blocks : ascii;
  unsigned first = 0, end = snap->nruns;
  uint64_t most = 0;
  char bytes[16], last[16];

  while (end > 0 && snap->runs[end - 1] == 0)
    end--;
  while (first < end && snap->runs[first] == 0)
    first++;
  for (unsigned k = first; k < end; k++)
    most = snap->runs[k] > most ? snap->runs[k] : most;
  if (first == end) {
    printf ("%-*s none\n", LABEL, "free runs");
    return;
  }
  printf ("%-*s %s |", LABEL, "free runs", format_bytes ((uint64_t) PAGE_BYTES << first, bytes));
  for (unsigned k = first; k < end; k++)
    fputs (level[height (snap->runs[k], most)], stdout);
  printf ("| %s", format_bytes ((uint64_t) PAGE_BYTES << (end - 1), last));
  printf (", the longest %s\n", format_bytes (snap->largest_run, bytes));
}

static void
print_closed (const struct snapshot *snap)
{
  const char *label = "not open";

  for (size_t i = 0; i < snap->ndevices; i++) {
    const struct device *d = &snap->devices[i];
    char *name, *state, used[16];

    if (strcmp (d->state, "open") == 0)
      continue;
    name = text_printable (d->name);
    state = text_printable (d->state);
    printf ("%-*s %s: %s, %s used\n", LABEL, label, name, state, format_bytes (d->room.used, used));
    free (name);
    free (state);
    label = "";
  }
}

static void
print_jobs (const struct snapshot *snap)
{
  const char *label = "jobs";

  for (size_t i = 0; i < snap->njobs; i++) {
    const struct job *j = &snap->jobs[i];
    const char *what = j->device ? j->device : j->export ? text_export (j->export) : "";
    char *name, *kind, total[16];

    if (strcmp (j->state, "running") != 0)
      continue;
    name = text_printable (what);
    kind = text_printable (j->kind);
    printf ("%-*s %" PRIu64 " %s%s%s", LABEL, label, j->id, kind, *name ? " " : "", name);
    if (j->total)
      printf (": %u%% of %s", text_percent (j->done, j->total), format_bytes (j->total, total));
    putchar ('\n');
    free (name);
    free (kind);
    label = "";
  }
}

static void
print_state (const struct snapshot *snap)
{
  char *dir = text_printable (snap->state_dir);

  printf ("state in %s: %s\n\n", dir,
          !snap->state_is_durable    ? "outlives the server, not the machine"
          : snap->state_syncs_writes ? "every write is durable"
                                     : "what was flushed is durable");
  free (dir);
}

static void
print (const struct snapshot *snap)
{
  char *version = text_printable (snap->version), *io = text_printable (snap->io);
  char uptime[TEXT_NUMBER], stripe[16];

  printf ("drum %s, pid %" PRIu64 ", up %s, stripe %s, io %s\n\n", version, snap->pid,
          text_duration (snap->uptime, uptime), format_bytes (snap->stripe, stripe), io);
  free (version);
  free (io);
  if (snap->state_dir)
    print_state (snap);
  print_rooms (snap);
  putchar ('\n');
  print_exports (snap);
  print_terms (snap);
  print_traffic (snap);
  if (snap->has_runs)
    print_runs (snap);
  print_closed (snap);
  print_jobs (snap);
}

/* As the server has it; what belongs to the protocol only is left out. */
static void
print_json (const struct snapshot *snap)
{
  static const char *const not_ours[] = { "version", "ok", "warnings" };

  for (size_t i = 0; i < sizeof not_ours / sizeof not_ours[0]; i++)
    json_object_object_del (snap->reply, not_ours[i]);
  puts (json_object_to_json_string_ext (snap->reply, JSON_C_TO_STRING_PRETTY |
                                                       JSON_C_TO_STRING_SPACED |
                                                       JSON_C_TO_STRING_NOSLASHESCAPE));
}

static int
run_status (const struct verb *self, int argc, char **argv)
{
  bool json = false;
  const struct option_spec options[] = {
    { 'J', "json", NULL, option_switch, &json, "print JSON: all that the server tells" },
    { 0 },
  };
  int status = options_parse (self, options, 0, 0, &argc, &argv);
  struct snapshot *snap;

  if (status >= 0)
    return status;
  if (!(snap = snapshot_ask_once (true)))
    return STATUS_FAILED;
  if (json)
    print_json (snap);
  else
    print (snap);
  snapshot_free (snap);
  return STATUS_DONE;
}

const struct verb verb_status = {
  .name = "status",
  .summary = "Show how the drum is: its room, its traffic, what needs a look.",
  .run = run_status,
};
