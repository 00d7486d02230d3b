/* SPDX-License-Identifier: BSD-3-Clause
 *
 * asking.h - a service of two devices, the requests that a client makes of it, and what is in the replies.
 */
#ifndef DRUM_UNIT_ASKING_H
#define DRUM_UNIT_ASKING_H

#include <json-c/json.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/live.h"
#include "lib/service.h"

#include "devices.h"
#include "stamped.h"

/* 4 of a's are bad: slots 50 to 53. */
enum { A_SLOTS = 100, A_BAD = 4, B_SLOTS = 300, NPAGES = 400, STRIPE = 16 };

extern struct service service;
extern struct live *live;
extern struct stamped pages;
extern struct json_object *reply; /* the last one */
extern unsigned wait_ms;          /* of it; 77: it was left alone */

/* The .init and .fini of a suite: a has priority 5, b -1. */
void asking_setup (void);
void asking_teardown (void);

/* Ask, with ' for ", and so long ago. What verbs_handle returns. */
int ask (const char *text);
int ask_since (unsigned waited_ms, const char *text);

/* A job is begun, and nothing else said: its number. */
unsigned ask_for_job (const char *text);

/* Wait until it has ended: its description, or this state. */
struct json_object *end_of (unsigned job);
void assert_ends (unsigned job, const char *state);

/* A member that must be there, and of this type; an array of this length. */
struct json_object *get (struct json_object *from, const char *key);
uint64_t get_uint (struct json_object *from, const char *key);
double get_double (struct json_object *from, const char *key);
const char *get_text (struct json_object *from, const char *key);
struct json_object *get_array (struct json_object *from, const char *key, size_t n);
struct json_object *at (struct json_object *array, size_t i);
uint64_t uint_at (struct json_object *array, size_t i);

/* The keys are these, in this order, with one space between two. */
void assert_keys (struct json_object *from, const char *keys);

/* The device of this name in an array of the reply. */
struct json_object *device_of (const char *name, const char *array);

/* What a status says of it. */
void assert_device (const char *name, int prio, const char *state, uint64_t nslots, uint64_t nused,
                    uint64_t nbad);

#endif
