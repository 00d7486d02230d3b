/* SPDX-License-Identifier: BSD-3-Clause
 *
 * options.h - the options of a verb as a table, from which it is parsed and its --help is printed.
 *
 * Every verb of drumctl has -s, --socket; -t, --timeout and -h, --help without saying so; another program has --help.
 */
#ifndef DRUMCTL_OPTIONS_H
#define DRUMCTL_OPTIONS_H

#include <stdint.h>
#include <stdio.h>

#include "drumctl.h"

struct option_spec {
  char letter; /* 0: none */
  const char *name;
  const char *arg; /* what --help calls its argument; NULL: it has none */
  int (*set) (const char *name, const char *text, void *value);
  void *value;
  const char *help;
};

/* Which program's options these are; drumctl's, unless it says something else first. */
void options_program (const char *name);

/* Negative: go on, with the operands, at least min and at most max (-1: any number), in *argc and *argv. Else the status to end
 * with, and all is said. A table ends with { 0 }. */
int options_parse (const struct verb *verb, const struct option_spec *options, int min, int max,
                   int *argc, char ***argv);
void options_help (const struct verb *verb, const struct option_spec *options, FILE *out);

/* What set may be: 0, or -EINVAL and a line that says why. */
int option_switch (const char *name, const char *text, void *yes);      /* bool */
int option_text (const char *name, const char *text, void *value);      /* const char * */
int option_size (const char *name, const char *text, void *bytes);      /* uint64_t, not 0 */
int option_count (const char *name, const char *text, void *value);     /* int, at least 1 */
int option_cells (const char *name, const char *text, void *value);     /* int */
int option_prio (const char *name, const char *text, void *value);      /* int */
int option_maxio (const char *name, const char *text, void *value);     /* int */
int option_seconds (const char *name, const char *text, void *seconds); /* double, above 0 */

/* Where the server is: -s, else $DRUM_CONTROL, else NULL. How long to wait for it. */
const char *options_socket (void);
double options_timeout (void);

#endif
