/* SPDX-License-Identifier: BSD-3-Clause
 *
 * parse.c - tests of lib/parse.c: every spelling that is taken, and what the others are told.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/parse.h"
#include "lib/session.h"
#include "lib/swapdev.h"
#include "lib/terms.h"

#include "tests/random.h"

#include "logged.h"

#define LENGTH(array) (sizeof (array) / sizeof (array)[0])

TestSuite (parse, .init = logged_start);

/* A size is digits and at most one unit: powers of 1024 in either case, or sectors of 512. */
Test (parse, sizes)
{
  static const struct {
    const char *text;
    uint64_t bytes;
  } good[] = {
    { "0", 0 },
    { "4096", 4096 },
    { "007", 7 },
    { "5b", 5 },
    { "5B", 5 },
    { "64k", 65536 },
    { "64K", 65536 },
    { "3m", UINT64_C (3) << 20 },
    { "3M", UINT64_C (3) << 20 },
    { "1g", UINT64_C (1) << 30 },
    { "1G", UINT64_C (1) << 30 },
    { "2t", UINT64_C (2) << 40 },
    { "2T", UINT64_C (2) << 40 },
    { "1p", UINT64_C (1) << 50 },
    { "1P", UINT64_C (1) << 50 },
    { "7e", UINT64_C (7) << 60 },
    { "7E", UINT64_C (7) << 60 },
    { "3s", 1536 },
    { "9223372036854775807", INT64_MAX },
  };

  for (size_t i = 0; i < LENGTH (good); i++) {
    uint64_t bytes = 77;

    cr_assert_eq (parse_size ("size=", good[i].text, &bytes), 0, "%s", good[i].text);
    cr_assert_eq (bytes, good[i].bytes, "%s: %" PRIu64, good[i].text, bytes);
  }
  cr_assert_eq (logged_count (""), 0);
}

/* Anything else is refused, in one line that names the parameter and what was given. */
Test (parse, bad_sizes)
{
  static const char *const bad[] = {
    "",    " ",    "K",   "-1", "+1", " 1",   "1 ",  "1KK",
    "1KB", "1.5G", "0x1", "1,", "1z", "12 K", "one", "\xff",
  };

  for (size_t i = 0; i < LENGTH (bad); i++) {
    uint64_t bytes = 77;

    cr_assert_eq (parse_size ("limit=", bad[i], &bytes), -EINVAL, "\"%s\"", bad[i]);
    cr_assert_eq (bytes, 77, "output changed on failure");
    cr_assert_eq (logged_count (bad[i]), 1);
    assert_logged_error ("limit=");
  }
}

/* A size that 63 bits do not hold is refused as too large, not cut off. */
Test (parse, sizes_that_overflow)
{
  static const char *const large[] = {
    "8E",
    "9007199254740992K",
    "18014398509481984s",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999E",
  };

  for (size_t i = 0; i < LENGTH (large); i++) {
    uint64_t bytes = 77;

    cr_assert_eq (parse_size ("size=", large[i], &bytes), -EINVAL, "%s", large[i]);
    cr_assert_eq (bytes, 77);
    cr_assert_eq (logged_count ("too large"), 1);
    assert_logged_error ("size=");
  }
}

/* Numbers are taken within their limits, both of which belong to them. */
Test (parse, numbers)
{
  int value = 77;

  cr_assert_eq (parse_int ("prio=", "-1", -1, 32767, &value), 0);
  cr_assert_eq (value, -1);
  cr_assert_eq (parse_int ("prio=", "32767", -1, 32767, &value), 0);
  cr_assert_eq (value, 32767);
  cr_assert_eq (parse_int ("prio=", "0", -1, 32767, &value), 0);
  cr_assert_eq (value, 0);
}

/* What is no number, or beyond the limits, is refused in one line that says what they are. */
Test (parse, bad_numbers)
{
  static const char *const bad[] = {
    "", " 1", "1 ", "x", "1x", "-2", "--1", "0x5", "1.0", "32768", "99999999999999999999"
  };

  for (size_t i = 0; i < LENGTH (bad); i++) {
    int value = 77;

    cr_assert_eq (parse_int ("prio=", bad[i], -1, 32767, &value), -EINVAL, "\"%s\"", bad[i]);
    cr_assert_eq (value, 77);
    cr_assert_eq (logged_count ("from -1 to 32767"), 1);
    assert_logged_error ("prio=");
  }
}

/* A switch has eight spellings, in either case. */
Test (parse, switches)
{
  static const char *const yes[] = { "yes", "on", "true", "1", "YES", "On", "tRUE" };
  static const char *const no[] = { "no", "off", "false", "0", "NO", "oFF", "False" };
  bool value;

  for (size_t i = 0; i < LENGTH (yes); i++) {
    value = false;
    cr_assert_eq (parse_bool ("force=", yes[i], &value), 0, "%s", yes[i]);
    cr_assert (value, "%s", yes[i]);
    cr_assert_eq (parse_bool ("force=", no[i], &value), 0, "%s", no[i]);
    cr_assert_not (value, "%s", no[i]);
  }
}

/* Anything else is no switch. */
Test (parse, bad_switches)
{
  static const char *const bad[] = { "", "y", "n", "yes ", "2", "nope", "enabled" };

  for (size_t i = 0; i < LENGTH (bad); i++) {
    bool value = true;

    cr_assert_eq (parse_bool ("checksum=", bad[i], &value), -EINVAL, "\"%s\"", bad[i]);
    cr_assert (value);
    assert_logged_error ("checksum=");
  }
}

/* A lock has a third word. */
Test (parse, locks)
{
  static const struct {
    const char *text;
    enum memlock_mode mode;
  } good[] = { { "no", MEMLOCK_NO },  { "yes", MEMLOCK_YES },       { "0", MEMLOCK_NO },
               { "ON", MEMLOCK_YES }, { "strict", MEMLOCK_STRICT }, { "Strict", MEMLOCK_STRICT } };
  static const char *const bad[] = { "", "y", "stricter", "strict ", "2" };
  enum memlock_mode mode;

  for (size_t i = 0; i < LENGTH (good); i++) {
    mode = (enum memlock_mode) 77;
    cr_assert_eq (parse_lock ("lock=", good[i].text, &mode), 0, "%s", good[i].text);
    cr_assert_eq (mode, good[i].mode, "%s", good[i].text);
  }
  for (size_t i = 0; i < LENGTH (bad); i++) {
    mode = MEMLOCK_YES;
    cr_assert_eq (parse_lock ("lock=", bad[i], &mode), -EINVAL, "\"%s\"", bad[i]);
    cr_assert_eq (mode, MEMLOCK_YES);
    assert_logged_error ("is none of no, yes and strict");
  }
}

Test (parse, ios)
{
  static const struct {
    const char *text;
    enum rings_use use;
  } good[] = { { "auto", RINGS_AUTO }, { "uring", RINGS_ALWAYS }, { "Sync", RINGS_NEVER } };
  static const char *const bad[] = { "", "yes", "auto ", "io_uring" };
  enum rings_use use;

  for (size_t i = 0; i < LENGTH (good); i++) {
    use = (enum rings_use) 77;
    cr_assert_eq (parse_io ("io=", good[i].text, &use), 0, "%s", good[i].text);
    cr_assert_eq (use, good[i].use, "%s", good[i].text);
  }
  for (size_t i = 0; i < LENGTH (bad); i++) {
    use = RINGS_ALWAYS;
    cr_assert_eq (parse_io ("io=", bad[i], &use), -EINVAL, "\"%s\"", bad[i]);
    cr_assert_eq (use, RINGS_ALWAYS);
    assert_logged_error ("is none of auto, uring and sync");
  }
}

/* A device is a path with options in any order; two commas are one that belongs to the path. */
Test (parse, devices)
{
  static const struct {
    const char *text, *path;
    int prio;
    uint64_t bytes;
    unsigned maxio;
  } good[] = {
    { "/dev/sda", "/dev/sda", -1, 0, 0 },
    { "/a,prio=5", "/a", 5, 0, 0 },
    { "/a,prio=-1", "/a", -1, 0, 0 },
    { "/a,size=1M", "/a", -1, 1 << 20, 0 },
    { "/a,prio=32767,size=16K", "/a", 32767, 16384, 0 },
    { "/a,size=16K,prio=0", "/a", 0, 16384, 0 },
    { "/a,,b", "/a,b", -1, 0, 0 },
    { "/a,,,,b,,,prio=3", "/a,,b,", 3, 0, 0 },
    { ",,", ",", -1, 0, 0 },
    { ",,,prio=2", ",", 2, 0, 0 },
    { "prio=5", "prio=5", -1, 0, 0 },
    { "/a b=c", "/a b=c", -1, 0, 0 },
    { "/a,maxio=1", "/a", -1, 0, 1 },
    { "/a,maxio=65535,prio=2,size=16K", "/a", 2, 16384, 65535 },
  };

  for (size_t i = 0; i < LENGTH (good); i++) {
    struct swapdev_spec spec;

    memset (&spec, 0xff, sizeof spec);
    cr_assert_eq (parse_device (good[i].text, &spec), 0, "%s", good[i].text);
    cr_assert_str_eq (spec.path, good[i].path, "%s: %s", good[i].text, spec.path);
    cr_assert_eq (spec.prio, good[i].prio, "%s: %d", good[i].text, spec.prio);
    cr_assert_eq (spec.create_bytes, good[i].bytes, "%s", good[i].text);
    cr_assert_eq (spec.maxio, good[i].maxio, "%s", good[i].text);
    cr_assert_not (spec.force);
    free ((char *) spec.path);
  }
  cr_assert_eq (logged_count (""), 0);
}

/* What is wrong with a device is said in one line with the word that is to blame. */
Test (parse, bad_devices)
{
  static const struct {
    const char *text, *says;
  } bad[] = {
    { "", "path is empty" },
    { ",prio=1", "path is empty" },
    { "/a,", "\"\" is none of" },
    { "/a,prio=1,", "\"\" is none of" },
    { "/a,b", "\"b\" is none of" },
    { "/a,b,c", "/a: \"b\"" },
    { "/a,prio", "\"prio\" is none of" },
    { "/a,Prio=1", "\"Prio=1\" is none of" },
    { "/a,prio=", "prio=" },
    { "/a,prio=-2", "prio=" },
    { "/a,prio=32768", "prio=" },
    { "/a,size=", "size=" },
    { "/a,size=1x", "size=" },
    { "/a,size=0", "size= 0 is no size" },
    { "/a,size=9E", "size=" },
    { "/a,maxio=0", "maxio=" },
    { "/a,maxio=65536", "maxio=: \"65536\" is not a number from 1 to 65535" },
    { "/a,maxio=-1", "maxio=" },
    { "/a,maxio=", "maxio=" },
    { "/a,maxio", "\"maxio\" is none" },
    { "/a,maxio=2,maxio=2", "maxio= is given twice" },
    { "/a,prio=1,prio=1", "prio= is given twice" },
    { "/a,size=1M,prio=1,size=1M", "size= is given twice" },
    { NULL, NULL },
  };

  for (size_t i = 0; bad[i].text; i++) {
    struct swapdev_spec spec = { .path = "before", .prio = 77, .create_bytes = 78 };

    cr_assert_eq (parse_device (bad[i].text, &spec), -EINVAL, "%s", bad[i].text);
    cr_assert_str_eq (spec.path, "before", "output changed on failure");
    cr_assert (spec.prio == 77 && spec.create_bytes == 78, "output changed on failure");
    assert_logged_error (bad[i].says);
  }
}

/* A time is digits and at most one unit, seconds without one. */
Test (parse, times)
{
  static const struct {
    const char *text;
    uint64_t seconds;
  } good[] = {
    { "0", 0 },
    { "90", 90 },
    { "90s", 90 },
    { "15min", 900 },
    { "12h", 43200 },
    { "12H", 43200 },
    { "7d", 604800 },
    { "24855d", UINT64_C (24855) * 86400 },
    { "2147483647", INT32_MAX },
  };
  static const char *const bad[] = { "",    " ",  "h",    "-1", "+1",   " 1",  "1 ",   "1 h",  "1m",
                                     "1hh", "1w", "1.5h", "1,", "1h2s", "0x1", "\xff", "never" };
  static const char *const large[] = { "24856d", "2147483648", "35791395min",
                                       "18446744073709551616", "213503982334602d" };
  uint64_t seconds = 77;

  for (size_t i = 0; i < LENGTH (good); i++) {
    cr_assert_eq (parse_time ("expire=", good[i].text, &seconds), 0, "%s", good[i].text);
    cr_assert_eq (seconds, good[i].seconds, "%s: %" PRIu64, good[i].text, seconds);
  }
  seconds = 77;
  for (size_t i = 0; i < LENGTH (bad); i++) {
    cr_assert_eq (parse_time ("expire=", bad[i], &seconds), -EINVAL, "\"%s\"", bad[i]);
    assert_logged_error ("expire=");
  }
  for (size_t i = 0; i < LENGTH (large); i++) {
    cr_assert_eq (parse_time ("expire=", large[i], &seconds), -EINVAL, "%s", large[i]);
    assert_logged_error ("too long");
  }
  cr_assert_eq (seconds, 77, "output changed on failure");
}

static void
expect_terms (const char *text, const struct export_terms *is, const struct export_terms *want)
{
  cr_expect_eq (is->reserve_bytes, want->reserve_bytes, "%s: %" PRIu64, text, is->reserve_bytes);
  cr_expect_eq (is->limit_bytes, want->limit_bytes, "%s: %" PRIu64, text, is->limit_bytes);
  cr_expect_eq (is->weight, want->weight, "%s: %u", text, is->weight);
  cr_expect_eq (is->iops, want->iops, "%s: %" PRIu64, text, is->iops);
  cr_expect_eq (is->bandwidth, want->bandwidth, "%s: %" PRIu64, text, is->bandwidth);
  cr_expect_eq (is->exclusive, want->exclusive, "%s", text);
}

/* An export is a name with a size, and terms in any order; who does not name one gets none, and a weight of 100. */
Test (parse, exports)
{
  static const struct {
    const char *text, *name;
    uint64_t bytes;
    struct export_terms terms;
  } good[] = {
    { "host7,size=1G", "host7", 1 << 30, { .weight = 100 } },
    { "a,,b,,,size=4K", "a,b,", 4096, { .weight = 100 } },
    { "size=1G,size=8K", "size=1G", 8192, { .weight = 100 } },
    { "/a/b c@d.e@f,size=4096", "/a/b c@d.e@f", 4096, { .weight = 100 } },
    { "\xc3\xa4\xe2\x82\xac\xf0\x9f\x90\x91,size=4096",
      "\xc3\xa4\xe2\x82\xac\xf0\x9f\x90\x91",
      4096,
      { .weight = 100 } },
    { "a,size=8s", "a", 4096, { .weight = 100 } },
    { "a,limit=0,reserve=0,iops=0,bandwidth=0,size=4K", "a", 4096, { .weight = 100 } },
    { "a,size=8M,reserve=2M,limit=4M,weight=10000,iops=2147483647,bandwidth=5,exclusive=yes",
      "a",
      8 << 20,
      { 2 << 20, 4 << 20, 10000, INT32_MAX, 5, true } },
    { "a,exclusive=no,bandwidth=1M,iops=1,weight=1,limit=8K,reserve=8K,size=8K",
      "a",
      8192,
      { 8192, 8192, 1, 1, 1 << 20, false } },
    { "a,size=4K,limit=1G", "a", 4096, { .limit_bytes = 1 << 30, .weight = 100 } },
  };

  for (size_t i = 0; i < LENGTH (good); i++) {
    struct export_spec spec;

    memset (&spec, 0xff, sizeof spec);
    cr_assert_eq (parse_export (good[i].text, &spec), 0, "%s: %s", good[i].text, logged_last ());
    cr_expect_str_eq (spec.name, good[i].name, "%s: %s", good[i].text, spec.name);
    cr_expect_eq (spec.size_bytes, good[i].bytes, "%s", good[i].text);
    expect_terms (good[i].text, &spec.terms, &good[i].terms);
    free (spec.name);
  }
  cr_assert_eq (logged_count (""), 0);
}

/* A template is the same with a pattern, for one client at a time unless it says otherwise, and two options of its own. */
Test (parse, templates)
{
  static const struct {
    const char *text, *name;
    uint64_t bytes;
    struct export_terms terms;
    unsigned max;
    uint64_t expire;
  } good[] = {
    { "host-*,size=1G", "host-*", 1 << 30, { .weight = 100, .exclusive = true }, 0, 0 },
    { "[a-f0-9]?,,*,size=1G,exclusive=no", "[a-f0-9]?,*", 1 << 30, { .weight = 100 }, 0, 0 },
    { "*,size=8K,max=30,expire=7d,reserve=4K",
      "*",
      8192,
      { .reserve_bytes = 4096, .weight = 100, .exclusive = true },
      30,
      604800 },
    { "*,expire=never,max=0,size=8K", "*", 8192, { .weight = 100, .exclusive = true }, 0, 0 },
    { "*,expire=Never,size=8K", "*", 8192, { .weight = 100, .exclusive = true }, 0, 0 },
    { "*,expire=60,size=8K", "*", 8192, { .weight = 100, .exclusive = true }, 0, 60 },
  };

  for (size_t i = 0; i < LENGTH (good); i++) {
    struct export_template t;

    memset (&t, 0xff, sizeof t);
    cr_assert_eq (parse_template (good[i].text, &t), 0, "%s: %s", good[i].text, logged_last ());
    cr_expect_str_eq (t.spec.name, good[i].name, "%s: %s", good[i].text, t.spec.name);
    cr_expect_eq (t.spec.size_bytes, good[i].bytes, "%s", good[i].text);
    expect_terms (good[i].text, &t.spec.terms, &good[i].terms);
    cr_expect_eq (t.max, good[i].max, "%s: %u", good[i].text, t.max);
    cr_expect_eq (t.expire, good[i].expire, "%s: %" PRIu64, good[i].text, t.expire);
    free (t.spec.name);
  }
  cr_assert_eq (logged_count (""), 0);
}

/* What is wrong with an export, or a template, is said in one line with its name and the word that is to blame. */
Test (parse, bad_exports)
{
  static const struct {
    const char *text, *says;
  } bad[] = {
    { "", " is empty: " },
    { ",size=1G", " is empty: " },
    { "a", "\"a\": its size is not given" },
    { "a,", "\"\" is none of" },
    { "a,size=0", "\"a\": its size is not given, or is 0" },
    { "a,reserve=4K", "size is not given" },
    { "a,size=", "\"a\": size=" },
    { "a,size=1x", "\"a\": size=" },
    { "a,size=9E", "\"a\": size=" },
    { "a,size=4097", "\"a\": size=: 4097 is not a multiple of 4096" },
    { "a,size=8K,reserve=1K", "reserve=: 1K is not a multiple" },
    { "a,size=8K,limit=1s", "limit=: 1s is not a multiple" },
    { "a,size=8K,reserve=12K", "reserve= is 12288 bytes, and its size only 8192" },
    { "a,limit=4K,size=8K,reserve=8K", "reserve= is 8192 bytes, and its limit= only 4096" },
    { "a,size=8K,weight=0", "weight=: \"0\" is not a number from 1 to 10000" },
    { "a,size=8K,weight=10001", "weight=" },
    { "a,size=8K,iops=-1", "iops=" },
    { "a,size=8K,iops=2147483648", "iops=" },
    { "a,size=8K,bandwidth=-1", "bandwidth=" },
    { "a,size=8K,bandwidth=1/s", "bandwidth=" },
    { "a,size=8K,exclusive=", "exclusive=" },
    { "a,size=8K,exclusive", "\"exclusive\" is none of" },
    { "a,size=8K,Size=8K", "\"Size=8K\" is none of" },
    { "a,size=8K,size=8K", "\"a\": size= is given twice" },
    { "a,size=8K,exclusive=no,exclusive=no", "exclusive= is given twice" },
    { "a,b,size=8K", "\"b\" is none of size=SIZE" },
    { "x@host.1,size=8K", "\"x@host.1\": the name ends like @ID.EPOCH" },
  };

  for (size_t i = 0; i < LENGTH (bad); i++) {
    struct export_spec spec = { .name = (char *) "before", .size_bytes = 78 };
    struct export_template t = { .spec = spec };

    cr_assert_eq (parse_export (bad[i].text, &spec), -EINVAL, "%s", bad[i].text);
    cr_assert (strncmp (logged_last (), "export \"", 8) == 0, "%s", logged_last ());
    assert_logged_error (bad[i].says);
    cr_assert_eq (parse_template (bad[i].text, &t), -EINVAL, "%s", bad[i].text);
    cr_assert (strncmp (logged_last (), "template \"", 10) == 0, "%s", logged_last ());
    assert_logged_error (bad[i].says);
    cr_assert_str_eq (spec.name, "before", "output changed on failure");
    cr_assert_str_eq (t.spec.name, "before", "output changed on failure");
    cr_assert (spec.size_bytes == 78 && t.spec.size_bytes == 78, "output changed on failure");
  }
}

/* What only one of the two knows. */
Test (parse, bad_templates)
{
  static const struct {
    const char *text, *says;
  } bad[] = {
    { "a,size=8K,max=-1", "\"a\": max=" },
    { "a,size=8K,max=2147483648", "max=" },
    { "a,size=8K,max=1,max=1", "max= is given twice" },
    { "a,size=8K,expire=", "expire=" },
    { "a,size=8K,expire=0", "expire=: 0 is no time" },
    { "a,size=8K,expire=0d", "or never" },
    { "a,size=8K,expire=never,expire=1d", "twice" },
    { "a,size=8K,expire=100000d", "too long" },
    { "a,size=8K,expire=nevermore", "expire=" },
  };
  struct export_template t = { .max = 77 };
  struct export_spec spec;

  for (size_t i = 0; i < LENGTH (bad); i++) {
    cr_assert_eq (parse_template (bad[i].text, &t), -EINVAL, "%s", bad[i].text);
    assert_logged_error (bad[i].says);
  }
  cr_assert_eq (t.max, 77, "output changed on failure");
  cr_assert_eq (parse_export ("a,size=8K,max=1", &spec), -EINVAL);
  assert_logged_error ("\"max=1\" is none of");
  cr_assert_eq (parse_export ("a,size=8K,expire=1d", &spec), -EINVAL);
  assert_logged_error ("\"expire=1d\" is none of");
}

/* A name is what an NBD client can ask for without being taken for a session, and what a line of a log and JSON can carry. */
Test (parse, names)
{
  static const char *const good[] = {
    "a",
    " ",
    "/",
    "/srv/swap/a",
    "host7",
    "host-*",
    "52:54:00:12:34:56",
    "@",
    "a@b",
    "a@.1",
    "a@b.",
    "a@b.x",
    "a@b.1 ",
    "a@b@c",
    "a@b.1/c",
    "a@b c.1",
    "\"",
    "\\",
    "\xc2\xa0",
    "a@b.18446744073709551616",
  };
  static const struct {
    const char *name, *says;
  } bad[] = {
    { "", "\"\": the name is empty" },
    { "a\nb", "\"a\": here the name goes on with a control character" },
    { "\x1b[2J", "control character" },
    { "a\x7f", "control character" },
    { "a\xc2\x80", "control character" },
    { "a\xc2\x9f", "control character" },
    { "a\xff", "\"a\": here the name goes on with what is not UTF-8" },
    { "\xc3", "UTF-8" },
    { "\xed\xa0\x80", "UTF-8" },
    { "a@b.1", "@ID.EPOCH" },
    { "@b.1", "@ID.EPOCH" },
    { "a@b.1@c.2", "@ID.EPOCH" },
    { "a@b.18446744073709551615", "@ID.EPOCH" },
  };
  char name[EXPORT_NAME_MAX + 2];

  for (size_t i = 0; i < LENGTH (good); i++)
    cr_assert_eq (export_name_check (good[i]), 0, "%s: %s", good[i], logged_last ());
  memset (name, 'x', sizeof name);
  name[EXPORT_NAME_MAX] = 0;
  cr_assert_eq (export_name_check (name), 0, "%s", logged_last ());
  strcpy (name + EXPORT_NAME_MAX - 2, "\xe2\x82\xac"); /* half of it would fit */
  cr_assert_eq (export_name_check (name), -EINVAL);
  assert_logged_error ("x\": the name is longer than that, and may have 255 bytes");
  for (size_t i = 0; i < LENGTH (bad); i++) {
    cr_assert_eq (export_name_check (bad[i].name), -EINVAL, "%s", bad[i].name);
    assert_logged_error (bad[i].says);
  }
}

/* A template takes the names of its pattern, slashes and dots like any other, and no name that an export can't have. */
Test (parse, template_matches)
{
  static const struct {
    const char *pattern, *name;
    bool matches;
  } rows[] = {
    { "host-*", "host-7", true },
    { "host-*", "host-", true },
    { "host-*", "host7", false },
    { "host-*", "a host-7", false },
    { "host-?", "host-7", true },
    { "host-?", "host-77", false },
    { "*", "a", true },
    { "*", "a/b", true },
    { "*", ".a", true },
    { "[a-f]?", "b7", true },
    { "[a-f]?", "g7", false },
    { "a\\*", "a*", true },
    { "a\\*", "ab", false },
    { "*", "", false },
    { "*", "a\nb", false },
    { "*", "a\xff", false },
    { "*", "a@b.1", false },
    { "52:54:*", "52:54:00:12:34:56", true },
    { "Host-*", "host-7", false },
  };
  char name[EXPORT_NAME_MAX + 2];

  for (size_t i = 0; i < LENGTH (rows); i++) {
    struct export_template t = { .spec.name = (char *) rows[i].pattern };

    cr_expect_eq (template_matches (&t, rows[i].name), rows[i].matches, "%s, %s", rows[i].pattern,
                  rows[i].name);
  }
  memset (name, 'x', sizeof name);
  name[sizeof name - 1] = 0;
  cr_assert_not (template_matches (&(struct export_template){ .spec.name = (char *) "*" }, name),
                 "256 bytes");
  cr_assert_eq (logged_count (""), 0);
}

/* Bytes as they come, and words that belong to it in any order: what is taken is sound, and what is not is told why in one
 * line. */
Test (parse, random_exports, .timeout = 300)
{
  static const char *const words[] = {
    "size=",  "reserve=", "limit=", "weight=",  "iops=",   "bandwidth=", "exclusive=", "max=",
    "expire", "=",        ",",      ",",        ",,",      "a",          "host-*",     "@",
    ".",      "4K",       "1M",     "0",        "7",       "never",      "12h",        "yes",
    "no",     "\n",       "\xc3",   "\xc3\xa4", "size=4K", ",size=1M",
  };
  struct rng rng = rng_for (6);
  unsigned ngood = 0;

  for (unsigned step = 0; step < random_steps (200000); step++) {
    struct export_template t = { .max = 0 };
    struct session_name parsed;
    char text[512] = "";
    size_t len = 0;
    bool is_template = rng_below (&rng, 2);
    int ret;

    for (unsigned n = (unsigned) rng_below (&rng, 12); n > 0; n--)
      if (rng_below (&rng, 20) == 0)
        text[len++] = (char) (1 + rng_below (&rng, 255));
      else
        len = (size_t) (stpcpy (text + len, words[rng_below (&rng, LENGTH (words))]) - text);
    text[len] = 0;
    ret = is_template ? parse_template (text, &t) : parse_export (text, &t.spec);
    if (ret < 0) {
      cr_assert_eq (ret, -EINVAL);
      assert_logged_error (is_template ? "template \"" : "export \"");
      continue;
    }
    ngood++;
    cr_assert_eq (export_name_check (t.spec.name), 0, "%s", text);
    cr_assert_eq (session_parse (t.spec.name, &parsed), 0);
    cr_assert_str_eq (parsed.export, t.spec.name, "%s", text);
    cr_assert (t.spec.size_bytes > 0 && t.spec.size_bytes % 4096 == 0, "%s", text);
    cr_assert_leq (t.spec.terms.reserve_bytes, t.spec.size_bytes, "%s", text);
    cr_assert (t.spec.terms.limit_bytes == 0 ||
                 t.spec.terms.reserve_bytes <= t.spec.terms.limit_bytes,
               "%s", text);
    cr_assert (t.spec.terms.weight >= 1 && t.spec.terms.weight <= EXPORT_WEIGHT_MAX, "%s", text);
    free (t.spec.name);
  }
  cr_assert_gt (ngood, 0, "not one of them");
}
