/* SPDX-License-Identifier: BSD-3-Clause
 *
 * swapon.c - drum-swapon and drum-swapoff, as far as they get without touching the kernel: what is said of each mistake.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

#include "tests/scratch.h"

#include "run.h"

TestSuite (swapon, .init = setup, .fini = scratch_teardown, .timeout = 60);

static void
says (const char *program, const char *args, int status, const char *err)
{
  struct result r = run_shell (str (CTL "/%s %s", program, args));

  cr_assert_eq (r.status, status, "%s %s: %d: %s", program, args, r.status, r.err);
  cr_assert (strstr (r.err, err), "%s %s: no \"%s\" in: %s", program, args, err, r.err);
  cr_assert_str_eq (r.out, "");
}

Test (swapon, usage)
{
  says ("drum-swapon", "", 2, "no URI; nbd://HOST/NAME, say");
  says ("drum-swapon", "a b", 2, "drum-swapon takes URI | --status");
  says ("drum-swapon", "--status a", 2, "--status takes no URI");
  says ("drum-swapon", "host", 2, "host: is not a URI of NBD; write nbd://");
  says ("drum-swapon", "--priority -1 nbd://h", 2,
        "--priority: \"-1\" is not a number from 0 to 32767");
  says ("drum-swapon", "-C 17 nbd://h", 2, "--connections: \"17\" is not a number from 1 to 16");
  says ("drum-swapon", "-C 0 nbd://h", 2, "--connections: \"0\"");
  says ("drum-swapon", "--wait x nbd://h", 2, "--wait: \"x\" is not a number of seconds");
  says ("drum-swapon", "--device /dev/sda nbd://h", 2, "\"/dev/sda\" is not /dev/nbd and a number");
  says ("drum-swapon", "--device /dev/nbdx nbd://h", 2, "/dev/nbdx: \"x\" is not a number");
  says ("drum-swapon", "--nothing", 2, "Try 'drum-swapon --help'");
  says ("drum-swapoff", "", 2, "no device; drum-swapon --status shows");
  says ("drum-swapoff", "--nothing", 2, "Try 'drum-swapoff --help'");
}

Test (swapon, help)
{
  struct result r = run_shell (CTL "/drum-swapon --help");

  cr_assert_eq (r.status, 0);
  cr_assert_not_null (strstr (r.out, "Usage:\n drum-swapon [options] URI | --status\n"));
  cr_assert_not_null (strstr (r.out, "\n * STATE "));
  r = run_shell (CTL "/drum-swapoff --help");
  cr_assert_eq (r.status, 0);
  cr_assert_not_null (strstr (r.out, "Usage:\n drum-swapoff [options] DEVICE|URI...\n"));
  cr_assert_str_eq (run_shell (CTL "/drum-swapon --version").out,
                    "drum-swapon (" PACKAGE_STRING ")\n");
  cr_assert_str_eq (run_shell (CTL "/drum-swapoff --version").out,
                    "drum-swapoff (" PACKAGE_STRING ")\n");
}

Test (swapon, nobody_there)
{
  char *uri = str ("'nbd+unix:///x?socket=%s'", scratch_path ("none"));

  if (geteuid () != 0) {
    says ("drum-swapon", uri, 1, "only root may attach a device and swap on it");
    return;
  }
  says ("drum-swapon", uri, 1, ": No such file or directory\n");
  says ("drum-swapon", str ("--wait 1.5 %s", uri), 1, "trying for 1.5 seconds\n");
  says ("drum-swapoff", "nbd://nowhere/x", 1, "nbd://nowhere/x: nothing is attached to it");
}

/* Before the kernel hears of it. */
Test (swapon, unfit)
{
  if (geteuid () != 0)
    cr_skip_test ("only root gets so far");
  cr_assert_not_null (
    strstr (run_shell (NBDKIT " -r -U - memory 1M --run '" CTL "/drum-swapon \"$uri\"'").err,
            ": is read-only"));
  cr_assert_not_null (
    strstr (run_shell (NBDKIT " -U - memory 8K --run '" CTL "/drum-swapon \"$uri\"'").err,
            ": is too small to swap on: 8192 bytes"));
}

/* A server that does not let us have an export may do so later: it is asked again. */
Test (swapon, waits_for_an_export)
{
  char *err;

  if (geteuid () != 0)
    cr_skip_test ("only root gets so far");
  err = run_shell (NBDKIT " -U - eval open='echo EBUSY >&2; exit 1' get_size='echo 1M' --run '" CTL
                          "/drum-swapon --wait 1.5 \"$uri\"'")
          .err;
  cr_assert (strstr (err, "no such export, or does not let us have it; trying for 1.5 seconds\n"),
             "%s", err);
  cr_assert (strstr (err, "have it; if it is not a drum, --no-fence asks for NAME"), "%s", err);
}
