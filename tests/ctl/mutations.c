/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mutations.c - replies that were cut, and changed at random: drumctl may print them or say that they make no sense, and
 * nothing else. Worth most with --enable-sanitizer=address.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/random.h"
#include "tests/scratch.h"

#include "fake.h"
#include "run.h"

static struct fake_reply replies[3];

static void
setup_canned (void)
{
  setup ();
  fake_start (replies);
}

TestSuite (mutations, .init = setup_canned, .fini = scratch_teardown, .timeout = 600);

/* A few bytes are replaced by such as mean something in JSON, or a part is left out or said twice. */
static void
mutate (struct rng *rng, char *text)
{
  static const char *const bits[] = { "0",
                                      "-",
                                      "9999999999999999999",
                                      "1e400",
                                      "null",
                                      "{}",
                                      "[]",
                                      "\"",
                                      ",",
                                      "\\u0000",
                                      "\xff",
                                      "true",
                                      "-1",
                                      "[[[[[[[[",
                                      "{",
                                      "}}",
                                      "18446744073709551615" };
  unsigned n = 1 + (unsigned) rng_below (rng, 3);

  while (n--) {
    size_t len = strlen (text), at = rng_below (rng, len),
           cut = rng_below (rng, 2) ? rng_below (rng, 40) : 1;
    const char *bit = bits[rng_below (rng, sizeof bits / sizeof bits[0])];
    char *rest = str ("%s", text + (at + cut < len ? at + cut : len));

    if (rng_below (rng, 4) == 0)
      bit = "";
    sprintf (text + at, "%s%s", bit, rest);
  }
}

static void
expect_sane (const char *const *args)
{
  struct result r = run_drumctl (args);

  cr_assert (r.status == 0 || r.status == 1, "%s ends with %d after this reply:\n%s\n%s", args[0],
             r.status, replies[0].text, r.err);
  cr_assert (r.status == 0 || *r.err, "%s says nothing after this reply:\n%s", args[0],
             replies[0].text);
}

static const char *const *const verbs[] = {
  ARGS ("list", "-o", "+UUID,USE%"),
  ARGS ("status"),
  ARGS ("watch", "--count", "1"),
  ARGS ("jobs", "-o", "+DONE%"),
  ARGS ("metrics"),
  ARGS ("watch", "--count", "1", "--json"),
  ARGS ("status", "--json"),
  ARGS ("exports"),
  ARGS ("exports", "--json", "-o", "+USE%,TEMPLATE,BANDWIDTH,EXCLUSIVE"),
};

enum { NVERBS = sizeof verbs / sizeof verbs[0] };

Test (mutations, status)
{
  struct rng rng = rng_for (1);
  char *status = fake_canned ("status.json"), *text = malloc (2 * strlen (status));

  for (unsigned i = random_steps (300); i > 0; i--) {
    strcpy (text, status);
    mutate (&rng, text);
    replies[0] = (struct fake_reply){ .text = text };
    expect_sane (verbs[rng_below (&rng, NVERBS)]);
  }
}

Test (mutations, map)
{
  struct rng rng = rng_for (2);
  char *map = fake_canned ("map.json"), *text = malloc (2 * strlen (map) + 1024);

  for (unsigned i = random_steps (150); i > 0; i--) {
    strcpy (text, map);
    mutate (&rng, text);
    replies[0] = (struct fake_reply){ .text = text };
    expect_sane (i % 2 ? ARGS ("map") : ARGS ("map", "--svg", "-"));
  }
}

Test (mutations, job)
{
  static const char job[] =
    "{\"version\":1,\"ok\":true,\"job\":{\"id\":3,\"kind\":\"remove\",\"device\":\"/srv/b\","
    "\"state\":\"failed\",\"done\":4096,\"total\":8192,\"rate\":7,\"seconds\":2.5,\"unreadable\":"
    "17,"
    "\"lost\":1,\"error\":\"/srv/b: no\",\"warnings\":[\"w\"],\"unreadable_pages\":["
    "{\"export\":\"\",\"page\":17},{\"export\":\"vm\",\"page\":3}]}}";
  struct rng rng = rng_for (3);
  char *text = malloc (4096);

  for (unsigned i = random_steps (150); i > 0; i--) {
    strcpy (text, job);
    mutate (&rng, text);
    /* One that still runs must not run for ever. */
    replies[0] = (struct fake_reply){ .text = text, .once = true };
    replies[1] = (struct fake_reply){ .text = job };
    expect_sane (ARGS ("wait", "3"));
  }
}

/* Cut anywhere, whether a newline follows or not. */
Test (mutations, cuts)
{
  struct rng rng = rng_for (4);
  char *status = fake_canned ("status.json");
  size_t len = strlen (status);

  for (unsigned i = random_steps (100); i > 0; i--) {
    size_t cut = rng_below (&rng, len - 2);

    replies[0] = (struct fake_reply){ .text = str ("%.*s", (int) cut, status), .hangs_up = i % 2 };
    expect (verbs[rng_below (&rng, NVERBS)], 1, "", "drumctl: ");
  }
}
