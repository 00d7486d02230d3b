/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mapfile.h - the page map of one export as a file, which outlives the server.
 *
 * Format:  8 bytes a page, slot and checksum, little endian, as in memory; holes are pages without a slot. 4 KiB of file are
 *          one leaf of the map.
 * Order:   what is written here is in the page cache when mapfile_write returns: it outlives a SIGKILL at any moment, and a
 *          power failure once mapfile_sync has returned after it.
 * Unit:    pages of the export; ranges are half open.
 * Locking: none for mapfile_write, which may run from any number of threads at once, on different pages, nor for mapfile_sync, which waits for another.
 * Memory:  only create, open, read and pass allocate; mapfile_write has 4 KiB on the stack.
 * Errors:  0 or -errno. What goes wrong at a start (create, open, read, finish, pass) is also said in one line through log.h, which
 *          names the file; what goes wrong later is the caller's to say.
 */
#ifndef DRUM_MAPFILE_H
#define DRUM_MAPFILE_H

#include <stdint.h>

struct mapfile;
struct pagemap_entry;

/* A new one of npages, all holes, and durable once it and the folder are synced, in the folder dirfd, which is dir in messages; one that is there is replaced. -EFBIG, and nothing
 * said: that is of the export's size. */
int mapfile_create (int dirfd, const char *dir, const char *name, uint64_t npages,
                    struct mapfile **mf);

/* One that is there. -ENOENT; -EINVAL if it has not the size of npages: it was cut, or is another's. */
int mapfile_open (int dirfd, const char *dir, const char *name, uint64_t npages,
                  struct mapfile **mf);

/* Make it longer, all holes, or cut it: the entries beyond are gone, from the page cache at once. Nobody else uses it meanwhile. */
int mapfile_resize (struct mapfile *mf, uint64_t npages);

/* All holes, again. Nobody else uses it meanwhile. On failure it is as it was. A kill in the midst of it leaves the file
 * empty, or shorter than it was: see mapfile_finish_resize. */
int mapfile_empty (struct mapfile *mf);

/* At a start, durably: give one that has the size of from or of to, or one in between, that of to. -EINVAL for any other. */
int mapfile_finish_resize (int dirfd, const char *dir, const char *name, uint64_t from_npages,
                           uint64_t to_npages);

/* At a start, durably: entries of from where to has none become to's, and none stays in from, as in export_pass; what that may have done
 * already before it was killed is fine. The keys are those of pagesum_export_key. -EFBIG, and nothing changed: from has entries beyond the end of to. After
 * any other failure, or a kill, it is to be done again. */
int mapfile_pass (struct mapfile *from, struct mapfile *to, uint64_t from_key, uint64_t to_key);

/* Give one that is cut, too long or gone the size of npages: those whose entries are missing, *nlost of them, are lost. */
int mapfile_repair (int dirfd, const char *dir, const char *name, uint64_t npages, uint64_t *nlost);
void mapfile_close (struct mapfile *mf);

const char *mapfile_path (const struct mapfile *mf); /* for messages */

/* The entries of n pages (at most MAPFILE_BATCH) from page on. Returns for how many that was done, from the first on: the others stand there as
 * they did, and *error says why (a full file system, say; devio.h says what is tried again); n: all, and *error is untouched. */
enum { MAPFILE_BATCH = 512 };
unsigned mapfile_write (struct mapfile *mf, uint64_t page, const struct pagemap_entry *entries,
                        unsigned n, int *error);

/* Call each for all parts of the file that are no holes (in them, too, may be pages without a slot), in order, at most MAPFILE_READ
 * entries at once; stops and returns what it returned if that is not 0. Nobody writes meanwhile. */
enum { MAPFILE_READ = 1 << 16 };
int mapfile_read (struct mapfile *mf,
                  int (*each) (void *opaque, uint64_t page, const struct pagemap_entry *entries,
                               unsigned n),
                  void *opaque);

/* Make durable what was written before; costs nothing if that is nothing since the last time. Once that has failed nobody knows what is on the
 * disk: it fails for ever, with the same error. */
int mapfile_sync (struct mapfile *mf);

#endif
