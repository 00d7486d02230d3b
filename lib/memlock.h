/* SPDX-License-Identifier: BSD-3-Clause
 *
 * memlock.h - a server that never waits for memory while it serves the pages of who needs memory.
 *
 * Locks what is mapped, now and later, but only what is touched: nbdkit has 192 MiB of static buffers that it may never use.
 * So all that I/O needs is touched at once: the program and its libraries (what of them is mapped in no more than 2 MiB at a time),
 * the tables, and each thread's stack when its first request comes.
 * PR_SET_IO_FLUSHER keeps the kernel from waiting for I/O when it finds memory for us; it is the thread's and of those that it
 * starts; and so is the real-time scheduling policy, for which the kernel has a quarter of the memory that it keeps for those who make
 * some free (vm.min_free_kbytes): what it takes for our requests and answers themselves, when there is none for anybody else, and all these
 * wait for us. The OOM score keeps us from being the one to be killed. Core dumps would have pages of clients in them, in nbdkit's
 * buffers and on stacks, too: so there are none.
 * Locking: none; one thread, before others are started; but for memlock_touch, memlock_pages,
 *          memlock_touch_stack.
 * Errors:  0 or -errno.
 */
#ifndef DRUM_MEMLOCK_H
#define DRUM_MEMLOCK_H

#include <stddef.h>

enum memlock_mode {
  MEMLOCK_NO,
  MEMLOCK_YES,   /* what can be done */
  MEMLOCK_STRICT /* all of it, or it is an error */
};

/* Before the fork, which takes locks away: could all of it be done? Says through log.h what could not. */
int memlock_check (void);

/* After the fork. tables: touches them. Says in one line what took effect, and what didn't; MEMLOCK_STRICT: fails unless all did. */
int memlock_apply (enum memlock_mode mode, int (*tables) (void *opaque), void *opaque);

/* Have memory that will be written to be there from now on; its contents stay. */
int memlock_touch (void *mem, size_t bytes);

/* The same for as much of this thread's stack as a request takes, when it first asks. */
void memlock_touch_stack (void);

/* And, after memlock_apply, for what is allocated in this thread to receive requests with: else the first large ones, which come
 * when memory is short, would take memory. */
int memlock_touch_heap (void);

/* Memory for pages of clients, to be given back by munmap: there from now on if that can be had, and in no core dump. NULL and
 * errno. */
void *memlock_pages (size_t bytes);

/* Two of these measures alone, for a program with others of its own. PR_SET_IO_FLUSHER is read back: some have passed the wrong
 * number, and never noticed. */
int memlock_io_flusher (void);
int memlock_oom_score (void);

#endif
