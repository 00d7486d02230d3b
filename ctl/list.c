/* SPDX-License-Identifier: BSD-3-Clause
 *
 * list.c - the tables: drumctl list, drumctl jobs.
 */
#include <config.h>

#include <string.h>

#include "drumctl.h"
#include "options.h"
#include "snapshot.h"
#include "table.h"
#include "text.h"

enum {
  D_NAME,
  D_TYPE,
  D_SIZE,
  D_USED,
  D_AVAIL,
  D_PERCENT,
  D_PRIO,
  D_STATE,
  D_BAD,
  D_SUSPECT,
  D_READ,
  D_WRITTEN,
  D_READS,
  D_WRITES,
  D_ERRORS,
  D_RERRORS,
  D_WERRORS,
  D_MISMATCHES,
  D_INFLIGHT,
  D_UUID,
  D_NCOLUMNS,
};

/* clang-format off */
static const struct table_column device_columns[D_NCOLUMNS] = {
  [D_NAME]       = { "NAME",       COLUMN_TEXT,   "path of the file or block device" },
  [D_TYPE]       = { "TYPE",       COLUMN_TEXT,   "file or block" },
  [D_SIZE]       = { "SIZE",       COLUMN_BYTES,  "size of the file or block device" },
  [D_USED]       = { "USED",       COLUMN_BYTES,  "bytes in use" },
  [D_AVAIL]      = { "AVAIL",      COLUMN_BYTES,  "bytes that are free" },
  [D_PERCENT]    = { "USE%",       COLUMN_NUMBER, "percent of what can be used that is in use" },
  [D_PRIO]       = { "PRIO",       COLUMN_NUMBER, "priority; higher is used first" },
  [D_STATE]      = { "STATE",      COLUMN_TEXT,   "open, closing, closed, failing, failed or adding" },
  [D_BAD]        = { "BAD",        COLUMN_NUMBER, "slots that failed: never used again, or to be looked at" },
  [D_SUSPECT]    = { "SUSPECT",    COLUMN_NUMBER, "of those, how many are to be looked at" },
  [D_READ]       = { "READ",       COLUMN_BYTES,  "bytes read since it was added" },
  [D_WRITTEN]    = { "WRITTEN",    COLUMN_BYTES,  "bytes written since it was added" },
  [D_READS]      = { "READS",      COLUMN_NUMBER, "reads since it was added" },
  [D_WRITES]     = { "WRITES",     COLUMN_NUMBER, "writes since it was added" },
  [D_ERRORS]     = { "ERRORS",     COLUMN_NUMBER, "reads and writes that failed, and pages with a wrong checksum" },
  [D_RERRORS]    = { "RERRORS",    COLUMN_NUMBER, "reads that failed" },
  [D_WERRORS]    = { "WERRORS",    COLUMN_NUMBER, "writes that failed" },
  [D_MISMATCHES] = { "MISMATCHES", COLUMN_NUMBER, "pages that came back with a wrong checksum" },
  [D_INFLIGHT]   = { "INFLIGHT",   COLUMN_NUMBER, "reads and writes that are under way" },
  [D_UUID]       = { "UUID",       COLUMN_TEXT,   "UUID in the label" },
};
/* clang-format on */

static void
device_cell (const void *row, unsigned column, struct table_cell *cell)
{
  const struct device *d = row;
  const char *const text[D_NCOLUMNS] = {
    [D_NAME] = d->name,
    [D_TYPE] = d->type,
    [D_STATE] = d->state,
    [D_UUID] = *d->uuid ? d->uuid : NULL,
  };
  const uint64_t number[D_NCOLUMNS] = {
    [D_SIZE] = d->room.size,
    [D_USED] = d->room.used,
    [D_AVAIL] = d->room.avail,
    [D_PERCENT] = text_percent (d->room.used, d->room.used + d->room.avail),
    [D_PRIO] = (uint64_t) d->prio,
    [D_BAD] = d->bad,
    [D_SUSPECT] = d->suspect,
    [D_READ] = d->read.bytes,
    [D_WRITTEN] = d->write.bytes,
    [D_READS] = d->read.requests,
    [D_WRITES] = d->write.requests,
    [D_ERRORS] = d->read.errors + d->write.errors + d->mismatches,
    [D_RERRORS] = d->read.errors,
    [D_WERRORS] = d->write.errors,
    [D_MISMATCHES] = d->mismatches,
    [D_INFLIGHT] = d->read.in_flight + d->write.in_flight,
  };

  cell->text = text[column];
  cell->number = (int64_t) number[column];
}

static const struct table_layout device_layout = {
  .name = "devices",
  .columns = device_columns,
  .ncolumns = D_NCOLUMNS,
  .defaults = "NAME,TYPE,SIZE,USED,AVAIL,PRIO,STATE,BAD,READ,WRITTEN,ERRORS",
  .cell = device_cell,
};

enum {
  J_ID,
  J_KIND,
  J_DEVICE,
  J_STATE,
  J_DONE,
  J_TOTAL,
  J_PERCENT,
  J_RATE,
  J_LIMIT,
  J_TIME,
  J_UNREADABLE,
  J_LOST,
  J_ERROR,
  J_NCOLUMNS,
};

/* clang-format off */
static const struct table_column job_columns[J_NCOLUMNS] = {
  [J_ID]         = { "ID",         COLUMN_NUMBER,  "number, for wait and cancel" },
  [J_KIND]       = { "KIND",       COLUMN_TEXT,    "add, remove, rebalance, scrub, evacuate, export-remove, ..." },
  [J_DEVICE]     = { "DEVICE",     COLUMN_EXPORT,  "device or export that it is about" },
  [J_STATE]      = { "STATE",      COLUMN_TEXT,    "running, done, failed or cancelled" },
  [J_DONE]       = { "DONE",       COLUMN_BYTES,   "bytes moved, given up, or read" },
  [J_TOTAL]      = { "TOTAL",      COLUMN_BYTES,   "bytes that are to be" },
  [J_PERCENT]    = { "DONE%",      COLUMN_NUMBER,  "percent of them" },
  [J_RATE]       = { "RATE",       COLUMN_RATE,    "of them a second, so far" },
  [J_LIMIT]      = { "LIMIT",      COLUMN_RATE,    "what --rate allows" },
  [J_TIME]       = { "TIME",       COLUMN_SECONDS, "since it began, until it ended" },
  [J_UNREADABLE] = { "UNREADABLE", COLUMN_NUMBER,  "pages that could not be read" },
  [J_LOST]       = { "LOST",       COLUMN_NUMBER,  "of those, how many were given up" },
  [J_ERROR]      = { "ERROR",      COLUMN_PROSE,   "why it failed" },
};
/* clang-format on */

static void
job_cell (const void *row, unsigned column, struct table_cell *cell)
{
  const struct job *j = row;
  bool has_rate = j->seconds >= 0.1; /* what was done at once says little */
  const char *const text[J_NCOLUMNS] = {
    [J_KIND] = j->kind,
    [J_DEVICE] = j->device ? j->device : j->export,
    [J_STATE] = j->state,
    [J_ERROR] = j->error,
  };
  const uint64_t number[J_NCOLUMNS] = {
    [J_ID] = j->id,
    [J_DONE] = j->done,
    [J_TOTAL] = j->total,
    [J_PERCENT] = text_percent (j->done, j->total),
    [J_RATE] = has_rate ? (uint64_t) ((double) j->done / j->seconds) : 0,
    [J_LIMIT] = j->rate,
    [J_TIME] = (uint64_t) (j->seconds + 0.5),
    [J_UNREADABLE] = j->unreadable,
    [J_LOST] = j->lost,
  };

  cell->text = text[column];
  cell->number = (int64_t) number[column];
  cell->none = (column == J_LIMIT && j->rate == 0) || (column == J_RATE && !has_rate);
}

static const struct table_layout job_layout = {
  .name = "jobs",
  .columns = job_columns,
  .ncolumns = J_NCOLUMNS,
  .defaults = "ID,KIND,DEVICE,STATE,DONE,TOTAL,RATE,TIME,UNREADABLE,ERROR",
  .cell = job_cell,
};

/* What both verbs do, but for what they show. */
static int
run_table (const struct verb *verb, const struct table_layout *layout, int argc, char **argv)
{
  struct table_options table = { .json = false };
  const struct option_spec options[] = { TABLE_OPTIONS (table), { 0 } };
  struct snapshot *snap;
  int status = options_parse (verb, options, 0, 0, &argc, &argv);

  if (status >= 0 || (status = table_check (layout, &table)) != STATUS_DONE)
    return status;
  if (!(snap = snapshot_ask_once (false)))
    return STATUS_FAILED;
  if (layout == &device_layout)
    status = table_print (layout, &table, snap->devices, sizeof *snap->devices, snap->ndevices);
  else
    status = table_print (layout, &table, snap->jobs, sizeof *snap->jobs, snap->njobs);
  snapshot_free (snap);
  return status;
}

static int
run_list (const struct verb *self, int argc, char **argv)
{
  return run_table (self, &device_layout, argc, argv);
}

static void
list_help (FILE *out)
{
  table_help (&device_layout, out);
}

const struct verb verb_list = {
  .name = "list",
  .summary = "List the devices of the drum.",
  .more = list_help,
  .run = run_list,
};

static int
run_jobs (const struct verb *self, int argc, char **argv)
{
  return run_table (self, &job_layout, argc, argv);
}

static void
jobs_help (FILE *out)
{
  table_help (&job_layout, out);
}

const struct verb verb_jobs = {
  .name = "jobs",
  .summary = "List what is under way: adds, removes, scrubs and so on; and what was lately.",
  .more = jobs_help,
  .run = run_jobs,
};
