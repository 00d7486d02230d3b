/* SPDX-License-Identifier: BSD-3-Clause
 *
 * utf8.c - tests of lib/utf8.c: RFC 3629 at its edges, and texts that are cut.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/utf8.h"

/* A text that begins with this code, and the bytes of that; as RFC 3629 has it but for what it forbids. */
static unsigned
encode (uint32_t code, char text[8])
{
  unsigned n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;

  memset (text, 0, 8);
  for (unsigned i = n; i-- > 1; code >>= 6)
    text[i] = (char) (0x80 | (code & 0x3f));
  text[0] = (char) (n == 1 ? code : (0xf00 >> n & 0xff) | code);
  text[n] = 'x';
  return n;
}

/* All there are, and those that are none: surrogates, and what is beyond U+10FFFF. */
Test (utf8, every_code)
{
  char text[8];

  for (uint32_t code = 1; code < 0x200000; code++) {
    unsigned n = encode (code, text);
    unsigned right = (code >= 0xd800 && code < 0xe000) || code > 0x10ffff ? 0 : n;

    if (utf8_char (text) != right || utf8_is_valid (text) != (right > 0)) /* asserts take time */
      cr_assert_fail ("U+%04X has %u bytes", code, utf8_char (text));
  }
}

/* A text that ends, or goes on with something else, within a character. */
Test (utf8, characters_that_break_off)
{
  static const uint32_t codes[] = { 0x80, 0x7ff, 0x800, 0xffff, 0x10000, 0x10ffff };
  static const char others[] = { '\0', 'x', '\x7f', '\xc0', '\xff' };

  for (unsigned i = 0; i < sizeof codes / sizeof codes[0]; i++) {
    char text[8];
    unsigned n = encode (codes[i], text);

    for (unsigned at = 1; at < n; at++)
      for (unsigned k = 0; k < sizeof others; k++) {
        char was = text[at];

        text[at] = others[k];
        cr_assert_eq (utf8_char (text), 0, "U+%04X, byte %u", codes[i], at);
        cr_assert_not (utf8_is_valid (text));
        text[at] = was;
      }
  }
}

/* The first byte may be none, and longer forms than are needed are none. */
Test (utf8, bytes_that_begin_nothing)
{
  static const char *const wrong[] = { "\x80",
                                       "\xbf",
                                       "\xc0\x80",
                                       "\xc1\xbf",
                                       "\xe0\x80\x80",
                                       "\xe0\x9f\xbf",
                                       "\xed\xa0\x80",
                                       "\xed\xbf\xbf",
                                       "\xf0\x80\x80",
                                       "\xf0\x8f\xbf\xbf",
                                       "\xf0\x80\x80\x80",
                                       "\xf4\x90\x80\x80",
                                       "\xf5\x80\x80\x80",
                                       "\xf8\x88\x80\x80\x80",
                                       "\xfc\x84\x80\x80\x80\x80",
                                       "\xfe",
                                       "\xff" };

  for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    cr_assert_eq (utf8_char (wrong[i]), 0, "%u", i);
    cr_assert_not (utf8_is_valid (wrong[i]), "%u", i);
  }
}

/* A whole text is as good as the worst in it. */
Test (utf8, whole_texts)
{
  cr_assert (utf8_is_valid (""));
  cr_assert (utf8_is_valid ("/srv/swap/a"));
  cr_assert (utf8_is_valid ("/srv/\xc3\xa4/\xe2\x82\xac/\xf0\x9f\xa5\x81"));
  cr_assert_not (utf8_is_valid ("/srv/\xc3\xa4/\xe2\x82"));
  cr_assert_not (utf8_is_valid ("/srv/\xe4/a"));
  cr_assert_not (utf8_is_valid ("\xff/srv"));
}

/* No more than what was asked for, and no part of a character. */
Test (utf8, prefixes)
{
  static const char text[] = "a\xc3\xa4"
                             "b\xe2\x82\xac"
                             "c\xf0\x9f\xa5\x81"
                             "d";
  static const size_t right[] = { 0, 1, 1, 3, 4, 4, 4, 7, 8, 8, 8, 8, 12, 13, 13, 13 };

  for (size_t max = 0; max < sizeof right / sizeof right[0]; max++)
    cr_assert_eq (utf8_prefix (text, max), right[max], "%zu: %zu", max, utf8_prefix (text, max));
  cr_assert_eq (utf8_prefix (text, SIZE_MAX), 13);
  cr_assert_eq (utf8_prefix ("", 64), 0);
}

static void
expect_escaped (const char *text, size_t room, const char *right)
{
  char *escaped = malloc (room);

  utf8_escape (text, escaped, room);
  cr_assert_str_eq (escaped, right);
  free (escaped);
}

/* What a terminal would obey and what is no character is to be seen; the rest is as it was, cut where the room ends. */
Test (utf8, escaped)
{
  expect_escaped ("/srv/\xc3\xa4\\ \xc2\xa0\xf0\x9f\xa5\x81", 64,
                  "/srv/\xc3\xa4\\ \xc2\xa0\xf0\x9f\xa5\x81");
  expect_escaped ("\x1b[31mred\nnbdkit\t\x7f", 64, "\\x1b[31mred\\x0anbdkit\\x09\\x7f");
  expect_escaped ("a\xc2\x80z\xc2\x9f", 64, "a\\xc2\\x80z\\xc2\\x9f");
  expect_escaped ("\xff\xe2\x82", 64, "\\xff\\xe2\\x82");
  expect_escaped ("", 1, "");
  for (size_t room = 1; room < 10; room++)
    expect_escaped ("a\nb\xc3\xa4z", room,
                    room < 2   ? ""
                    : room < 6 ? "a"
                    : room < 7 ? "a\\x0a"
                    : room < 9 ? "a\\x0ab"
                               : "a\\x0ab\xc3\xa4");
}
