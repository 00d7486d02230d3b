/* SPDX-License-Identifier: BSD-3-Clause
 *
 * export-change.c - the verbs that change exports: export-add, -set, -fill, -takeover, -remove, -resize and -move.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdlib.h>

#include "lib/log.h"
#include "lib/parse.h"
#include "lib/terms.h"

#include "client.h"
#include "drumctl.h"
#include "fields.h"
#include "options.h"
#include "perform.h"
#include "snapshot.h"
#include "text.h"

enum { NOT_SAID = -1 };

/* As the user has said them; 0 takes a limit away. */
struct terms {
  int64_t reserve, limit, weight, iops, bandwidth, exclusive;
};

static const struct terms nothing = { NOT_SAID, NOT_SAID, NOT_SAID, NOT_SAID, NOT_SAID, NOT_SAID };

static int
option_bytes (const char *name, const char *text, void *value)
{
  uint64_t bytes;
  int ret = parse_size (name, text, &bytes);

  if (ret == 0)
    *(int64_t *) value = (int64_t) bytes;
  return ret;
}

static int
set_int (const char *name, const char *text, int min, int max, int64_t *value)
{
  int n, ret = parse_int (name, text, min, max, &n);

  if (ret == 0)
    *value = n;
  return ret;
}

static int
option_weight (const char *name, const char *text, void *value)
{
  return set_int (name, text, 1, EXPORT_WEIGHT_MAX, value);
}

static int
option_iops (const char *name, const char *text, void *value)
{
  return set_int (name, text, 0, INT_MAX, value);
}

static int
option_yes (const char *name, const char *text, void *value)
{
  (void) name, (void) text;
  *(int64_t *) value = true;
  return 0;
}

static int
option_yes_or_no (const char *name, const char *text, void *value)
{
  bool yes;
  int ret = parse_bool (name, text, &yes);

  if (ret == 0)
    *(int64_t *) value = yes;
  return ret;
}

/* none, share: what it is if it is not said, in parentheses. */
#define TERMS_OPTIONS(t, none, share)                                                            \
  { 0, "reserve", "SIZE", option_bytes, &(t).reserve, "slots that nobody else may use" none },   \
    { 0, "limit", "SIZE", option_bytes, &(t).limit, "the most that it may use; 0: its size" },   \
    { 0, "weight", "N", option_weight, &(t).weight, "share when others want I/O, too" share },   \
    { 0, "iops", "N", option_iops, &(t).iops, "the most requests a second; 0: no limit" },       \
  {                                                                                              \
    0, "bandwidth", "SIZE", option_bytes, &(t).bandwidth, "the most bytes a second; 0: no limit" \
  }

/* False if nothing was said. */
static bool
request_terms (struct json_object *request, const struct terms *terms)
{
  const struct {
    const char *key;
    int64_t value;
  } numbers[] = {
    { "reserve", terms->reserve }, { "limit", terms->limit },         { "weight", terms->weight },
    { "iops", terms->iops },       { "bandwidth", terms->bandwidth },
  };
  bool said = terms->exclusive != NOT_SAID;

  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
    if (numbers[i].value != NOT_SAID) {
      request_number (request, numbers[i].key, numbers[i].value);
      said = true;
    }
  if (terms->exclusive != NOT_SAID)
    request_bool (request, "exclusive", terms->exclusive);
  return said;
}

static struct json_object *
request_export (const struct verb *verb, const char *export)
{
  struct json_object *request = request_new (verb->name);

  request_text (request, "export", export);
  return request;
}

static void
name_help (FILE *out)
{
  fputs ("\nThe default export, which has no name, is written \"\".\n", out);
}

static int
run_add (const struct verb *self, int argc, char **argv)
{
  struct terms terms = nothing;
  struct json_object *request;
  uint64_t size = 0;
  const struct option_spec options[] = {
    { 0, "size", "SIZE", option_size, &size, "its size, which must be given" },
    TERMS_OPTIONS (terms, " (0)", " (100)"),
    { 0, "exclusive", NULL, option_yes, &terms.exclusive, "one client at a time" },
    { 0 },
  };
  int status = options_parse (self, options, 1, 1, &argc, &argv);

  if (status >= 0)
    return status;
  if (!size) {
    log_error ("%s: of what size? --size 8G, say", argv[0]);
    return STATUS_USAGE;
  }
  request = request_export (self, argv[0]);
  request_number (request, "size", (int64_t) size);
  request_terms (request, &terms);
  return perform (request);
}

const struct verb verb_export_add = {
  .name = "export-add",
  .operands = "NAME",
  .summary = "Make one more export, while the others are in use.",
  .more = name_help,
  .run = run_add,
};

static int
run_set (const struct verb *self, int argc, char **argv)
{
  struct terms terms = nothing;
  struct json_object *request;
  const struct option_spec options[] = {
    TERMS_OPTIONS (terms, "", ""),
    { 0, "exclusive", "yes|no", option_yes_or_no, &terms.exclusive, "one client at a time" },
    { 0 },
  };
  int status = options_parse (self, options, 1, 1, &argc, &argv);

  if (status >= 0)
    return status;
  request = request_export (self, argv[0]);
  if (request_terms (request, &terms))
    return perform (request);
  log_error ("nothing to change; --limit 4G, say");
  json_object_put (request);
  return STATUS_USAGE;
}

const struct verb verb_export_set = {
  .name = "export-set",
  .operands = "NAME",
  .summary = "Change what an export is promised, and may have; what is not named stays as it is.",
  .more = name_help,
  .run = run_set,
};

static int
run_fill (const struct verb *self, int argc, char **argv)
{
  int64_t offset = NOT_SAID;
  uint64_t length = 0;
  struct json_object *request, *reply;
  const struct option_spec options[] = {
    { 0, "offset", "SIZE", option_bytes, &offset, "where the range begins (0)" },
    { 0, "length", "SIZE", option_size, &length, "how long it is (up to the end)" },
    { 0 },
  };
  int status = options_parse (self, options, 1, 1, &argc, &argv);
  uint64_t reserve;
  char bytes[16], *name;

  if (status >= 0)
    return status;
  request = request_export (self, argv[0]);
  if (offset != NOT_SAID)
    request_number (request, "offset", offset);
  if (length)
    request_number (request, "length", (int64_t) length);
  if (!(reply = ask_once (request)))
    return STATUS_FAILED;
  reserve = field_number (reply, "reserve");
  json_object_put (reply);
  if (!fields_were_fine ())
    return STATUS_FAILED;
  name = text_printable (text_export (argv[0]));
  printf ("%s: the reserve is %s now\n", name, format_bytes (reserve, bytes));
  free (name);
  return STATUS_DONE;
}

static void
fill_help (FILE *out)
{
  fputs (
    "\nA reserve is an amount: other pages of the export that are written first use it up, too.\n"
    "To be sure of all of it, fill it whole.\n",
    out);
  name_help (out);
}

const struct verb verb_export_fill = {
  .name = "export-fill",
  .operands = "NAME",
  .summary = "Raise the reserve of an export by what a range of it needs to be written now.",
  .more = fill_help,
  .run = run_fill,
};

static int
run_takeover (const struct verb *self, int argc, char **argv)
{
  const struct option_spec options[] = { { 0 } };
  int status = options_parse (self, options, 1, 1, &argc, &argv);
  struct json_object *reply;
  uint64_t barred;
  char *name;

  if (status >= 0)
    return status;
  if (!(reply = ask_once (request_export (self, argv[0]))))
    return STATUS_FAILED;
  barred = field_number (reply, "sessions");
  json_object_put (reply);
  if (!fields_were_fine ())
    return STATUS_FAILED;
  name = text_printable (text_export (argv[0]));
  printf ("%s: %" PRIu64 " connection%s barred; %s\n", name, barred, barred == 1 ? " is" : "s are",
          barred
            ? "if it is exclusive, their client gets it back after another has had it, or after "
              "one more export-takeover"
            : "any client may have it");
  free (name);
  return STATUS_DONE;
}

static void
takeover_help (FILE *out)
{
  fputs (
    "\nThe client that had an exclusive export does not get it back before another one has had\n"
    "it, export-takeover is called once more, or the server is restarted. A client without an\n"
    "ID, as of nbd-client, is known by its address: that is also the same host, started again.\n",
    out);
  name_help (out);
}

const struct verb verb_export_takeover = {
  .name = "export-takeover",
  .operands = "NAME",
  .summary = "Bar the connections that an export has, so that another client may have it.",
  .more = takeover_help,
  .run = run_takeover,
};

static int
run_remove (const struct verb *self, int argc, char **argv)
{
  struct manner manner = { .no_wait = false };
  const struct option_spec options[] = { NO_WAIT_OPTION (manner), { 0 } };
  int status = options_parse (self, options, 1, 1, &argc, &argv);

  return status >= 0 ? status : perform_job (request_export (self, argv[0]), &manner);
}

const struct verb verb_export_remove = {
  .name = "export-remove",
  .operands = "NAME",
  .summary = "Give up an export that no client has, and its pages.",
  .more = name_help,
  .run = run_remove,
};

/* So much more than it has now, or less. 0, and said why. */
static uint64_t
size_from_now (const char *name, bool more, uint64_t bytes)
{
  struct snapshot *snap = snapshot_ask_once (false);
  const struct export *e = snap ? snapshot_export (snap, name) : NULL;
  char *printable = text_printable (text_export (name)), size[16];
  uint64_t now = e ? e->size : 0;
  bool fits = more ? now <= INT64_MAX && bytes <= INT64_MAX - now : bytes < now;

  if (snap && !e)
    log_error ("%s: there is no such export; \"drumctl exports\" lists those that there are",
               printable);
  else if (e && !fits)
    log_error ("%s: has %s, and can't be made so much %s", printable, format_bytes (now, size),
               more ? "larger" : "smaller");
  free (printable);
  snapshot_free (snap);
  if (!e || !fits)
    return 0;
  return more ? now + bytes : now - bytes;
}

static int
run_resize (const struct verb *self, int argc, char **argv)
{
  struct manner manner = { .no_wait = false };
  const struct option_spec options[] = { NO_WAIT_OPTION (manner), { 0 } };
  int status = options_parse (self, options, 2, 2, &argc, &argv);
  struct json_object *request;
  bool relative;
  uint64_t size;

  if (status >= 0)
    return status;
  relative = *argv[1] == '+' || *argv[1] == '-';
  if (option_size ("SIZE", argv[1] + relative, &size) < 0)
    return STATUS_USAGE;
  if (relative && !(size = size_from_now (argv[0], *argv[1] == '+', size)))
    return STATUS_FAILED;
  request = request_export (self, argv[0]);
  request_number (request, "size", (int64_t) size);
  return perform_job (request, &manner);
}

static void
resize_help (FILE *out)
{
  fputs ("\nSIZE, +SIZE or -SIZE: with a sign so much more or less than now. Options come first.\n",
         out);
  name_help (out);
}

const struct verb verb_export_resize = {
  .name = "export-resize",
  .operands = "NAME SIZE",
  .summary = "Make an export that no client has larger, or smaller: what lies beyond is given up.",
  .more = resize_help,
  .ordered = true,
  .run = run_resize,
};

static int
run_move (const struct verb *self, int argc, char **argv)
{
  struct manner manner = { .no_wait = false };
  const struct option_spec options[] = { NO_WAIT_OPTION (manner), { 0 } };
  int status = options_parse (self, options, 2, 2, &argc, &argv);
  struct json_object *request;

  if (status >= 0)
    return status;
  request = request_new (self->name);
  request_text (request, "from", argv[0]);
  request_text (request, "to", argv[1]);
  return perform_job (request, &manner);
}

const struct verb verb_export_move = {
  .name = "export-move",
  .operands = "FROM TO",
  .summary = "Pass all pages of one export to another; where both have one, TO's stays.",
  .more = name_help,
  .run = run_move,
};
