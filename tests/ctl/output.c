/* SPDX-License-Identifier: BSD-3-Clause
 *
 * output.c - drumctl metrics, files that are replaced as a whole, and standard output that can't be written.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/scratch.h"

#include "fake.h"
#include "run.h"

TestSuite (output, .init = fake_setup, .fini = scratch_teardown, .timeout = 60);

static void
make_old (const char *path)
{
  FILE *f = fopen (path, "w");

  cr_assert (f && fputs ("old\n", f) >= 0 && fclose (f) == 0, "%m");
}

static void
expect_file (const char *path, const char *contents)
{
  cr_assert_str_eq ((char *) file_contents (path, NULL), contents);
}

/* Nothing of a temporary file stays. */
static void
expect_files (const char *folder, unsigned n)
{
  DIR *dir = opendir (folder);
  struct dirent *entry;

  cr_assert_not_null (dir);
  while ((entry = readdir (dir)))
    if (strcmp (entry->d_name, ".") != 0 && strcmp (entry->d_name, "..") != 0)
      cr_assert_gt (n--, 0, "%s", entry->d_name);
  cr_assert_eq (n, 0);
  closedir (dir);
}

Test (output, metrics)
{
  struct result r = RUN ("metrics");

  cr_assert_eq (r.status, 0, "%s", r.err);
  expect_golden ("metrics", r.out);
}

/* Buckets are cumulative, the last one counts all, and a metric is described once, before its first line. */
Test (output, metrics_are_sound)
{
  char *text = RUN ("metrics").out, *type = str (" "), *line, *rest = text;
  unsigned long long last = 0, count;

  while ((line = strsep (&rest, "\n")) && *line) {
    char name[128];

    if (sscanf (line, "# TYPE %127s", name) == 1) {
      cr_assert_null (strstr (type, str (" %s ", name)), "%s is described twice", name);
      type = str ("%s %s ", type, name);
      continue;
    }
    if (*line == '#')
      continue;
    cr_assert_eq (sscanf (line, "%127[a-z_]", name), 1, "%s", line);
    cr_assert_eq (strncmp (name, "drum_", 5), 0);
    if (strstr (line, "_seconds_bucket")) {
      cr_assert_eq (sscanf (strstr (line, "} "), "} %llu", &count), 1);
      cr_assert (strstr (line, "le=\"1e-06\"") || count >= last, "%s", line);
      last = count;
    }
    if (strstr (line, "_seconds_count")) {
      cr_assert_eq (sscanf (strstr (line, "} "), "} %llu", &count), 1);
      cr_assert_eq (count, last, "%s", line);
    }
  }
}

Test (output, metrics_replace_a_file)
{
  char *folder = scratch_path ("textfile"), *path = str ("%s/drum.prom", folder);

  cr_assert_eq (mkdir (folder, 0755), 0);
  umask (077);
  expect (ARGS ("metrics", "--output", path), 0, "", "");
  expect_golden ("metrics", (char *) file_contents (path, NULL));
  cr_assert_eq (file_stat (path).st_mode & 07777, 0644);
  make_old (path);
  expect (ARGS ("metrics", "--output", path), 0, "", "");
  expect_golden ("metrics", (char *) file_contents (path, NULL));
  expect_files (folder, 1);
}

/* As long as files may not grow beyond 1 KiB. */
Test (output, a_failure_leaves_the_old_file)
{
  char *folder = scratch_path ("textfile"), *path = str ("%s/drum.prom", folder);
  struct result r;

  cr_assert_eq (mkdir (folder, 0755), 0);
  make_old (path);
  r = run_shell (str ("ulimit -f 1; trap '' XFSZ; exec $DRUMCTL metrics -o %s", path));
  cr_assert_eq (r.status, 1);
  cr_assert_str_eq (
    r.err, str ("drumctl: %s: could not be written: File too large; it is as it was\n", path));
  expect_file (path, "old\n");
  expect_files (folder, 1);
  expect (ARGS ("-s", scratch_path ("nobody"), "metrics", "-o", path), 1, "", "no such socket");
  expect_file (path, "old\n");
}

/* A link stays one, and what it leads to is replaced. */
Test (output, a_link_is_followed)
{
  char *path = scratch_path ("target"), *link = scratch_path ("link");

  make_old (path);
  cr_assert_eq (symlink ("target", link), 0);
  expect (ARGS ("metrics", "--output", link), 0, "", "");
  expect_golden ("metrics", (char *) file_contents (path, NULL));
  cr_assert_gt (readlink (link, (char[64]){ 0 }, 64), 0);
}

/* What is no regular file is written into. A pipe of the test's own: broken code that runs as root would replace a device. */
Test (output, odd_files)
{
  struct result r;

  cr_assert_eq (mkfifo (scratch_path ("pipe"), 0600), 0);
  r = run_shell (
    str ("$DRUMCTL metrics --output %s & cat %s", scratch_path ("pipe"), scratch_path ("pipe")));
  expect_golden ("metrics", r.out);
  cr_assert (S_ISFIFO (file_stat (scratch_path ("pipe")).st_mode));
  expect (ARGS ("metrics", "--output", scratch_path (".")), 1, "", "Is a directory");
  expect (ARGS ("metrics", "--output", scratch_path ("no/such")), 1, "",
          "No such file or directory");
}

/* Of every verb that prints. */
Test (output, stdout_fails)
{
  static const char *const verbs[] = {
    "list",          "jobs --json", "exports",         "status",
    "status --json", "metrics",     "watch --count 1", "watch --count 1 --json",
    "--help",        "add --help"
  };

  for (unsigned i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
    struct result r = run_shell (str ("$DRUMCTL %s >/dev/full", verbs[i]));

    cr_assert_eq (r.status, 1, "%s: %d", verbs[i], r.status);
    cr_assert_eq (strncmp (r.err, "drumctl: standard output: ", 26), 0, "%s: %s", verbs[i], r.err);
    r = run_shell (str ("$DRUMCTL %s >&-", verbs[i]));
    cr_assert_eq (r.status, 1, "%s: %d", verbs[i], r.status);
  }
}

/* Who closes a pipe has seen enough; drumctl watch ends by SIGPIPE, as all do. */
Test (output, pipe_is_closed)
{
  struct result r = run_shell ("{ $DRUMCTL watch -i 0.05; echo $? >&2; } | head -n 1");

  cr_assert_str_eq (r.err, "141\n");
}
