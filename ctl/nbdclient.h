/* SPDX-License-Identifier: BSD-3-Clause
 *
 * nbdclient.h - a socket past the handshake of NBD, ready to be handed to the kernel.
 *
 * libnbd does the same and more, but keeps what it has read in buffers of its own, takes memory at each connect, and does not
 * give its socket away. This is NBD_OPT_GO and no more: nothing is read that belongs to the kernel, all waiting is poll()
 * against one deadline (so that no time-out is left on the socket), and after nbdclient_resolve nothing takes memory.
 */
#ifndef DRUM_NBDCLIENT_H
#define DRUM_NBDCLIENT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "nbduri.h"

enum {
  NBDCLIENT_ID_BYTES = 65,
  NBDCLIENT_WHY_BYTES = 512,
  NBDCLIENT_MAX_ADDRESSES = 16,
};

/* Flags of an export, as NBD has them. */
enum {
  NBD_FLAG_READ_ONLY = 1 << 1,
  NBD_FLAG_SEND_TRIM = 1 << 5,
  NBD_FLAG_CAN_MULTI_CONN = 1 << 8,
};

/* All addresses of a server, as of when they were asked for. */
struct nbdclient_server {
  unsigned naddresses;
  struct {
    struct sockaddr_storage addr;
    socklen_t len;
  } addresses[NBDCLIENT_MAX_ADDRESSES];
};

/* What the server says of an export. Block sizes are 0 if it does not. */
struct nbdclient_export {
  uint64_t size_bytes;
  uint16_t flags;
  uint32_t min_block, max_block;
};

/* Whom an export is opened as. Without an id, plain NAME. */
struct nbdclient_session {
  const char *name;
  const char *id; /* NULL or "": not fenced */
  uint64_t epoch;
};

/* May take memory, and long. 0, or -errno and why. */
int nbdclient_resolve (const struct nbduri *uri, struct nbdclient_server *server,
                       char why[NBDCLIENT_WHY_BYTES]);

/* Try all addresses, for timeout_ms in all. => a socket, or -errno and why; -ENXIO: the server does not know the name, or has reasons (nbdkit
 * says the same of both) */
int nbdclient_open (const struct nbdclient_server *server, const struct nbdclient_session *session,
                    int timeout_ms, struct nbdclient_export *export, char why[NBDCLIENT_WHY_BYTES]);

/* The handshake alone, on a connected socket that does not block. */
int nbdclient_handshake (int fd, const struct nbdclient_session *session, int timeout_ms,
                         struct nbdclient_export *export, char why[NBDCLIENT_WHY_BYTES]);

/* Milliseconds of the clock that only goes forward. */
int64_t nbdclient_now (void);

#endif
