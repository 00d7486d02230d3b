/* SPDX-License-Identifier: BSD-3-Clause
 *
 * config-keys.h - the parameters of the plugin, as nbdkit hands them over, one by one.
 *
 * Locking: none; one thread, before the server starts. Errors: 0 or -errno, said through lib/log.h.
 */
#ifndef DRUM_CONFIG_KEYS_H
#define DRUM_CONFIG_KEYS_H

struct service_config;

int config_key (const char *key, const char *value);

/* All are there. */
int config_complete (void);

const struct service_config *config_get (void);
const char *config_control (void); /* NULL: not given */
void config_free (void);

#define CONFIG_HELP                                                                                \
  "[device=]PATH[,prio=N][,size=SIZE][,maxio=N] (required, any number)\n"                          \
  "                  Backing file or block device; a comma in PATH is written ,,.\n"               \
  "                  prio=N (-1 to 32767, default -1): higher is used first, equals take turns.\n" \
  "                  size=SIZE: create a regular file of that size, allocated in full.\n"          \
  "                  maxio=N: at most N requests at once (1 to 65535, default no limit).\n"        \
  "size=SIZE         Size of the default export (default: all usable slots less those kept\n"      \
  "                  back; with export= or template=: no default export).\n"                       \
  "export=NAME,size=SIZE[,reserve=SIZE][,limit=SIZE][,weight=N][,iops=N]\n"                        \
  "      [,bandwidth=SIZE][,exclusive=yes]   (any number)\n"                                       \
  "                  One more export; a comma in NAME is written ,,.\n"                            \
  "                  reserve=SIZE: kept for it alone; limit=SIZE: the most that it may take.\n"    \
  "                  weight=N (1 to 10000, default 100): its share while others want theirs.\n"    \
  "                  iops=N, bandwidth=SIZE: at most so much a second (default: no limit).\n"      \
  "                  exclusive=yes: one client at a time.\n"                                       \
  "template=PATTERN,size=SIZE[,max=N][,expire=TIME][,...]   (any number)\n"                        \
  "                  Make an export when a client first asks for a name like PATTERN (host-*).\n"  \
  "                  max=N: at most N of them at once (default: no limit).\n"                      \
  "                  expire=TIME (90s, 15min, 12h, 7d): one that nobody has used for so long\n"    \
  "                  goes (default never). The rest as for export=, but exclusive=yes.\n"          \
  "overcommit=no     Refuse exports that are larger together than the drum (default yes).\n"       \
  "stripe=SIZE       How much goes to one device before the next of equal priority (default "      \
  "64K).\n"                                                                                        \
  "force=yes         Take devices that carry a signature, or files that are not empty.\n"          \
  "control=PATH      Unix socket for drumctl (default: none).\n"                                   \
  "direct=yes        Do I/O past the page cache (O_DIRECT): where the swapping host is this "      \
  "host.\n"                                                                                        \
  "io=uring|sync     Several devices at once for one request; one after the other (default "       \
  "auto:\n"                                                                                        \
  "                  at once if the kernel has io_uring).\n"                                       \
  "lock=yes|strict   Keep the server in memory; strict: or do not start (default no).\n"           \
  "state=DIR         Folder that keeps what survives a restart (default: none).\n"                 \
  "sync=yes          Make every write durable before it is answered (default no).\n"               \
  "state-repair=yes  Start with what is sound of a damaged state, and lose the rest.\n"            \
  "checksum=no       Do not keep and check a checksum of every page (default yes).\n"              \
  "readahead=SIZE    Ask for what lies beside what is read, up to 4M (default 0: no).\n"           \
  "reset-on-mkswap=yes\n"                                                                          \
  "                  Free the old pages when a client makes a new swap header (default no)."

#endif
