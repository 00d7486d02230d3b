/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "nbduri.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lib/log.h"

#define FORMS        "write nbd://HOST[:PORT]/NAME or nbd+unix:///NAME?socket=PATH"
#define DEFAULT_PORT "10809"

/* A part of a URI that is being read. */
struct span {
  const char *at;
  size_t len;
};

static struct span
span_of (const char *text)
{
  return (struct span){ text, strlen (text) };
}

/* Split at the first c: *head is what comes before, and *rest what comes after. False if there is none: *head is all. */
static bool
split (struct span s, char c, struct span *head, struct span *rest)
{
  const char *at = s.len ? memchr (s.at, c, s.len) : NULL;

  *head = s;
  *rest = (struct span){ s.at + s.len, 0 };
  if (!at)
    return false;
  head->len = (size_t) (at - s.at);
  *rest = (struct span){ at + 1, s.len - head->len - 1 };
  return true;
}

static int
hex_value (char c)
{
  return isdigit ((unsigned char) c) ? c - '0' : (c | 32) - 'a' + 10;
}

/* With %XX undone, into buf. False if it does not fit, or would hold a zero byte. */
static bool
decode (struct span s, char *buf, size_t size)
{
  size_t n = 0;

  for (size_t i = 0; i < s.len; i++) {
    char c = s.at[i];

    if (c == '%') {
      if (s.len - i < 3 || !isxdigit ((unsigned char) s.at[i + 1]) ||
          !isxdigit ((unsigned char) s.at[i + 2]))
        return false;
      c = (char) (hex_value (s.at[i + 1]) << 4 | hex_value (s.at[i + 2]));
      i += 2;
    }
    if (c == '\0' || n + 1 == size)
      return false;
    buf[n++] = c;
  }
  buf[n] = '\0';
  return true;
}

static bool
is_port (const char *port)
{
  char *end;
  unsigned long number = strtoul (port, &end, 10);

  return isdigit ((unsigned char) *port) && !*end && number >= 1 && number <= 65535;
}

/* HOST, HOST:PORT, [ADDRESS] or [ADDRESS]:PORT */
static const char *
parse_authority (struct span s, struct nbduri *uri)
{
  struct span host, port, between;
  bool has_port;

  if (s.len && s.at[0] == '[') {
    if (!split ((struct span){ s.at + 1, s.len - 1 }, ']', &host, &port))
      return "has [ and no ]";
    has_port = split (port, ':', &between, &port);
    if (between.len)
      return "has something between ] and the port";
  } else {
    has_port = split (s, ':', &host, &port);
  }
  if (!host.len || !decode (host, uri->host, sizeof uri->host))
    return "has no host, or one that is none";
  if (!has_port || !port.len)
    port = span_of (DEFAULT_PORT);
  if (!decode (port, uri->port, sizeof uri->port) || !is_port (uri->port))
    return "has a port that is not a number from 1 to 65535";
  return NULL;
}

/* KEY=VALUE&..., of which only socket= means anything. */
static const char *
parse_query (struct span query, struct nbduri *uri)
{
  struct span item, key, value;

  while (query.len) {
    split (query, '&', &item, &query);
    split (item, '=', &key, &value);
    if (key.len != strlen ("socket") || memcmp (key.at, "socket", key.len) != 0)
      return "has a parameter other than socket=";
    if (!value.len || !decode (value, uri->path, sizeof uri->path))
      return "has a socket= that is empty, too long or badly written";
  }
  return NULL;
}

static bool
begins (struct span s, const char *with, struct span *rest)
{
  size_t len = strlen (with);

  if (s.len < len || strncasecmp (s.at, with, len) != 0)
    return false;
  *rest = (struct span){ s.at + len, s.len - len };
  return true;
}

/* What is wrong with it; NULL: nothing. */
static const char *
parse (const char *text, struct nbduri *uri)
{
  struct span rest, authority, path, query;
  bool is_unix = begins (span_of (text), "nbd+unix://", &rest);
  const char *wrong;

  if (!is_unix && (begins (span_of (text), "nbds", &rest)))
    return "asks for TLS, which the kernel's NBD client has not";
  if (!is_unix && !begins (span_of (text), "nbd://", &rest))
    return "is not a URI of NBD";
  split (rest, '?', &rest, &query);
  split (rest, '/', &authority, &path);
  if (!decode (path, uri->name, sizeof uri->name))
    return "has an export name that is too long or badly written";
  wrong = parse_query (query, uri);
  if (wrong)
    return wrong;
  if (is_unix && (authority.len || !*uri->path))
    return authority.len ? "has a host, and a unix socket" : "has no socket=";
  if (!is_unix && *uri->path)
    return "has a socket=, which is nbd+unix's";
  return is_unix ? NULL : parse_authority (authority, uri);
}

int
nbduri_parse (const char *text, struct nbduri *uri)
{
  struct nbduri found = { .host = "" };
  const char *wrong = parse (text, &found);

  if (wrong) {
    log_error ("%s: %s; " FORMS, text, wrong);
    return -EINVAL;
  }
  *uri = found;
  return 0;
}
