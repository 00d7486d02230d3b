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
#include "lib/swapdev.h"

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
