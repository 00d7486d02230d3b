/* SPDX-License-Identifier: BSD-3-Clause
 *
 * handler.h - the real verbs over a real drum of small files, in a folder of their own.
 *
 * What the fuzzer asks for may name any file and force it, so the files are kept in: in a mount namespace of ours /srv is an
 * empty file system in memory, and only small files in it are opened. Where there can be no such namespace none is.
 */
#ifndef DRUM_FUZZ_HANDLER_H
#define DRUM_FUZZ_HANDLER_H

struct live;

/* Made at the first call, and kept. */
struct live *handler_live (void);

#endif
