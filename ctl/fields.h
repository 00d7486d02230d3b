/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fields.h - take a reply apart. A field that is not there, or is something else, is a reply that makes no sense: the first
 * one is said, and the rest is read on, as zeroes and empty strings, so that nobody has to check each.
 */
#ifndef DRUMCTL_FIELDS_H
#define DRUMCTL_FIELDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_object;

/* Strings and objects belong to the object that they came from. key NULL: object itself is what is wanted. */
uint64_t field_number (struct json_object *object, const char *key); /* not negative */
int field_int (struct json_object *object, const char *key);
double field_seconds (struct json_object *object, const char *key); /* finite, not negative */
const char *field_text (struct json_object *object, const char *key);
bool field_bool (struct json_object *object, const char *key);
struct json_object *field_object (struct json_object *object, const char *key);

/* An array, NULL if it is none, and how long. Those of bad replies are empty. */
struct json_object *field_array (struct json_object *object, const char *key, size_t *n);

/* What may be absent. */
bool field_is_there (struct json_object *object, const char *key);

/* Say that something is wrong with what is called key. */
void field_complain (const char *key);

/* Was all there since the last time that this was asked? */
bool fields_were_fine (void);

#endif
