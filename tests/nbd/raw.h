/* SPDX-License-Identifier: BSD-3-Clause
 *
 * raw.h - an NBD client that sends what no library would: the protocol by hand (fixed newstyle, simple replies).
 *
 * What is made here are bytes in a raw buffer, to be sent whole, in pieces or in part. raw_send and raw_receive say with false that
 * the server has hung up; all else is asserted.
 */
#ifndef DRUM_TESTS_RAW_H
#define DRUM_TESTS_RAW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server.h"

enum {
  RAW_EXPORT_NAME = 1,
  RAW_ABORT = 2,
  RAW_LIST = 3,
  RAW_STARTTLS = 5,
  RAW_INFO = 6,
  RAW_GO = 7
};
enum { RAW_STRUCTURED_REPLY = 8, RAW_LIST_META = 9, RAW_SET_META = 10 };
enum {
  RAW_READ,
  RAW_WRITE,
  RAW_DISCONNECT,
  RAW_FLUSH,
  RAW_TRIM,
  RAW_CACHE,
  RAW_ZEROES,
  RAW_STATUS
};

#define RAW_OPTION_MAGIC  UINT64_C (0x49484156454f5054)
#define RAW_REQUEST_MAGIC 0x25609513u

struct raw {
  unsigned char *data;
  size_t len, room;
};

void raw_bytes (struct raw *raw, const void *data, size_t len);
void raw_number (struct raw *raw, unsigned nbytes, uint64_t value); /* big endian */
void raw_flags (struct raw *raw); /* the client's: fixed newstyle, no zeroes */
void raw_option (struct raw *raw, uint32_t option, const void *data, uint32_t len);
void raw_go (struct raw *raw); /* to the default export */
void raw_request (struct raw *raw, unsigned flags, unsigned type, uint64_t cookie, uint64_t offset,
                  uint32_t len);
void raw_free (struct raw *raw);

/* Connect, and take the server's greeting; the descriptor. */
int raw_connect (const struct server *srv);

bool raw_send (int fd, const void *data, size_t len);
bool raw_receive (int fd, void *data, size_t len);

/* Connect, and get into transmission; the same for a connection that is there. */
int raw_open (const struct server *srv);
int raw_shake_hands (int fd);

/* The reply to a request, without data: 0 or the protocol's error, which is errno's; -1 if the server has hung up. */
int raw_reply (int fd, uint64_t cookie);

#endif
