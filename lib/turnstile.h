/* SPDX-License-Identifier: BSD-3-Clause
 *
 * turnstile.h - how much at once on a device, and who has the next turn.
 *
 * Order:   among flows (flow.h) by start-time fair queueing: each has a tag, its virtual time, which what it does advances by pages /
 *          weight; the one that is furthest behind has the next turn. One that was away begins at the virtual time of those who were
 *          not, so that idleness earns nothing.
 *          A reader that waits gets its turn before any writer, since a process waits for what it reads, and only the kernel's
 *          page-out for what it writes; but when TURNSTILE_PASSING readers have passed waiting writers, one writer is next, unless
 *          its flow is ahead of theirs; and it is no reader's turn whose flow is so many requests ahead of a writer's.
 *          Within a flow, of a kind: first come, first served; but a writer goes before those that are to write just behind it, at most
 *          TURNSTILE_NEAR slots: it got its slots before they did, and a disk would have to go back for it. Nobody is passed like that more
 *          than TURNSTILE_PASSED_MAX times, and nobody slips in past those who wait.
 * Rivals:  a device without a limit makes a queue of what it is given, and who wants little would wait behind who wants much: a flow
 *          behind another, a swap-in behind its own host's page-out. So while two want it (flows: since one has come less than
 *          TURNSTILE_RIVAL_NS after the other; readers and writers of one: since one has come while the other was in; and until so long after
 *          the last time), only as much is let in as is good for it (window.h), and larger requests come in pieces, with a turn for each.
 *          If nothing moves for TURNSTILE_STALL_NS, what is in hangs; it does not count in the window any more.
 * Alone:   where a device gets more done one request at a time (head.h) no more are let in, unless there is a limit or a window, which says
 *          more about who has to wait for whom. If nobody has begun for TURNSTILE_HANG_NS while others wait, this ends: without it they
 *          would not wait for what hangs.
 * Cost:    one load and one compare-and-swap to enter and one atomic to leave, as long as nobody has to wait, and there are no rivals, or the
 *          device is fast enough for all of them, so that the window is no limit: then one request in TURNSTILE_LOOK_NS is looked at, whether
 *          that is still so. Else a mutex, and a look at the flows that wait. The limit may change at any time: those who are in are
 *          always counted.
 * Memory:  the records of those who wait lie on their own stacks. TURNSTILE_FLOWS flows have a tag of their own; of more that want the
 *          device at the same time some share one.
 * Locking: its own mutex, a leaf, and only with a window, or while somebody waits or the limit is changed. Who is in must not wait for anything
 *          but the I/O itself, and a buffer for it (bounce.h).
 */
#ifndef DRUM_TURNSTILE_H
#define DRUM_TURNSTILE_H

#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "mutex.h"
#include "window.h"

struct flow;

enum {
  TURNSTILE_MAX = 65535, /* the largest limit; 0 is none */
  TURNSTILE_PASSING = 8,
  TURNSTILE_NEAR = 1024,
  TURNSTILE_PASSED_MAX = 64,
  TURNSTILE_FLOWS = 64,
  TURNSTILE_RIVAL_NS = 200 * 1000 * 1000,
  TURNSTILE_STALL_NS = 100 * 1000 * 1000,
  TURNSTILE_HANG_NS = 1000 * 1000 * 1000,
  TURNSTILE_LOOK_NS = 1000 * 1000,
};

/* One turn, from enter to leave; on the stack of who has it. The fields are turnstile.c's, here and below, but slot, which is to be said
 * before. */
struct turnstile_turn {
  uint32_t slot; /* where it begins on the device */
  struct turnstile_turn *next;
  const struct flow *flow;
  uint32_t npages;
  bool write;
  bool waits;
  unsigned npassed;             /* how often others went before it that came later */
  uint64_t begin_ns;            /* of one with rivals that was looked at */
  struct turnstile_flow *place; /* NULL: nobody looked at it, since it was alone */
  uint32_t round;
  sem_t is_in;
};

/* A flow that wants the device, or did. */
struct turnstile_flow {
  const struct flow *flow; /* is not looked into: it may be gone */
  uint64_t tag;
  unsigned nhere[2];               /* turns that wait, or are in, to read, and to write */
  struct turnstile_turn *queue[2]; /* who waits, the next one first: readers, writers */
};

struct turnstile {
  /* How many are in, the limit, and whether somebody waits, there are rivals, these have a window, and one is let in at a time. */
  _Atomic uint64_t state;
  _Atomic uintptr_t last;     /* who came last: a flow, to read or to write */
  _Atomic uint64_t seen_ns;   /* when one of them began */
  _Atomic uint64_t looked_ns; /* the same of one that was looked at, or when it ended */
  bool adapts;                /* there may be rivals */
  struct mutex mutex;         /* all below */
  uint64_t changed_ns;        /* when last became another one, or that one left */
  unsigned nwaiting;
  unsigned npassed; /* readers, past the writers that wait now */
  uint64_t virtual_time;
  uint64_t npages; /* of those of this round that are in, and have a place */
  uint32_t round;  /* what was in before hangs */
  struct window window;
  struct turnstile_flow flow[TURNSTILE_FLOWS];
};

/* adapts: look out for rivals. */
void turnstile_init (struct turnstile *t, unsigned limit, bool adapts);
void turnstile_destroy (struct turnstile *t);

/* Those who are in stay in, also if they are more than the new limit. There is no other one any more. */
void turnstile_set_limit (struct turnstile *t, unsigned limit);
unsigned turnstile_limit (const struct turnstile *t);

/* One at a time, or not any more; nothing changes if there is a limit. */
void turnstile_set_single (struct turnstile *t, bool single);
bool turnstile_is_single (const struct turnstile *t);

bool turnstile_has_window (const struct turnstile *t);

/* Who is in: is nobody else, and does nobody wait? */
bool turnstile_is_alone (const struct turnstile *t);

/* A flow (NULL: the server itself) wants to read or write npages; may sleep. Returns how many it may, at least 1: the others need another turn. */
uint32_t turnstile_enter (struct turnstile *t, struct turnstile_turn *turn, const struct flow *flow,
                          bool write, uint32_t npages);

/* The same, but never sleeps: false if it would have to wait, and it has not come then. How many it may is in turn->npages. */
bool turnstile_try_enter (struct turnstile *t, struct turnstile_turn *turn, const struct flow *flow,
                          bool write, uint32_t npages);

/* Somebody who is in begins, now. */
static inline void
turnstile_see (struct turnstile *t, uint64_t now_ns)
{
  atomic_store_explicit (&t->seen_ns, now_ns, memory_order_relaxed);
}

void turnstile_leave (struct turnstile *t, struct turnstile_turn *turn);

#endif
