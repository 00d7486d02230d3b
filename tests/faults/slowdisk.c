/* SPDX-License-Identifier: BSD-3-Clause
 *
 * slowdisk.c - make disks slow, hang, or fast again, by the control file of libfaults.so; for scripts.
 */
#include <config.h>

#include <stdio.h>
#include <string.h>

#include "faults.h"

static const char usage[] =
  "usage: slowdisk CONTROL-FILE [PATH=PAGE_US[+SEEK_US] | PATH=hang ...]\n"
  "  From now on, and until told otherwise, files whose path contains PATH take PAGE_US for every "
  "4 KiB, one call\n"
  "  at a time, and SEEK_US more for each that does not start where the last ended; or no call of "
  "them comes back.\n"
  "  All others take no time.\n";

static int
add_disk (struct faults *f, char *arg)
{
  const struct faults_plan hang = { .calls = FAULTS_ANY, .action = FAULTS_HOLD };
  char *equals = strrchr (arg, '=');
  unsigned page_us = 0, seek_us = 0;
  bool hangs = equals && strcmp (equals, "=hang") == 0;

  if (!equals || (!hangs && sscanf (equals, "=%u+%u", &page_us, &seek_us) < 1)) {
    fprintf (stderr, "slowdisk: %s: is not PATH=PAGE_US[+SEEK_US] or PATH=hang\n", arg);
    return 2;
  }
  *equals = 0;
  if (hangs ? !faults_add (f, arg, &hang) : !faults_add_disk (f, arg, page_us, seek_us)) {
    fprintf (stderr, "slowdisk: %s: is too long a path, or one disk too many\n", arg);
    return 1;
  }
  return 0;
}

int
main (int argc, char **argv)
{
  struct faults *f;
  int status = 0;

  if (argc < 2) {
    fputs (usage, stderr);
    return 2;
  }
  f = faults_open (argv[1]);
  if (!f) {
    perror (argv[1]);
    return 1;
  }
  for (unsigned i = 0; i < FAULTS_DISKS; i++)
    faults_remove_disk (&f->disk[i]);
  for (unsigned i = 0; i < FAULTS_RULES; i++)
    faults_remove (&f->rule[i]);
  for (int i = 2; i < argc && status == 0; i++)
    status = add_disk (f, argv[i]);
  return status;
}
