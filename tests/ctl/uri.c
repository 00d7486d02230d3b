/* SPDX-License-Identifier: BSD-3-Clause
 *
 * uri.c - nbduri.c: what is taken, and what each mistake is called.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "ctl/nbduri.h"
#include "lib/log.h"
#include "tests/scratch.h"

static char logged[4096];

static void
to_text (enum log_level level, const char *fmt, va_list args)
{
  (void) level;
  vsnprintf (logged, sizeof logged, fmt, args);
}

static void
set_up (void)
{
  log_set_sink (to_text);
}

TestSuite (uri, .init = set_up, .timeout = 30);

static void
is (const char *text, const char *host, const char *port, const char *path, const char *name)
{
  struct nbduri uri;

  cr_assert_eq (nbduri_parse (text, &uri), 0, "%s: %s", text, logged);
  cr_assert_str_eq (uri.host, host, "%s: %s", text, uri.host);
  cr_assert_str_eq (uri.port, port, "%s: %s", text, uri.port);
  cr_assert_str_eq (uri.path, path, "%s: %s", text, uri.path);
  cr_assert_str_eq (uri.name, name, "%s: %s", text, uri.name);
}

Test (uri, tcp)
{
  is ("nbd://host", "host", "10809", "", "");
  is ("nbd://host/", "host", "10809", "", "");
  is ("NBD://host:1/a/b", "host", "1", "", "a/b");
  is ("nbd://host:/x", "host", "10809", "", "x");
  is ("nbd://10.0.0.1:65535/a%20b%2fc", "10.0.0.1", "65535", "", "a b/c");
  is ("nbd://[::1]/x", "::1", "10809", "", "x");
  is ("nbd://[fe80::1%25eth0]:7/", "fe80::1%eth0", "7", "", "");
}

Test (uri, unix_socket)
{
  is ("nbd+unix:///?socket=/run/s", "", "", "/run/s", "");
  is ("nbd+unix:///a?socket=/run/a%20b", "", "", "/run/a b", "a");
  is ("nbd+unix://?socket=s", "", "", "s", "");
}

static void
is_wrong (const char *text, const char *why)
{
  struct nbduri uri = { .host = "before" };

  cr_assert_eq (nbduri_parse (text, &uri), -EINVAL, "%s", text);
  cr_assert_str_eq (uri.host, "before", "output changed on failure");
  cr_assert (strstr (logged, why), "%s: no \"%s\" in: %s", text, why, logged);
}

Test (uri, wrong)
{
  is_wrong ("", "is not a URI of NBD");
  is_wrong ("host", "is not a URI of NBD");
  is_wrong ("http://host/", "is not a URI of NBD");
  is_wrong ("nbds://host/", "TLS");
  is_wrong ("nbds+unix:///?socket=s", "TLS");
  is_wrong ("nbd://", "no host");
  is_wrong ("nbd:///x", "no host");
  is_wrong ("nbd://:10809/x", "no host");
  is_wrong ("nbd://[::1/x", "no ]");
  is_wrong ("nbd://[::1]1/x", "between ]");
  is_wrong ("nbd://host:0/x", "has a port");
  is_wrong ("nbd://host:65536/x", "has a port");
  is_wrong ("nbd://host:x/x", "has a port");
  is_wrong ("nbd://host:-1/x", "has a port");
  is_wrong ("nbd://host:99999999/x", "has a port");
  is_wrong ("nbd://host/%", "badly written");
  is_wrong ("nbd://host/%4", "badly written");
  is_wrong ("nbd://host/%4g", "badly written");
  is_wrong ("nbd://host/%00", "badly written");
  is_wrong ("nbd://host/x?socket=s", "nbd+unix");
  is_wrong ("nbd://host/x?tls=1", "other than socket=");
  is_wrong ("nbd+unix:///x", "no socket=");
  is_wrong ("nbd+unix:///x?socket=", "empty");
  is_wrong ("nbd+unix://host/x?socket=s", "has a host");
}

Test (uri, long_parts)
{
  struct nbduri uri;

  scratch_setup ();
  cr_assert_eq (nbduri_parse (str ("nbd://h/%01023d", 1), &uri), 0);
  is_wrong (str ("nbd://h/%01024d", 1), "too long");
  cr_assert_eq (nbduri_parse (str ("nbd://%0255d/", 1), &uri), 0);
  is_wrong (str ("nbd://%0256d/", 1), "no host");
  cr_assert_eq (nbduri_parse (str ("nbd+unix:///?socket=%0107d", 1), &uri), 0);
  is_wrong (str ("nbd+unix:///?socket=%0108d", 1), "too long");
  scratch_teardown ();
}
