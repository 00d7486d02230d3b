/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "swapon-status.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "attached.h"
#include "drumctl.h"
#include "swaps.h"
#include "text.h"

enum {
  S_NAME,
  S_URI,
  S_SIZE,
  S_USED,
  S_PRIO,
  S_STATE,
  S_SINCE,
  S_OUTAGES,
  S_LONGEST,
  S_CONNECTIONS,
  S_EPOCH,
  S_PID,
  S_STANDBY,
  S_NCOLUMNS,
};

/* clang-format off */
static const struct table_column columns[S_NCOLUMNS] = {
  [S_NAME]        = { "NAME",        COLUMN_TEXT,    "the device" },
  [S_URI]         = { "URI",         COLUMN_TEXT,    "what it was attached to" },
  [S_SIZE]        = { "SIZE",        COLUMN_BYTES,   "its size" },
  [S_USED]        = { "USED",        COLUMN_BYTES,   "bytes of it in use as swap" },
  [S_PRIO]        = { "PRIO",        COLUMN_NUMBER,  "its priority as swap; none if it is not in use" },
  [S_STATE]       = { "STATE",       COLUMN_TEXT,    "up; down while the server is away; lost: nobody is left who would reconnect it" },
  [S_SINCE]       = { "SINCE",       COLUMN_SECONDS, "for how long it has been up or down" },
  [S_OUTAGES]     = { "OUTAGES",     COLUMN_NUMBER,  "how often the server was away" },
  [S_LONGEST]     = { "LONGEST",     COLUMN_SECONDS, "the longest of those" },
  [S_CONNECTIONS] = { "CONNECTIONS", COLUMN_NUMBER,  "connections to the server" },
  [S_EPOCH]       = { "EPOCH",       COLUMN_NUMBER,  "sessions so far, tries included" },
  [S_PID]         = { "PID",         COLUMN_NUMBER,  "the process that keeps it" },
  [S_STANDBY]     = { "STANDBY",     COLUMN_NUMBER,  "processes that take over if that is killed" },
};
/* clang-format on */

struct row {
  char name[32], reply[ATTACHED_REPLY_BYTES], uri[ATTACHED_REPLY_BYTES], state[16];
  bool in_use;
  struct swaps_entry swap;
};

/* Of the keeper's answer; -1: it says none. */
static int64_t
number (const struct row *r, const char *key)
{
  char text[32];

  return attached_value (r->reply, key, text, sizeof text) ? strtoll (text, NULL, 10) : -1;
}

static int64_t
cell_number (const struct row *r, unsigned column)
{
  switch (column) {
  case S_SIZE:
    return *r->reply ? number (r, "size") : (int64_t) r->swap.size_bytes;
  case S_USED:
    return (int64_t) r->swap.used_bytes;
  case S_PRIO:
    return r->swap.priority;
  case S_SINCE:
    return number (r, "seconds");
  case S_OUTAGES:
    return number (r, "outages");
  case S_LONGEST:
    return (number (r, "longest_ms") + 500) / 1000;
  case S_CONNECTIONS:
    return number (r, "connections");
  case S_EPOCH:
    return number (r, "epoch");
  case S_PID:
    return number (r, "pid");
  case S_STANDBY:
    return number (r, "standby");
  default:
    return -1;
  }
}

static void
cell (const void *row, unsigned column, struct table_cell *c)
{
  const struct row *r = row;

  if (column == S_NAME || column == S_STATE || column == S_URI) {
    c->text = column == S_NAME ? r->name : column == S_STATE ? r->state : *r->uri ? r->uri : NULL;
    return;
  }
  c->number = cell_number (r, column);
  c->none = column == S_USED || column == S_PRIO ? !r->in_use : c->number < 0;
}

static const struct table_layout layout = {
  .name = "devices",
  .columns = columns,
  .ncolumns = S_NCOLUMNS,
  .defaults = "NAME,URI,SIZE,USED,PRIO,STATE,SINCE,OUTAGES",
  .cell = cell,
};

/* => there is something to say: not of a socket that a dead keeper has left, whose device is nobody's swap */
static bool
fill (struct row *r, int index)
{
  int ret = attached_ask (index, ATTACHED_STATUS, ATTACHED_PATIENCE_SECONDS, r->reply);

  snprintf (r->name, sizeof r->name, "/dev/nbd%d", index);
  r->in_use = swaps_find (r->name, &r->swap) == 1;
  if (ret < 0) {
    *r->reply = '\0';
    snprintf (r->state, sizeof r->state, ret == -ECONNREFUSED ? "lost" : "silent");
    return r->in_use || ret != -ECONNREFUSED;
  }
  attached_value (r->reply, "state", r->state, sizeof r->state);
  attached_value (r->reply, "uri", r->uri, sizeof r->uri);
  return true;
}

int
swapon_status (const struct table_options *options)
{
  struct row *rows = need (calloc (ATTACHED_MAX, sizeof *rows));
  int indexes[ATTACHED_MAX];
  unsigned nindexes = attached_list (indexes, ATTACHED_MAX), n = 0;
  int status;

  if (access (ATTACHED_DIR, R_OK | X_OK) == -1 && errno == EACCES) {
    log_error ("%s: no permission; be root", ATTACHED_DIR);
    free (rows);
    return STATUS_FAILED;
  }
  for (unsigned i = 0; i < nindexes; i++)
    n += fill (&rows[n], indexes[i]);
  status = table_print (&layout, options, rows, sizeof *rows, n);
  free (rows);
  return status;
}

void
swapon_status_help (FILE *out)
{
  table_help (&layout, out);
}
