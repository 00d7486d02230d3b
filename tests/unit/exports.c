/* SPDX-License-Identifier: BSD-3-Clause
 *
 * exports.c - tests of lib/exports.c: a table of names, compared with a list; and who has one though it is gone.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "lib/export.h"
#include "lib/exports.h"
#include "tests/random.h"
#include "tests/scratch.h"

#include "devices.h"

enum { NNAMES = 60, STEPS = 20000, NTHREADS = 4 };

static struct drum *d;
static struct exports *table;

static void
setup (void)
{
  scratch_setup ();
  d = drum_make (16);
  drum_add_file (d, "a", 0, 100);
  cr_assert_eq (exports_create (&table), 0);
}

static void
teardown (void)
{
  exports_destroy (table);
  drum_destroy (d);
  scratch_teardown ();
}

TestSuite (exports, .init = setup, .fini = teardown, .timeout = 120);

static struct export *
make (const char *name)
{
  struct export_config config = { .name = name, .size_bytes = PAGE_BYTES, .checksum = true };
  struct export *e;

  cr_assert_eq (export_create (d, &config, &e), 0);
  return e;
}

Test (exports, empty)
{
  cr_assert_null (exports_get (table, ""));
  cr_assert_null (exports_next (table, NULL));
  cr_assert_eq (exports_count (table), 0);
}

/* Of one name there is one; the other is still the caller's. */
Test (exports, a_name_is_there_once)
{
  struct export *one = make (""), *two = make (""), *found;

  cr_assert_eq (exports_add (table, one), 0);
  cr_assert_eq (exports_add (table, two), -EEXIST);
  found = exports_get (table, "");
  cr_assert_eq (found, one);
  export_release (found);
  exports_remove (table, two); /* is not there, and so only let go of */
  cr_assert_eq (exports_count (table), 1);
}

/* Who has one has it until he lets go of it, in the table or not. */
Test (exports, outlive_their_removal)
{
  struct export *e;

  cr_assert_eq (exports_add (table, make ("a")), 0);
  e = exports_get (table, "a");
  exports_remove (table, e);
  cr_assert_null (exports_get (table, "a"));
  cr_assert_str_eq (export_name (e), "a");
  cr_assert_eq (exports_add (table, make ("a")), 0);
  export_release (e);
  cr_assert_eq (exports_count (table), 1);
}

/* A walk sees those that are there all the time, whatever goes meanwhile, also the one where it stands. */
Test (exports, walk_while_they_go)
{
  struct export *e = NULL;
  unsigned n = 0;

  for (unsigned i = 0; i < 10; i++)
    cr_assert_eq (exports_add (table, make (str ("%u", i))), 0);
  while ((e = exports_next (table, e))) {
    cr_assert_str_eq (export_name (e), str ("%u", n));
    exports_remove (table, e);
    n++;
  }
  cr_assert_eq (n, 10);
  cr_assert_eq (exports_count (table), 0);
}

/* ---- at random ---- */

/* Some are a part of others, and not all are letters. */
static char *
name_of (unsigned i)
{
  static const char *const parts[] = { "", "a", "ab", "b", "\xc3\xb6", "-", "A", "host" };

  return str ("%s%s", parts[i % 8], i < 8 ? "" : str ("%u", i));
}

static int
compare (const void *a, const void *b)
{
  return strcmp (*(char *const *) a, *(char *const *) b);
}

static void
check_table (struct export *const in[NNAMES], char *const names[NNAMES])
{
  char *there[NNAMES];
  struct export *e = NULL;
  unsigned n = 0, i = 0;

  for (unsigned k = 0; k < NNAMES; k++) {
    struct export *found = exports_get (table, names[k]);

    cr_assert_eq (found, in[k], "\"%s\"", names[k]);
    if (found)
      export_release (found);
    if (in[k])
      there[n++] = names[k];
  }
  cr_assert_eq (exports_count (table), n);
  qsort (there, n, sizeof (char *), compare);
  while ((e = exports_next (table, e))) {
    cr_assert_lt (i, n);
    cr_assert_str_eq (export_name (e), there[i++]);
  }
  cr_assert_eq (i, n);
}

Test (exports, like_a_list)
{
  struct export *in[NNAMES] = { NULL };
  struct rng rng = rng_for (1);
  char *names[NNAMES];

  for (unsigned k = 0; k < NNAMES; k++)
    names[k] = name_of (k);
  for (unsigned i = 0; i < random_steps (STEPS); i++) {
    unsigned k = (unsigned) rng_below (&rng, NNAMES);

    if (in[k] && rng_below (&rng, 2)) {
      exports_remove (table, in[k]);
      in[k] = NULL;
    } else if (!in[k])
      cr_assert_eq (exports_add (table, in[k] = make (names[k])), 0);
    if (i % 50 == 0)
      check_table (in, names);
  }
  check_table (in, names);
}

static atomic_uint nwrong;

/* Gets some, walks, and adds and removes its own. */
static void *
walker_main (void *arg)
{
  struct rng rng = rng_for ((uintptr_t) arg);
  char name[] = { 'k', (char) ('0' + (uintptr_t) arg), 0 };
  struct export_config config = { .name = name, .size_bytes = PAGE_BYTES, .checksum = true };

  for (unsigned i = 0; i < random_steps (STEPS / 10); i++) {
    struct export *e = NULL, *mine;
    char last[8] = "";

    if (export_create (d, &config, &mine) < 0 || exports_add (table, mine) < 0) {
      atomic_fetch_add (&nwrong, 1);
      return NULL;
    }
    while ((e = exports_next (table, e))) {
      if (strcmp (export_name (e), last) <= 0)
        atomic_fetch_add (&nwrong, 1);
      strcpy (last, export_name (e));
      if (rng_below (&rng, 4) == 0) {
        export_release (e);
        break;
      }
    }
    e = exports_get (table, name);
    if (e != mine)
      atomic_fetch_add (&nwrong, 1);
    exports_remove (table, mine);
    if (e)
      export_release (e);
  }
  return NULL;
}

Test (exports, from_many_threads)
{
  pthread_t thread[NTHREADS];

  cr_assert_eq (exports_add (table, make ("a")), 0);
  cr_assert_eq (exports_add (table, make ("z")), 0);
  for (uintptr_t i = 0; i < NTHREADS; i++)
    cr_assert_eq (pthread_create (&thread[i], NULL, walker_main, (void *) i), 0);
  for (unsigned i = 0; i < NTHREADS; i++)
    pthread_join (thread[i], NULL);
  cr_assert_eq (atomic_load (&nwrong), 0);
  cr_assert_eq (exports_count (table), 2);
}
