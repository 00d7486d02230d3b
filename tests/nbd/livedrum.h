/* SPDX-License-Identifier: BSD-3-Clause
 *
 * livedrum.h - one server that is changed while it runs: what the suites have in common that do so.
 *
 * Its control socket and one connection to its export are open from start to stop. The functions assert, and are for the
 * main thread.
 */
#ifndef DRUM_TESTS_LIVEDRUM_H
#define DRUM_TESTS_LIVEDRUM_H

#include "client.h"
#include "control.h"
#include "dev.h"
#include "server.h"

extern struct server srv;
extern struct nbd_handle *nbd;
extern int control;
extern const char *a, *b; /* the paths of two devices that most have */

/* dev_setup, for the drum alone. */
void livedrum_setup (void);

/* dev_teardown, with a stop before it where a server was started: instead of one at the end of each test. */
void livedrum_teardown (void);

/* Start the server with these of the plugin's parameters, or all these options, and control=; and stop it. */
void livedrum_start (const char *const *params);
void livedrum_start_as (const struct server_options *options);
void livedrum_stop (void);

/* The same without a client: nbd is NULL, unless the test opens one. */
void livedrum_serve (const struct server_options *options);

/* Kill it, unless that is done. */
void livedrum_kill (void);

/* These pages of the export, [first, end), one a request: their first version. */
void write_pages (unsigned first, unsigned end);
void expect_pages (unsigned first, unsigned end);

/* Since whenever. */
double seconds_now (void);

#endif
