/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "outfile.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/log.h"

#include "text.h"

/* Beside the old one, under a name that nobody takes for a finished one: node_exporter reads all that ends with .prom. */
static char *
temporary_name (const char *path)
{
  const char *slash = strrchr (path, '/');

  return slash ? text_format ("%.*s/.%s.XXXXXX", (int) (slash - path), path, slash + 1)
               : text_format (".%s.XXXXXX", path);
}

static bool
print_and_close (FILE *out, void (*print) (FILE *out, const void *what), const void *what)
{
  bool fine;

  print (out, what);
  fine = fflush (out) == 0 && !ferror (out);
  if (fine && fsync (fileno (out)) == -1 && errno != EINVAL && errno != EROFS)
    fine = false;
  return fclose (out) == 0 && fine;
}

static bool
replace (const char *path, void (*print) (FILE *out, const void *what), const void *what)
{
  char *name = temporary_name (path);
  int fd = mkstemp (name);
  bool fine = fd != -1;

  if (fine)
    fine = print_and_close (need (fdopen (fd, "w")), print, what) && chmod (name, 0644) == 0 &&
           rename (name, path) == 0;
  if (!fine) {
    log_error ("%s: could not be written: %s; it is as it was", path, strerror (errno));
    if (fd != -1)
      unlink (name);
  }
  free (name);
  return fine;
}

static bool
write_into (const char *path, void (*print) (FILE *out, const void *what), const void *what)
{
  FILE *out = fopen (path, "we");

  if (out && print_and_close (out, print, what))
    return true;
  log_error ("%s: could not be written: %s", path, strerror (errno));
  return false;
}

bool
outfile_write (const char *path, void (*print) (FILE *out, const void *what), const void *what)
{
  struct stat st;
  char *target;
  bool fine;

  if (strcmp (path, "-") == 0) {
    print (stdout, what);
    return true;
  }
  if (stat (path, &st) == 0 && !S_ISREG (st.st_mode))
    return write_into (path, print, what);
  target = realpath (path, NULL); /* a symlink stays one */
  fine = replace (target ? target : path, print, what);
  free (target);
  return fine;
}
