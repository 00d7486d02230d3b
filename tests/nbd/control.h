/* SPDX-License-Identifier: BSD-3-Clause
 *
 * control.h - a client of a server's control socket (docs/control.md).
 *
 * Requests are written as the members behind the version, with ' for ": control_ok (fd, "'verb': 'status'"). What the
 * functions give is the test's to keep, until control_forget; nothing needs to be freed. They assert, and are for the main thread.
 */
#ifndef DRUM_TESTS_CONTROL_H
#define DRUM_TESTS_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include <json-c/json.h>

typedef struct json_object json;

#define FORMAT(fmt, args) __attribute__ ((format (printf, fmt, args)))

/* The path of the socket that a test's server listens on, and control= with it. */
char *control_path (void);
char *control_param (void);

/* Connect; to control_path, or to another. The descriptor. */
int control_open (void);
int control_open_at (const char *path);

/* Send a request, and take the reply to the one that was sent first. */
void control_send (int fd, const char *fmt, ...) FORMAT (2, 3);
json *control_reply (int fd);

/* For a test that goes on for long: all that the functions gave so far is of no use any more. */
void control_forget (void);

/* A request whose reply must be ok: the reply. */
json *control_ok (int fd, const char *fmt, ...) FORMAT (2, 3);

/* A request that must fail with this errno ("ENOENT"): what it says is wrong. */
const char *control_error (int fd, const char *error, const char *fmt, ...) FORMAT (3, 4);

/* A request that begins a job: its number. */
uint64_t control_start (int fd, const char *fmt, ...) FORMAT (2, 3);

/* A job as it is now, and once it has ended, which must be in this state ("done"). */
json *control_job (int fd, uint64_t job);
json *control_wait (int fd, uint64_t job, const char *state);

/* The same in one: begin a job, wait for its end. */
json *control_run (int fd, const char *state, const char *fmt, ...) FORMAT (3, 4);

/* Wait until the job has moved at least one page, or has ended. */
json *control_wait_moving (int fd, uint64_t job);

json *control_status (int fd);

/* The device of this name, and the default export, in the status as it is now. The device must be there; or must not. */
json *control_device (int fd, const char *path);
void control_expect_no_device (int fd, const char *path);
json *control_export (int fd);

/* An export by its name: it must be there; or NULL if it is not. */
json *control_export_as (int fd, const char *name);
json *control_find_export (int fd, const char *name);

/* A member, by names with dots: member (device, "write.bytes"). It must be there. */
json *member (json *object, const char *names);
uint64_t member_uint (json *object, const char *names);
const char *member_str (json *object, const char *names);

/* Fail unless the member is this number, or this text. */
void expect_uint (json *object, const char *names, uint64_t value);
void expect_str (json *object, const char *names, const char *value);

#endif
