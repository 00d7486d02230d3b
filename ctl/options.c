/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "lib/log.h"
#include "lib/parse.h"
#include "lib/swapdev.h"

enum { MAX_OPTIONS = 24, LONG_ONLY = 256, MAX_CELLS = 1024, MAX_SECONDS = 1000000 };

static const char *socket_path;
static double timeout_seconds = 60;
static bool help;
static const char *program = "drumctl";

static const struct option_spec help_only[] = {
  { 'h', "help", NULL, option_switch, &help, "display this help" },
  { 0 },
};

static const struct option_spec with_server[] = {
  { 's', "socket", "SOCKET", option_text, &socket_path, "the server's control= ($DRUM_CONTROL)" },
  { 't', "timeout", "SECONDS", option_seconds, &timeout_seconds,
    "wait so long for an answer (60)" },
  { 'h', "help", NULL, option_switch, &help, "display this help" },
  { 0 },
};

static const struct option_spec *common = with_server;

void
options_program (const char *name)
{
  program = name;
  common = help_only;
}

int
option_switch (const char *name, const char *text, void *yes)
{
  (void) name, (void) text;
  *(bool *) yes = true;
  return 0;
}

int
option_text (const char *name, const char *text, void *value)
{
  (void) name;
  *(const char **) value = text;
  return 0;
}

int
option_size (const char *name, const char *text, void *bytes)
{
  int ret = parse_size (name, text, bytes);

  if (ret == 0 && *(uint64_t *) bytes == 0) {
    log_error ("%s: must be more than 0", name);
    return -EINVAL;
  }
  return ret;
}

int
option_count (const char *name, const char *text, void *value)
{
  return parse_int (name, text, 1, INT_MAX, value);
}

int
option_cells (const char *name, const char *text, void *value)
{
  return parse_int (name, text, 1, MAX_CELLS, value);
}

int
option_prio (const char *name, const char *text, void *value)
{
  return parse_int (name, text, SWAP_PRIO_MIN, SWAP_PRIO_MAX, value);
}

int
option_maxio (const char *name, const char *text, void *value)
{
  return parse_int (name, text, 0, SWAP_MAXIO_MAX, value);
}

int
option_seconds (const char *name, const char *text, void *seconds)
{
  char *end;
  double value = strtod (text, &end);

  if (end == text || *end || !(value >= 0.01 && value <= MAX_SECONDS)) {
    log_error ("%s: \"%s\" is not a number of seconds from 0.01 to %d", name, text, MAX_SECONDS);
    return -EINVAL;
  }
  *(double *) seconds = value;
  return 0;
}

const char *
options_socket (void)
{
  return socket_path ? socket_path : getenv ("DRUM_CONTROL");
}

double
options_timeout (void)
{
  return timeout_seconds;
}

static void
print_options (const struct option_spec *o, FILE *out)
{
  for (; o->name; o++) {
    char text[64];

    snprintf (text, sizeof text, "--%s%s%s", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
    if (o->letter)
      fprintf (out, " -%c, %-22s %s\n", o->letter, text, o->help);
    else
      fprintf (out, "     %-22s %s\n", text, o->help);
  }
}

void
options_help (const struct verb *verb, const struct option_spec *options, FILE *out)
{
  fprintf (out, "Usage:\n %s%s%s [options]%s%s\n\n%s\n\nOptions:\n", program, verb->name ? " " : "",
           verb->name ? verb->name : "", verb->operands ? " " : "",
           verb->operands ? verb->operands : "", verb->summary);
  print_options (options, out);
  print_options (common, out);
  if (verb->more)
    verb->more (out);
}

/* Both tables, as getopt wants them. */
struct getopt_table {
  const struct option_spec *spec[MAX_OPTIONS];
  struct option longs[MAX_OPTIONS + 1];
  char shorts[3 * MAX_OPTIONS];
  int n;
};

static void
add_options (struct getopt_table *t, const struct option_spec *o)
{
  for (; o->name && t->n < MAX_OPTIONS; o++, t->n++) {
    t->spec[t->n] = o;
    t->longs[t->n] = (struct option){ o->name, o->arg ? required_argument : no_argument, NULL,
                                      o->letter ? o->letter : LONG_ONLY + t->n };
    if (o->letter)
      sprintf (strchr (t->shorts, '\0'), "%c%s", o->letter, o->arg ? ":" : "");
  }
}

/* => c is what getopt_long returned for one of the table's. */
static const struct option_spec *
find_option (const struct getopt_table *t, int c)
{
  int i = 0;

  while (t->longs[i].val != c)
    i++;
  return t->spec[i];
}

static int
try_help (const struct verb *verb)
{
  fprintf (stderr, "Try '%s%s%s --help' for more information.\n", program, verb->name ? " " : "",
           verb->name ? verb->name : "");
  return STATUS_USAGE;
}

static int
check_operands (const struct verb *verb, int n, int min, int max)
{
  if (n >= min && (max < 0 || n <= max))
    return -1;
  if (max == 0)
    log_error ("%s takes no operands", verb->name ? verb->name : program);
  else
    log_error ("%s takes %s", verb->name ? verb->name : program, verb->operands);
  return try_help (verb);
}

int
options_parse (const struct verb *verb, const struct option_spec *options, int min, int max,
               int *argc, char ***argv)
{
  struct getopt_table t = { .n = 0 };
  int c;

  if (verb->ordered)
    strcpy (t.shorts, "+");
  add_options (&t, options);
  add_options (&t, common);
  optind = 0;
  while ((c = getopt_long (*argc, *argv, t.shorts, t.longs, NULL)) != -1) {
    const struct option_spec *o;
    char name[64];

    if (c == '?')
      return try_help (verb);
    o = find_option (&t, c);
    snprintf (name, sizeof name, "--%s", o->name);
    if (o->set (name, optarg, o->value) < 0)
      return STATUS_USAGE;
  }
  if (help) {
    options_help (verb, options, stdout);
    return STATUS_DONE;
  }
  *argc -= optind;
  *argv += optind;
  return check_operands (verb, *argc, min, max);
}
