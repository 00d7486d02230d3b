/* SPDX-License-Identifier: BSD-3-Clause
 *
 * server.h - a real nbdkit with the drum plugin, on a unix socket in the scratch folder.
 *
 * The plugin is $DRUM_PLUGIN, or the one in the build tree. If that has no slash (DRUM_PLUGIN=memory), it is one of
 * nbdkit's own: it gets size= for its only parameter, and the tests of contents must pass with it too.
 */
#ifndef DRUM_TESTS_SERVER_H
#define DRUM_TESTS_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct server_options {
  const char *const *params;  /* the plugin's, NULL at the end: see PARAMS */
  const char *const *options; /* nbdkit's own, NULL at the end: see PARAMS */
  unsigned threads;           /* requests at once on one connection; 0 is nbdkit's default, 16 */
  uint64_t memory_bytes;      /* size= when the plugin is one of nbdkit's own */
  const char *socket;         /* a socket of its own, for a second server */
  uid_t uid;                  /* run as this user, not as root */
  int stderr_fd;              /* its stderr, instead of a file */
  const char *faults;         /* its disks fail or are slow as this file says (faults.h) */
  const char *const
    *wrapper; /* what nbdkit is started by, NULL at the end; or NULL: see VALGRIND */
};

#define PARAMS(...) ((const char *const[]){ __VA_ARGS__, NULL })

/* Errors and leaks that it finds make the status 9, which server_stop does not take. nbdkit unloads the plugin before it ends, so
 * its names have to be kept. */
#define VALGRIND                                                                               \
  PARAMS ("valgrind", "-q", "--keep-debuginfo=yes", "--leak-check=full", "--error-exitcode=9", \
          "--errors-for-leak-kinds=definite", "--show-leak-kinds=definite")

struct server {
  pid_t pid;
  int pidfd;
  const char *socket;
  const char *stderr_path;
  int status; /* from waitpid, once it has ended */
};

bool server_is_drum (void); /* it gets io=$DRUM_TEST_IO, if that is set */
const char *server_plugin (void);
bool server_is_sanitized (void);

/* Start one and wait until it takes connections (true) or has ended (false). */
bool server_launch (struct server *srv, const struct server_options *options);

/* The same, and fail the test if it has ended. */
void server_start (struct server *srv, const struct server_options *options);

/* What a shell has to put before nbdkit's name: a sanitizer's runtime, if the plugin needs one. */
char *server_environment (void);

/* Stop it, as a service manager does, and fail the test unless it ends well: status 0, and no sanitizer's report. */
void server_stop (struct server *srv);

/* Wait for one that ends by itself or was killed. */
void server_reap (struct server *srv);

/* Kill it, unless that is done, wait, and remove the socket that it leaves. */
void server_kill (struct server *srv);

/* Start one that must refuse to, with status 1 and one line on stderr, and leave all below dev/ as it was.
 * Gives that line. */
char *server_refuses (const struct server_options *options);

/* All it has written to stderr so far. */
char *server_stderr (const struct server *srv);

/* Wait until it has written this to stderr. */
void server_wait_stderr (const struct server *srv, const char *text);

/* What its process has now. */
struct process {
  uint64_t rss_kib;
  unsigned nfds, nthreads; /* without the kernel's own */
};

struct process server_process (const struct server *srv);

/* Wait until it has so many of them: what is said to have ended may have a thread a moment longer. */
void server_settle (const struct server *srv, unsigned nfds, unsigned nthreads);

/* For dev_teardown: end what a failed test has left, and print its stderr. */
void server_kill_all (void);

#endif
