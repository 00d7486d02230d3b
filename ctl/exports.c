/* SPDX-License-Identifier: BSD-3-Clause
 *
 * exports.c - the table of exports: drumctl exports.
 */
#include <config.h>

#include <stdlib.h>

#include "lib/log.h"
#include "lib/units.h"

#include "drumctl.h"
#include "options.h"
#include "snapshot.h"
#include "table.h"
#include "text.h"

enum {
  E_NAME,
  E_SIZE,
  E_USED,
  E_PERCENT,
  E_RESERVE,
  E_LIMIT,
  E_CLIENTS,
  E_READ,
  E_WRITTEN,
  E_LAST_IO,
  E_WEIGHT,
  E_IOPS,
  E_BANDWIDTH,
  E_EXCLUSIVE,
  E_TEMPLATE,
  E_ZERO,
  E_TRIMMED,
  E_ZEROED,
  E_READS,
  E_WRITES,
  E_TRIMS,
  E_ZEROES,
  E_ERRORS,
  E_RERRORS,
  E_WERRORS,
  E_INFLIGHT,
  E_NCOLUMNS,
};

/* clang-format off */
static const struct table_column columns[E_NCOLUMNS] = {
  [E_NAME]      = { "NAME",      COLUMN_EXPORT, "what clients ask for" },
  [E_SIZE]      = { "SIZE",      COLUMN_BYTES,  "size that clients see" },
  [E_USED]      = { "USED",      COLUMN_BYTES,  "bytes that are stored" },
  [E_PERCENT]   = { "USE%",      COLUMN_NUMBER, "percent of what it may have that is stored" },
  [E_RESERVE]   = { "RESERVE",   COLUMN_BYTES,  "what only this one may use up" },
  [E_LIMIT]     = { "LIMIT",     COLUMN_BYTES,  "the most that it may use" },
  [E_CLIENTS]   = { "CLIENTS",   COLUMN_NUMBER, "connections" },
  [E_READ]      = { "READ",      COLUMN_BYTES,  "bytes that clients read" },
  [E_WRITTEN]   = { "WRITTEN",   COLUMN_BYTES,  "bytes that clients wrote" },
  [E_LAST_IO]   = { "LAST-IO",   COLUMN_AGO,    "how long ago its last request ended" },
  [E_WEIGHT]    = { "WEIGHT",    COLUMN_NUMBER, "its share of the I/O while others want some, too" },
  [E_IOPS]      = { "IOPS",      COLUMN_NUMBER, "the most requests that it may have a second" },
  [E_BANDWIDTH] = { "BANDWIDTH", COLUMN_RATE,   "the most bytes that it may have a second" },
  [E_EXCLUSIVE] = { "EXCLUSIVE", COLUMN_SWITCH, "has it one client at a time?" },
  [E_TEMPLATE]  = { "TEMPLATE",  COLUMN_TEXT,   "pattern that it was made from" },
  [E_ZERO]      = { "ZERO",      COLUMN_BYTES,  "of what was written, pages of zeroes, which take no slot" },
  [E_TRIMMED]   = { "TRIMMED",   COLUMN_BYTES,  "bytes that clients trimmed" },
  [E_ZEROED]    = { "ZEROED",    COLUMN_BYTES,  "bytes that clients had zeroed" },
  [E_READS]     = { "READS",     COLUMN_NUMBER, "reads" },
  [E_WRITES]    = { "WRITES",    COLUMN_NUMBER, "writes" },
  [E_TRIMS]     = { "TRIMS",     COLUMN_NUMBER, "trims" },
  [E_ZEROES]    = { "ZEROES",    COLUMN_NUMBER, "requests to zero" },
  [E_ERRORS]    = { "ERRORS",    COLUMN_NUMBER, "requests that failed" },
  [E_RERRORS]   = { "RERRORS",   COLUMN_NUMBER, "reads that failed" },
  [E_WERRORS]   = { "WERRORS",   COLUMN_NUMBER, "writes that failed" },
  [E_INFLIGHT]  = { "INFLIGHT",  COLUMN_NUMBER, "requests that are under way" },
};
/* clang-format on */

/* What is 0 means that there is none, or that the server does not know it. */
static bool
may_be_none (unsigned column)
{
  return column == E_LIMIT || column == E_WEIGHT || column == E_IOPS || column == E_BANDWIDTH;
}

static void
cell (const void *row, unsigned column, struct table_cell *cell)
{
  const struct export *e = *(const struct export *const *) row;
  const char *const text[E_NCOLUMNS] = {
    [E_NAME] = e->name,
    [E_EXCLUSIVE] = e->exclusive ? "yes" : "no",
    [E_TEMPLATE] = e->template,
  };
  const uint64_t number[E_NCOLUMNS] = {
    [E_SIZE] = e->size,
    [E_USED] = e->used,
    [E_PERCENT] = text_percent (e->used, export_most (e)),
    [E_RESERVE] = e->reserve,
    [E_LIMIT] = e->limit,
    [E_CLIENTS] = e->clients,
    [E_READ] = e->read.bytes,
    [E_WRITTEN] = e->write.bytes,
    [E_LAST_IO] = e->idle < 0 ? 0 : (uint64_t) e->idle,
    [E_WEIGHT] = e->weight,
    [E_IOPS] = e->iops,
    [E_BANDWIDTH] = e->bandwidth,
    [E_ZERO] = e->zero_pages * PAGE_BYTES,
    [E_TRIMMED] = e->trim.bytes,
    [E_ZEROED] = e->zero.bytes,
    [E_READS] = e->read.requests,
    [E_WRITES] = e->write.requests,
    [E_TRIMS] = e->trim.requests,
    [E_ZEROES] = e->zero.requests,
    [E_ERRORS] = e->read.errors + e->write.errors + e->trim.errors + e->zero.errors,
    [E_RERRORS] = e->read.errors,
    [E_WERRORS] = e->write.errors,
    [E_INFLIGHT] = e->read.in_flight + e->write.in_flight + e->trim.in_flight + e->zero.in_flight,
  };

  cell->text = text[column];
  cell->number = (int64_t) number[column];
  cell->none = column == E_LAST_IO ? e->idle < 0 : may_be_none (column) && number[column] == 0;
}

static const struct table_layout layout = {
  .name = "exports",
  .columns = columns,
  .ncolumns = E_NCOLUMNS,
  .defaults = "NAME,SIZE,USED,RESERVE,LIMIT,CLIENTS,READ,WRITTEN,LAST-IO",
  .cell = cell,
};

/* Those that are named, or all. STATUS_FAILED if one is missing, and said so. */
static int
choose (const struct snapshot *snap, char **names, size_t nnames, const struct export **rows,
        size_t *nrows)
{
  int status = STATUS_DONE;

  *nrows = 0;
  for (size_t i = 0; nnames == 0 && i < snap->nexports; i++)
    rows[(*nrows)++] = &snap->exports[i];
  for (size_t i = 0; i < nnames; i++) {
    const struct export *e = snapshot_export (snap, names[i]);
    char *name = text_printable (text_export (names[i]));

    if (e)
      rows[(*nrows)++] = e;
    else {
      log_error ("%s: there is no such export", name);
      status = STATUS_FAILED;
    }
    free (name);
  }
  return status;
}

static int
run (const struct verb *self, int argc, char **argv)
{
  struct table_options table = { .json = false };
  const struct option_spec options[] = { TABLE_OPTIONS (table), { 0 } };
  int status = options_parse (self, options, 0, -1, &argc, &argv), printed;
  const struct export **rows;
  struct snapshot *snap;
  size_t nrows;

  if (status >= 0 || (status = table_check (&layout, &table)) != STATUS_DONE)
    return status;
  if (!(snap = snapshot_ask_once (false)))
    return STATUS_FAILED;
  rows = need (calloc (snap->nexports + (size_t) argc + 1, sizeof *rows));
  status = choose (snap, argv, (size_t) argc, rows, &nrows);
  printed = table_print (&layout, &table, rows, sizeof *rows, nrows);
  free (rows);
  snapshot_free (snap);
  return status == STATUS_DONE ? printed : status;
}

static void
help (FILE *out)
{
  table_help (&layout, out);
}

const struct verb verb_exports = {
  .name = "exports",
  .operands = "[NAME...]",
  .summary = "List the exports of the drum, or those that are named (\"\" is the default one).",
  .more = help,
  .run = run,
};
