/* SPDX-License-Identifier: BSD-3-Clause
 *
 * nbduri.h - where a server is and which export is meant: nbd://HOST[:PORT][/NAME], nbd+unix:///[NAME]?socket=PATH.
 *
 * Bytes may be written as %XX. What TLS is needed for (nbds) is refused: the kernel's client has none.
 */
#ifndef DRUM_NBDURI_H
#define DRUM_NBDURI_H

enum { NBDURI_NAME_BYTES = 1024, NBDURI_HOST_BYTES = 256, NBDURI_PATH_BYTES = 108 };

struct nbduri {
  char host[NBDURI_HOST_BYTES]; /* "": a unix socket */
  char port[8];
  char path[NBDURI_PATH_BYTES]; /* of the unix socket */
  char name[NBDURI_NAME_BYTES]; /* of the export; "": the default one */
};

/* 0, or -EINVAL and a line that says why. */
int nbduri_parse (const char *text, struct nbduri *uri);

#endif
