/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "table.h"

#include <inttypes.h>
#include <libsmartcols.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lib/log.h"

#include "text.h"

enum { MAX_CHOSEN = 64 };

/* The columns to print, in order. */
struct choice {
  unsigned column[MAX_CHOSEN], n;
};

void
table_help (const struct table_layout *layout, FILE *out)
{
  fprintf (out, "\nColumns (* is printed without -o):\n");
  for (unsigned i = 0; i < layout->ncolumns; i++) {
    const struct table_column *c = &layout->columns[i];
    const char *at = strstr (layout->defaults, c->name);
    size_t len = strlen (c->name);
    bool is_default =
      at && (at[len] == ',' || !at[len]) && (at == layout->defaults || at[-1] == ',');

    fprintf (out, " %c %-10s  %s\n", is_default ? '*' : ' ', c->name, c->help);
  }
}

static void
complain (const struct table_layout *layout, const char *name)
{
  char *all = need (strdup (""));

  for (unsigned i = 0; i < layout->ncolumns; i++) {
    char *more = text_format ("%s%s%s", all, i ? " " : "", layout->columns[i].name);

    free (all);
    all = more;
  }
  log_error ("%s: there is no such column; there are %s", name, all);
  free (all);
}

static bool
choose_one (const struct table_layout *layout, const char *name, struct choice *choice)
{
  for (unsigned i = 0; i < layout->ncolumns; i++)
    if (strcasecmp (layout->columns[i].name, name) == 0) {
      if (choice->n == MAX_CHOSEN) {
        log_error ("--output: has more than %d columns", MAX_CHOSEN);
        return false;
      }
      choice->column[choice->n++] = i;
      return true;
    }
  complain (layout, name);
  return false;
}

static bool
choose (const struct table_layout *layout, const char *names, struct choice *choice)
{
  char *copy = need (strdup (names)), *rest = copy, *name;
  bool fine = true;

  while (fine && (name = strsep (&rest, ",")))
    fine = choose_one (layout, name, choice);
  free (copy);
  return fine;
}

/* -o COL,COL or -o +COL,COL, or the defaults. */
static bool
choose_all (const struct table_layout *layout, const struct table_options *options,
            struct choice *choice)
{
  const char *names = options->columns;

  choice->n = 0;
  if (options->json && options->raw) {
    log_error ("--json and --raw: choose one");
    return false;
  }
  if ((!names || *names == '+') && !choose (layout, layout->defaults, choice))
    return false;
  return !names || choose (layout, names + (*names == '+'), choice);
}

int
table_check (const struct table_layout *layout, const struct table_options *options)
{
  struct choice choice;

  return choose_all (layout, options, &choice) ? STATUS_DONE : STATUS_USAGE;
}

static bool
is_text (const struct table_column *column)
{
  return column->kind == COLUMN_TEXT || column->kind == COLUMN_PROSE ||
         column->kind == COLUMN_EXPORT || column->kind == COLUMN_SWITCH;
}

static bool
is_number (const struct table_column *column, const struct table_options *options)
{
  if (column->kind == COLUMN_AGO && (options->json || options->raw))
    return true;
  return column->kind == COLUMN_NUMBER || (!is_text (column) && options->bytes);
}

static void
add_column (struct libscols_table *tb, const struct table_column *column,
            const struct table_options *options)
{
  int flags = !is_text (column) ? SCOLS_FL_RIGHT : column->kind == COLUMN_PROSE ? SCOLS_FL_WRAP : 0;
  struct libscols_column *cl = need (scols_table_new_column (tb, column->name, 0, flags));

  scols_column_set_json_type (cl, column->kind == COLUMN_SWITCH ? SCOLS_JSON_BOOLEAN
                                  : is_number (column, options) ? SCOLS_JSON_NUMBER
                                                                : SCOLS_JSON_STRING);
}

/* What is to be seen in a cell, the caller's; NULL: nothing. */
static char *
show (const struct table_column *column, const struct table_options *options,
      const struct table_cell *cell)
{
  char buf[TEXT_NUMBER], bytes[16];

  if (column->kind == COLUMN_EXPORT && !options->json && !options->raw)
    return cell->text ? need (strdup (text_export (cell->text))) : NULL;
  if (is_text (column))
    return cell->text ? need (strdup (cell->text)) : NULL;
  if (cell->none)
    return column->kind == COLUMN_AGO && !is_number (column, options) ? need (strdup ("-")) : NULL;
  if (is_number (column, options))
    return text_format ("%" PRId64, cell->number);
  if (column->kind == COLUMN_RATE)
    return need (strdup (text_rate ((double) cell->number, buf)));
  if (column->kind == COLUMN_AGO)
    return need (strdup (text_ago ((double) cell->number, buf)));
  if (column->kind == COLUMN_SECONDS)
    return need (strdup (text_duration ((double) cell->number, buf)));
  return need (strdup (format_bytes ((uint64_t) cell->number, bytes)));
}

static void
add_row (struct libscols_table *tb, const struct table_layout *layout,
         const struct table_options *options, const struct choice *choice, const void *row)
{
  struct libscols_line *line = need (scols_table_new_line (tb, NULL));

  for (unsigned i = 0; i < choice->n; i++) {
    struct table_cell cell = { .text = NULL };
    char *text;

    layout->cell (row, choice->column[i], &cell);
    text = show (&layout->columns[choice->column[i]], options, &cell);
    if (text)
      scols_line_refer_data (line, i, text); /* it frees it */
  }
}

int
table_print (const struct table_layout *layout, const struct table_options *options,
             const void *rows, size_t row_bytes, size_t nrows)
{
  struct libscols_table *tb;
  struct choice choice;
  int ret;

  if (!choose_all (layout, options, &choice))
    return STATUS_USAGE;
  tb = need (scols_new_table ());
  scols_table_set_name (tb, layout->name);
  scols_table_enable_json (tb, options->json);
  scols_table_enable_raw (tb, options->raw);
  scols_table_enable_noheadings (tb, options->noheadings);
  for (unsigned i = 0; i < choice.n; i++)
    add_column (tb, &layout->columns[choice.column[i]], options);
  for (size_t i = 0; i < nrows; i++)
    add_row (tb, layout, options, &choice, (const char *) rows + i * row_bytes);
  ret = scols_print_table (tb);
  scols_unref_table (tb);
  return ret == 0 ? STATUS_DONE : STATUS_FAILED;
}
