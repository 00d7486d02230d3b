/* SPDX-License-Identifier: BSD-3-Clause
 *
 * drumctl.c - finds the verb, runs it, and sees to it that what it printed has arrived.
 */
#include <config.h>

#include "drumctl.h"

#include <errno.h>
#include <locale.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "lib/log.h"

#include "options.h"
#include "screen.h"
#include "signals.h"

static const struct verb *const verbs[] = {
  &verb_list,          &verb_status,
  &verb_watch,         &verb_map,
  &verb_metrics,       &verb_add,
  &verb_remove,        &verb_cancel,
  &verb_rebalance,     &verb_scrub,
  &verb_priority,      &verb_maxio,
  &verb_jobs,          &verb_wait,
  &verb_shutdown,      &verb_exports,
  &verb_export_add,    &verb_export_set,
  &verb_export_resize, &verb_export_move,
  &verb_export_fill,   &verb_export_takeover,
  &verb_export_remove,
};

static void
to_stderr (enum log_level level, const char *fmt, va_list args)
{
  screen_leave ();
  fflush (stdout); /* in the order in which it happened, where both go to one place */
  fprintf (stderr, "drumctl: %s", level == LEVEL_WARNING ? "warning: " : "");
  vfprintf (stderr, fmt, args);
  putc ('\n', stderr);
}

static void
print_verbs (FILE *out)
{
  fputs ("\nVerbs:\n", out);
  for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
    fprintf (out, " %-15s  %s\n", verbs[i]->name, verbs[i]->summary);
  fputs ("\n\"drumctl VERB --help\" explains a verb.\n", out);
}

static int run (const struct verb *verb, int argc, char **argv);

static const struct verb drumctl = {
  .operands = "VERB ...",
  .summary = "Talk to a running drum, the swap server that nbdkit serves with control=SOCKET.",
  .more = print_verbs,
  .ordered = true,
  .run = run,
};

static int
run (const struct verb *self, int argc, char **argv)
{
  bool version = false;
  const struct option_spec options[] = {
    { 'V', "version", NULL, option_switch, &version, "display the version" },
    { 0 },
  };
  int status = options_parse (self, options, 0, -1, &argc, &argv);

  if (status >= 0)
    return status;
  if (version) {
    puts ("drumctl (" PACKAGE_STRING ")");
    return STATUS_DONE;
  }
  if (argc == 0) {
    options_help (self, options, stderr);
    return STATUS_USAGE;
  }
  for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
    if (strcmp (argv[0], verbs[i]->name) == 0) {
      argv[0] = (char *) "drumctl"; /* which getopt puts before its errors */
      return verbs[i]->run (verbs[i], argc, argv);
    }
  log_error ("%s: there is no such verb; \"drumctl --help\" lists those that there are", argv[0]);
  return STATUS_USAGE;
}

/* A disk that is full tells at the last moment. */
static bool
stdout_is_fine (void)
{
  bool failed = ferror (stdout);

  errno = 0;
  if (fclose (stdout) == 0 && !failed)
    return true;
  log_error ("standard output: %s", errno ? strerror (errno) : "could not be written");
  return false;
}

int
main (int argc, char **argv)
{
  int status;

  setlocale (LC_CTYPE, "");
  log_set_sink (to_stderr);
  argv[0] = (char *) "drumctl";
  status = drumctl.run (&drumctl, argc, argv);
  if (!stdout_is_fine () && status == STATUS_DONE)
    status = STATUS_FAILED;
  signals_reraise ();
  return status;
}
