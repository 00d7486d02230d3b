/* SPDX-License-Identifier: BSD-3-Clause
 *
 * client.h - one connection to a server's control socket: a request, and the reply to it (docs/control.md).
 *
 * Errors: NULL, and one line that says what is wrong and what would help. What the server warns of is printed.
 */
#ifndef DRUMCTL_CLIENT_H
#define DRUMCTL_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

struct client;
struct json_object;

/* To the server that the options name. */
struct client *client_open (void);
void client_close (struct client *c);

/* Wait so long for what comes next, instead of what the options say. */
void client_set_timeout (struct client *c, double seconds);

/* A request, to be asked or put. */
struct json_object *request_new (const char *verb);
void request_text (struct json_object *request, const char *key, const char *value);
void request_number (struct json_object *request, const char *key, int64_t value);
void request_seconds (struct json_object *request, const char *key, double value);
void request_bool (struct json_object *request, const char *key, bool value);

/* The reply, the caller's to put; it is one that says ok. Puts request. */
struct json_object *client_ask (struct client *c, struct json_object *request);

/* The server is about to end: wait until it is gone. False if it does not go, and that is said. */
bool client_wait_end (struct client *c);

/* The same as client_ask, on a connection of its own. */
struct json_object *ask_once (struct json_object *request);

#endif
