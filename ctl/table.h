/* SPDX-License-Identifier: BSD-3-Clause
 *
 * table.h - lists in columns, with util-linux's habits (libsmartcols): -o, --json, --raw, --bytes, --noheadings.
 */
#ifndef DRUMCTL_TABLE_H
#define DRUMCTL_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "options.h"

struct table_column {
  const char *name;
  enum {
    COLUMN_TEXT,
    COLUMN_PROSE,  /* text that may go over several lines on a terminal */
    COLUMN_EXPORT, /* text: an export's name, of which a person reads "(default)" if it is empty */
    COLUMN_SWITCH, /* text: yes or no, in JSON true or false */
    COLUMN_NUMBER,
    COLUMN_BYTES,   /* 1.5G, or a number with --bytes */
    COLUMN_RATE,    /* 1.5G/s, likewise */
    COLUMN_SECONDS, /* 1:02:03, likewise */
    COLUMN_AGO,     /* 5min, or - if there is no number; seconds with --bytes, --raw or --json */
  } kind;
  const char *help;
};

/* What one row has in one column. */
struct table_cell {
  const char *text; /* NULL: nothing */
  int64_t number;
  bool none; /* there is no number */
};

struct table_layout {
  const char *name; /* the array's, in JSON */
  const struct table_column *columns;
  unsigned ncolumns;
  const char *defaults; /* NAME,TYPE */
  void (*cell) (const void *row, unsigned column, struct table_cell *cell);
};

struct table_options {
  const char *columns; /* as -o has them; NULL: the defaults */
  bool json, raw, bytes, noheadings;
};

/* For a verb's table of options. */
#define TABLE_OPTIONS(t)                                                                       \
  { 'b', "bytes", NULL, option_switch, &(t).bytes, "print sizes in bytes, times in seconds" }, \
    { 'J', "json", NULL, option_switch, &(t).json, "print JSON" },                             \
    { 'n', "noheadings", NULL, option_switch, &(t).noheadings, "print no headings" },          \
    { 'o', "output", "COL[,COL]", option_text, &(t).columns, "columns; +COL: also this one" }, \
  {                                                                                            \
    'r', "raw", NULL, option_switch, &(t).raw, "print without alignment"                       \
  }

/* The columns, for --help. */
void table_help (const struct table_layout *layout, FILE *out);

/* The status to end with. Rows are row_bytes apart. May be asked before there are rows, to see whether the options are right. */
int table_print (const struct table_layout *layout, const struct table_options *options,
                 const void *rows, size_t row_bytes, size_t nrows);
int table_check (const struct table_layout *layout, const struct table_options *options);

#endif
