/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "exports.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "export.h"
#include "mutex.h"

struct exports {
  struct mutex mutex; /* all below */
  unsigned n, max;
  struct export **export; /* by name */
};

int
exports_create (struct exports **xp)
{
  struct exports *x = calloc (1, sizeof *x);

  if (!x)
    return -ENOMEM;
  mutex_init (&x->mutex);
  *xp = x;
  return 0;
}

void
exports_destroy (struct exports *x)
{
  for (unsigned i = 0; i < x->n; i++)
    export_destroy (x->export[i]);
  free (x->export);
  mutex_destroy (&x->mutex);
  free (x);
}

/* => holds x->mutex. The first that does not come before name. */
static unsigned
find_locked (struct exports *x, const char *name)
{
  unsigned low = 0, high = x->n;

  mutex_assert_held (&x->mutex);
  while (low < high) {
    unsigned middle = (low + high) / 2;

    if (strcmp (export_name (x->export[middle]), name) < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

/* => holds x->mutex. */
static bool
is_at_locked (struct exports *x, unsigned i, const char *name)
{
  mutex_assert_held (&x->mutex);
  return i < x->n && strcmp (export_name (x->export[i]), name) == 0;
}

/* => holds x->mutex. Room for one more. */
static int
grow_locked (struct exports *x)
{
  unsigned max = x->max ? 2 * x->max : 16;
  struct export **more;

  mutex_assert_held (&x->mutex);
  if (x->n < x->max)
    return 0;
  more = realloc (x->export, max * sizeof (struct export *));
  if (!more)
    return -ENOMEM;
  x->export = more;
  x->max = max;
  return 0;
}

int
exports_add (struct exports *x, struct export *e)
{
  unsigned i;
  int ret;

  mutex_lock (&x->mutex);
  i = find_locked (x, export_name (e));
  ret = is_at_locked (x, i, export_name (e)) ? -EEXIST : grow_locked (x);
  if (ret == 0) {
    memmove (&x->export[i + 1], &x -> export[i], (x->n - i) * sizeof (struct export *));
    x->export[i] = e;
    x->n++;
  }
  mutex_unlock (&x->mutex);
  return ret;
}

struct export *
exports_get (struct exports *x, const char *name)
{
  struct export *e = NULL;
  unsigned i;

  mutex_lock (&x->mutex);
  i = find_locked (x, name);
  if (is_at_locked (x, i, name)) {
    e = x->export[i];
    export_hold (e);
  }
  mutex_unlock (&x->mutex);
  return e;
}

struct export *
exports_next (struct exports *x, struct export *prev)
{
  struct export *e = NULL;
  unsigned i = 0;

  mutex_lock (&x->mutex);
  if (prev) {
    i = find_locked (x, export_name (prev));
    i += is_at_locked (x, i, export_name (prev));
  }
  if (i < x->n) {
    e = x->export[i];
    export_hold (e);
  }
  mutex_unlock (&x->mutex);
  if (prev)
    export_release (prev);
  return e;
}

void
exports_remove (struct exports *x, struct export *e)
{
  unsigned i;

  mutex_lock (&x->mutex);
  i = find_locked (x, export_name (e));
  if (i < x->n && x->export[i] == e) {
    x->n--;
    memmove (&x->export[i], &x -> export[i + 1], (x->n - i) * sizeof (struct export *));
  }
  mutex_unlock (&x->mutex);
  export_release (e);
}

unsigned
exports_count (struct exports *x)
{
  unsigned n;

  mutex_lock (&x->mutex);
  n = x->n;
  mutex_unlock (&x->mutex);
  return n;
}
