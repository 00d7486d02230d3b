/* SPDX-License-Identifier: BSD-3-Clause
 *
 * slowdisk.c - make a control file for libfaults.so that has slow disks in it, for scripts.
 */
#include <config.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "faults.h"

int
main (int argc, char **argv)
{
  struct faults *f;

  if (argc < 3) {
    fprintf (stderr, "usage: slowdisk CONTROL-FILE PATH=PAGE_US[+SEEK_US] ...\n"
                     "  Files whose path contains PATH take PAGE_US for every 4 KiB, one call at a "
                     "time, and SEEK_US\n"
                     "  more for each that does not start where the last ended.\n");
    return 2;
  }
  unlink (argv[1]);
  f = faults_open (argv[1]);
  if (!f) {
    perror (argv[1]);
    return 1;
  }
  for (int i = 2; i < argc; i++) {
    char *equals = strrchr (argv[i], '=');
    unsigned page_us, seek_us = 0;

    if (!equals || sscanf (equals, "=%u+%u", &page_us, &seek_us) < 1) {
      fprintf (stderr, "slowdisk: %s: is not PATH=PAGE_US[+SEEK_US]\n", argv[i]);
      return 2;
    }
    *equals = 0;
    if (!faults_add_disk (f, argv[i], page_us, seek_us)) {
      fprintf (stderr, "slowdisk: %s: is too long a path, or one disk too many\n", argv[i]);
      return 1;
    }
  }
  return 0;
}
