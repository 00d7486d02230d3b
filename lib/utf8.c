/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "utf8.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

unsigned
utf8_char (const char *text)
{
  const unsigned char *p = (const unsigned char *) text;
  unsigned n = p[0] < 0x80   ? 1
               : p[0] < 0xc2 ? 0
               : p[0] < 0xe0 ? 2
               : p[0] < 0xf0 ? 3
               : p[0] < 0xf5 ? 4
                             : 0;
  uint32_t code = n > 1 ? p[0] & 0x7f >> n : p[0];

  for (unsigned i = 1; i < n; i++) {
    if ((p[i] & 0xc0) != 0x80)
      return 0;
    code = code << 6 | (p[i] & 0x3f);
  }
  /* overlong, a surrogate, or beyond the last */
  if ((n == 3 && code < 0x800) || (n == 4 && (code < 0x10000 || code > 0x10ffff)) ||
      (code >= 0xd800 && code < 0xe000))
    return 0;
  return n;
}

bool
utf8_is_valid (const char *text)
{
  unsigned n = 1;

  while (*text && (n = utf8_char (text)) > 0)
    text += n;
  return n > 0;
}

bool
utf8_is_control (const char *text)
{
  const unsigned char *p = (const unsigned char *) text;

  return p[0] < ' ' || p[0] == 0x7f || (p[0] == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0);
}

void
utf8_escape (const char *text, char *to, size_t room)
{
  while (*text) {
    unsigned n = utf8_char (text);
    bool plain = n > 0 && !utf8_is_control (text);
    size_t len = plain ? n : strlen ("\\xNN");

    if (len >= room)
      break;
    if (plain)
      memcpy (to, text, n);
    else
      snprintf (to, room, "\\x%02x", (unsigned char) *text);
    text += plain ? n : 1;
    to += len;
    room -= len;
  }
  *to = '\0';
}

size_t
utf8_prefix (const char *text, size_t max)
{
  size_t len = strnlen (text, max);

  while (len > 0 && ((unsigned char) text[len] & 0xc0) == 0x80)
    len--;
  return len;
}
