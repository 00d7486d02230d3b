/* SPDX-License-Identifier: BSD-3-Clause
 *
 * run.h - run drumctl, to its end or hand in hand with it.
 */
#ifndef DRUM_TESTS_CTL_RUN_H
#define DRUM_TESTS_CTL_RUN_H

#include <stdbool.h>
#include <sys/types.h>

#define ARGS(...) ((const char *const[]){ __VA_ARGS__, NULL })

struct result {
  int status; /* that it exited with, or minus the signal that killed it */
  char *out, *err;
};

/* To its end, without a terminal. A sanitizer's report fails the test. */
struct result run_drumctl (const char *const *args);
#define RUN(...) run_drumctl (ARGS (__VA_ARGS__))

/* It must exit with status, say just this on standard output, and something that has all of err in it on standard error. */
void expect (const char *const *args, int status, const char *out, const char *err);

/* A shell command in which $DRUMCTL is drumctl. */
struct result run_shell (const char *command);

/* One that is under way. What it says on standard error comes with its output. */
struct session {
  pid_t pid;
  int fd;     /* its output, and on a terminal its keys */
  char *seen; /* all of it so far */
  size_t nseen;
};

/* On a terminal of this size; columns 0: on a pipe. */
void session_start (struct session *s, unsigned columns, unsigned lines, const char *const *args);

/* Wait until it has said text, since the last call. */
void session_expect (struct session *s, const char *text);

/* Wait for its end; its status, as above. */
int session_end (struct session *s);

/* What was printed must be what tests/ctl/golden/NAME has. DRUM_TEST_UPDATE=1: it becomes that. */
void expect_golden (const char *name, const char *text);

/* The same of what drumctl prints, and it says nothing else. */
void expect_table (const char *golden, const char *const *args);

/* Of every suite. */
void setup (void);

#endif
