/* SPDX-License-Identifier: BSD-3-Clause
 *
 * completion.c - what bash completes is what there is.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/scratch.h"

#include "fake.h"
#include "run.h"

static void
setup_with_bash (void)
{
  fake_setup ();
  if (system ("command -v bash >/dev/null") != 0)
    cr_skip_test ("there is no bash");
}

TestSuite (completion, .init = setup_with_bash, .fini = scratch_teardown, .timeout = 60);

/* The words that complete a command line, each on a line; its last word is what is to be completed. */
static char *
complete (const char *line)
{
  struct result r = run_shell (
    str ("bash -c '. %s; COMP_WORDS=(%s); COMP_WORDS[0]=%s; COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); "
         "_drumctl; printf \"%%s\\n\" \"${COMPREPLY[@]}\"' 2>&1 | sort",
         COMPLETION, line, DRUMCTL));

  return r.out;
}

/* All that VERB --help has behind a prefix at the beginning of a line. */
static char *
from_help (const char *verb, const char *pattern)
{
  return run_shell (str ("$DRUMCTL %s --help | sed -n '%s' | sort", verb, pattern)).out;
}

Test (completion, verbs)
{
  cr_assert_str_eq (complete ("drumctl \"\""),
                    from_help ("", "/^Verbs/,/^$/s/^ \\([a-z-]*\\) .*/\\1/p"));
  cr_assert_str_eq (complete ("drumctl re"), "rebalance\nremove\n");
}

Test (completion, options)
{
  static const char *const verbs[] = { "",
                                       "list",
                                       "status",
                                       "watch",
                                       "map",
                                       "metrics",
                                       "add",
                                       "remove",
                                       "rebalance",
                                       "scrub",
                                       "priority",
                                       "maxio",
                                       "jobs",
                                       "wait",
                                       "cancel",
                                       "shutdown",
                                       "exports",
                                       "export-add",
                                       "export-set",
                                       "export-resize",
                                       "export-move",
                                       "export-fill",
                                       "export-takeover",
                                       "export-remove" };

  for (unsigned i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
    cr_assert_str_eq (complete (str ("drumctl %s --", verbs[i])),
                      from_help (verbs[i], "/^Columns/q;s/^ .*\\(--[a-z-]*\\) .*/\\1/p"), "%s",
                      verbs[i]);
}

Test (completion, columns)
{
  static const char *const verbs[] = { "list", "jobs", "exports" };

  for (unsigned i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
    cr_assert_str_eq (complete (str ("drumctl %s -o \"\"", verbs[i])),
                      from_help (verbs[i], "/^Columns/,$s/^ . \\([A-Z%-]*\\) .*/\\1/p"));
  cr_assert_str_eq (complete ("drumctl list -o NAME,PR"), "NAME,PRIO\n");
  cr_assert_str_eq (complete ("drumctl list --output +UU"), "+UUID\n");
}

/* Those of the running server, quoted as bash wants them. */
Test (completion, devices)
{
  cr_assert_str_eq (complete ("drumctl remove /dev/"), "/dev/nvme0n1p3\n/dev/nvme1n1p3\n");
  cr_assert_str_eq (complete ("drumctl priority /srv/swap/s"),
                    "$'/srv/swap/slöw \"1\"\\n<&>\\\\'\n");
  cr_assert_str_eq (complete (str ("drumctl -s %s remove /srv/swap/n", fake_socket ())),
                    "/srv/swap/new\n");
  cr_assert_str_eq (complete ("drumctl scrub /dev/"), "/dev/nvme0n1p3\n/dev/nvme1n1p3\n");
  cr_assert_str_eq (complete ("drumctl wait \"\""), "1\n2\n3\n4\n5\n");
  unsetenv ("DRUM_CONTROL");
  cr_assert_str_eq (complete ("drumctl remove \"\""), "\n");
}

/* The default one has no name. */
Test (completion, exports)
{
  cr_assert_str_eq (complete ("drumctl exports \"\""), "''\nhost-7\nvm\\ \\\"1\\\"\n");
  cr_assert_str_eq (complete ("drumctl export-set h"), "host-7\n");
  cr_assert_str_eq (complete ("drumctl export-move host-7 v"), "vm\\ \\\"1\\\"\n");
  cr_assert_str_eq (complete ("drumctl export-add h"), "\n");
  cr_assert_str_eq (complete ("drumctl export-set host-7 --exclusive \"\""), "no\nyes\n");
}
