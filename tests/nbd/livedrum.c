/* SPDX-License-Identifier: BSD-3-Clause
 *
 * livedrum.c - one server that is changed while it runs.
 */
#include <config.h>

#include "livedrum.h"

#include <time.h>
#include <unistd.h>

#include <criterion/criterion.h>

enum { MAX_PARAMS = 16 };

struct server srv;
struct nbd_handle *nbd;
int control;
const char *a, *b;

void
livedrum_setup (void)
{
  dev_setup ();
  if (!server_is_drum ())
    cr_skip_test ("only the drum has devices that come and go, and counts");
  a = dev_path ("a");
  b = dev_path ("b");
}

void
livedrum_teardown (void)
{
  if (srv.pid)
    livedrum_stop ();
  dev_teardown ();
}

void
livedrum_serve (const struct server_options *options)
{
  struct server_options with_control = *options;
  const char *params[MAX_PARAMS + 2] = { NULL };
  unsigned n = 0;

  for (; options->params[n]; n++) {
    cr_assert_lt (n, MAX_PARAMS);
    params[n] = options->params[n];
  }
  params[n] = control_param ();
  with_control.params = params;
  server_start (&srv, &with_control);
  control = control_open ();
  nbd = NULL;
}

void
livedrum_start_as (const struct server_options *options)
{
  livedrum_serve (options);
  nbd = client_open (&srv);
}

void
livedrum_start (const char *const *params)
{
  livedrum_start_as (&(struct server_options){ .params = params });
}

void
livedrum_stop (void)
{
  if (nbd)
    client_close (nbd);
  close (control);
  server_stop (&srv);
}

void
livedrum_kill (void)
{
  server_kill (&srv);
  nbd_close (nbd); /* may be NULL */
  close (control);
}

void
write_pages (unsigned first, unsigned end)
{
  for (unsigned page = first; page < end; page++)
    client_write_page (nbd, 1, 1, page);
}

void
expect_pages (unsigned first, unsigned end)
{
  for (unsigned page = first; page < end; page++)
    client_expect_page (nbd, 1, 1, page);
}

double
seconds_now (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}
