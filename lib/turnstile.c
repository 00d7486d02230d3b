/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "turnstile.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#include "flow.h"
#include "stats.h"
#include "terms.h"

/* The state: how many are in in the low 32 bits, the limit in the next 16, and whether anybody waits, there are rivals, for these
 * the window is a limit, and one is let in at a time. */
enum { LIMIT_SHIFT = 32 };
#define LIMIT_MASK ((uint64_t) TURNSTILE_MAX << LIMIT_SHIFT)
#define WAITING    (UINT64_C (1) << 48)
#define RIVALS     (UINT64_C (1) << 49)
#define WINDOW     (UINT64_C (1) << 50)
#define SINGLE     (UINT64_C (1) << 51)

enum {
  NEAR = 8, /* places in the table where a flow may be */
  PAGE_COST =
    64 *
    EXPORT_WEIGHT_MAX, /* of one page of weight 1: so that the largest weight costs more than 0 */
};

void
turnstile_init (struct turnstile *t, unsigned limit, bool adapts)
{
  memset (t, 0, sizeof *t);
  mutex_init (&t->mutex);
  window_init (&t->window);
  atomic_store (&t->state, (uint64_t) limit << LIMIT_SHIFT);
  t->adapts = adapts;
}

void
turnstile_destroy (struct turnstile *t)
{
  mutex_destroy (&t->mutex);
}

static uint64_t
load (const struct turnstile *t)
{
  return atomic_load_explicit (&t->state, memory_order_relaxed);
}

unsigned
turnstile_limit (const struct turnstile *t)
{
  return (unsigned) ((load (t) & LIMIT_MASK) >> LIMIT_SHIFT);
}

bool
turnstile_is_single (const struct turnstile *t)
{
  return load (t) & SINGLE;
}

bool
turnstile_has_window (const struct turnstile *t)
{
  return load (t) & WINDOW;
}

bool
turnstile_is_alone (const struct turnstile *t)
{
  uint64_t state = load (t);

  return (uint32_t) state <= 1 && !(state & WAITING);
}

/* How many may be in; 0: any number. */
static uint64_t
most (uint64_t state)
{
  return (state & (SINGLE | WINDOW)) == SINGLE ? 1 : (state & LIMIT_MASK) >> LIMIT_SHIFT;
}

/* Enter if there is room. waiting: for one who waits; others must not pass him. */
static bool
try_enter (struct turnstile *t, bool waiting)
{
  uint64_t state = atomic_load_explicit (&t->state, memory_order_relaxed);

  for (;;) {
    uint64_t limit = most (state);

    if (!waiting && (state & (WAITING | WINDOW)))
      return false;
    if (limit && (uint32_t) state >= limit)
      return false;
    if (atomic_compare_exchange_weak_explicit (&t->state, &state, state + 1, memory_order_acquire,
                                               memory_order_relaxed))
      return true;
  }
}

static bool
has_rivals (const struct turnstile *t)
{
  return load (t) & RIVALS;
}

static void
set_looked (struct turnstile *t, uint64_t now_ns)
{
  atomic_store_explicit (&t->looked_ns, now_ns, memory_order_relaxed);
}

static uint64_t
load_seen (const struct turnstile *t)
{
  return atomic_load_explicit (&t->seen_ns, memory_order_relaxed);
}

/* How long has nobody been looked at? */
static uint64_t
unseen_ns (const struct turnstile *t, uint64_t now_ns)
{
  uint64_t looked_ns = atomic_load_explicit (&t->looked_ns, memory_order_relaxed);

  return now_ns > looked_ns ? now_ns - looked_ns : 0;
}

/* Who comes: a flow, to read or to write. */
static uintptr_t
comer (const struct flow *flow, bool write)
{
  return (uintptr_t) flow | write;
}

static uintptr_t
flow_of (uintptr_t who)
{
  return who & ~(uintptr_t) 1;
}

static bool
is_empty (const struct turnstile *t)
{
  return (uint32_t) atomic_load (&t->state) == 0;
}

/* Does he come while who came last wants it, too? Of flows, whose hosts know nothing of each other, those do that come within some time;
 * but a host that reads what it has written has no rival in itself, unless it does not wait for the one before it asks for the other. */
static bool
is_rival (const struct turnstile *t, uintptr_t last, uintptr_t who, uint64_t now_ns)
{
  if (!is_empty (t))
    return true;
  return flow_of (last) != flow_of (who) && now_ns < load_seen (t) + TURNSTILE_RIVAL_NS;
}

/* => holds t->mutex. Does anybody else wait, or is in? */
static bool
others_are_here_locked (const struct turnstile *t, uintptr_t who)
{
  for (unsigned i = 0; i < TURNSTILE_FLOWS; i++)
    for (unsigned write = 0; write < 2; write++)
      if (t->flow[i].nhere[write] > 0 && comer (t->flow[i].flow, write) != who)
        return true;
  return false;
}

/* => holds t->mutex. There are rivals, or not any more, or their window has changed. */
static void
set_window_locked (struct turnstile *t)
{
  bool is_limit = has_rivals (t) && t->window.size > 0;

  mutex_assert_held (&t->mutex);
  if (is_limit != turnstile_has_window (t))
    atomic_fetch_xor (&t->state, WINDOW);
}

/* => holds t->mutex. Somebody comes. If it is not who came last, and that was here not long ago, they are rivals, until neither
 * has come after the other for some time, nor is here. */
static void
look_out_locked (struct turnstile *t, uintptr_t who, uint64_t now_ns)
{
  uintptr_t last = atomic_load_explicit (&t->last, memory_order_relaxed);

  mutex_assert_held (&t->mutex);
  if (has_rivals (t) && now_ns - t->changed_ns >= TURNSTILE_RIVAL_NS &&
      !others_are_here_locked (t, who))
    atomic_fetch_and (&t->state, ~RIVALS);
  if (last != who)
    atomic_store_explicit (&t->last, who, memory_order_relaxed);
  if (last != who && is_rival (t, last, who, now_ns)) {
    t->changed_ns = now_ns;
    if (!(atomic_fetch_or (&t->state, RIVALS) & RIVALS)) {
      window_resume (&t->window, now_ns);
      set_looked (t, now_ns); /* until now nobody has */
    }
  }
  set_window_locked (t);
}

/* => holds t->mutex. The flow's own place in the table, or one that nobody needs; or, when there is none near, somebody else's. */
static struct turnstile_flow *
find_flow_locked (struct turnstile *t, const struct flow *flow)
{
  unsigned home = (unsigned) ((uint64_t) (uintptr_t) flow * UINT64_C (0x9e3779b97f4a7c15) >> 32);
  struct turnstile_flow *found = NULL;

  mutex_assert_held (&t->mutex);
  for (unsigned i = 0; i < NEAR; i++) {
    struct turnstile_flow *tf = &t->flow[(home + i) % TURNSTILE_FLOWS];

    if (tf->flow == flow)
      return tf;
    if (!found && tf->nhere[0] + tf->nhere[1] == 0 && tf->tag <= t->virtual_time)
      found = tf;
  }
  if (!found)
    return &t->flow[home % TURNSTILE_FLOWS];
  found->flow = flow;
  return found;
}

/* Does it go before another one that came first? */
static bool
is_just_before (const struct turnstile_turn *turn, const struct turnstile_turn *other)
{
  return turn->write && turn->slot < other->slot && other->slot - turn->slot <= TURNSTILE_NEAR;
}

static void
insert (struct turnstile_turn **queue, struct turnstile_turn *turn)
{
  struct turnstile_turn **at, **place = NULL;

  for (at = queue; *at; at = &(*at)->next)
    if ((*at)->npassed == TURNSTILE_PASSED_MAX)
      place = NULL;
    else if (!place && is_just_before (turn, *at))
      place = at;
  if (!place)
    place = at;
  for (struct turnstile_turn *passed = *place; passed; passed = passed->next)
    passed->npassed++;
  turn->next = *place;
  *place = turn;
}

/* => holds t->mutex. Its flow's place, where it is now, in the queue or without one. */
static struct turnstile_flow *
place_locked (struct turnstile *t, struct turnstile_turn *turn)
{
  struct turnstile_flow *tf = find_flow_locked (t, turn->flow);

  mutex_assert_held (&t->mutex);
  if (!tf->queue[0] && !tf->queue[1] && tf->tag < t->virtual_time)
    tf->tag = t->virtual_time;
  tf->nhere[turn->write]++;
  turn->place = tf;
  return tf;
}

/* => holds t->mutex. */
static void
queue_locked (struct turnstile *t, struct turnstile_turn *turn)
{
  insert (&place_locked (t, turn)->queue[turn->write], turn);
  turn->waits = true;
  t->nwaiting++;
  /* From here on, who leaves comes to the mutex; who left before has made room that we see. */
  atomic_fetch_or (&t->state, WAITING);
}

/* What the turn advances its flow's tag by. */
static uint64_t
cost (const struct turnstile_turn *turn)
{
  return (uint64_t) turn->npages * PAGE_COST / flow_weight (turn->flow);
}

/* => holds t->mutex. Of the flows that have a reader, or a writer, waiting, the one that is furthest behind; NULL: none has. */
static struct turnstile_flow *
furthest_behind_locked (struct turnstile *t, bool write)
{
  struct turnstile_flow *best = NULL;

  mutex_assert_held (&t->mutex);
  for (unsigned i = 0; i < TURNSTILE_FLOWS; i++) {
    struct turnstile_flow *tf = &t->flow[i];

    if (tf->queue[write] && (!best || tf->tag < best->tag))
      best = tf;
  }
  return best;
}

/* A reader and a writer wait. Is it the writer's turn? */
static bool
is_writers (const struct turnstile *t, const struct turnstile_flow *reader,
            const struct turnstile_flow *writer)
{
  if (t->npassed >= TURNSTILE_PASSING && writer->tag <= reader->tag)
    return true;
  return reader->tag > writer->tag + TURNSTILE_PASSING * cost (reader->queue[0]);
}

/* As much of it as there may be in one turn. */
static void
trim (const struct turnstile *t, struct turnstile_turn *turn)
{
  if (turnstile_has_window (t) && turn->npages > t->window.size)
    turn->npages = t->window.size;
}

/* => holds t->mutex. Is there room for it in the window? */
static bool
fits_locked (const struct turnstile *t, const struct turnstile_turn *turn)
{
  return !turnstile_has_window (t) || !t->npages || t->npages + turn->npages <= t->window.size;
}

/* => holds t->mutex. Let it in, as the next one, if there is room. */
static bool
let_in_locked (struct turnstile *t, struct turnstile_turn *turn)
{
  struct turnstile_flow *tf = turn->place;

  mutex_assert_held (&t->mutex);
  trim (t, turn);
  if (!fits_locked (t, turn) || !try_enter (t, true))
    return false;
  if (t->virtual_time < tf->tag)
    t->virtual_time = tf->tag;
  tf->tag += cost (turn);
  turn->begin_ns = has_rivals (t) ? now_ns () : 0;
  turn->round = t->round;
  t->npages += turn->npages;
  if (turn->begin_ns)
    set_looked (t, turn->begin_ns);
  return true;
}

/* => holds t->mutex. The next one of those who wait. */
static bool
admit_one_locked (struct turnstile *t)
{
  struct turnstile_flow *reader = furthest_behind_locked (t, false);
  struct turnstile_flow *writer = furthest_behind_locked (t, true);
  bool write = !reader || (writer && is_writers (t, reader, writer));
  struct turnstile_turn **queue = &(write ? writer : reader)->queue[write], *turn = *queue;

  mutex_assert_held (&t->mutex);
  if (!let_in_locked (t, turn))
    return false;
  t->npassed = reader && writer && !write ? t->npassed + 1 : 0;
  *queue = turn->next;
  t->nwaiting--;
  turn->waits = false;
  sem_post (&turn->is_in); /* he may be gone at once, and his record with him */
  return true;
}

/* => holds t->mutex. Let in as many of those who wait as there is room for. */
static void
admit_locked (struct turnstile *t)
{
  mutex_assert_held (&t->mutex);
  while (t->nwaiting > 0 && admit_one_locked (t))
    ;
  if (t->nwaiting == 0)
    atomic_fetch_and (&t->state, ~WAITING);
}

/* Is there nothing to look at, but whether there is room? */
static bool
needs_no_look (struct turnstile *t, uintptr_t who)
{
  uintptr_t last = atomic_load_explicit (&t->last, memory_order_relaxed);

  if (!t->adapts)
    return true;
  if (has_rivals (t))
    return unseen_ns (t, load_seen (t)) < TURNSTILE_LOOK_NS;
  if (last != who && flow_of (last) == flow_of (who) && is_empty (t)) /* by turns */
    atomic_store_explicit (&t->last, last = who, memory_order_relaxed);
  return last == who;
}

/* => holds t->mutex. Nobody has come in or left for long: what is in hangs, all of it or some. What we let in is no reason to wait for that. */
static void
write_off_locked (struct turnstile *t)
{
  uint64_t now = now_ns ();

  mutex_assert_held (&t->mutex);
  if (turnstile_has_window (t) && unseen_ns (t, now) >= TURNSTILE_STALL_NS) {
    t->round++;
    t->npages = 0;
    admit_locked (t);
  } else if (turnstile_is_single (t) && now >= load_seen (t) + TURNSTILE_HANG_NS) {
    atomic_fetch_and (&t->state, ~SINGLE);
    admit_locked (t);
  }
}

/* By the wall clock: thread sanitizers know of no other. When that is put back a stall lasts longer, and nothing else. */
static void
wait_until_in (struct turnstile *t, struct turnstile_turn *turn)
{
  struct timespec then;

  for (;;) {
    clock_gettime (CLOCK_REALTIME, &then);
    then.tv_nsec += TURNSTILE_STALL_NS;
    then.tv_sec += then.tv_nsec / 1000000000;
    then.tv_nsec %= 1000000000;
    if (sem_timedwait (&turn->is_in, &then) == 0)
      return;
    if (errno != ETIMEDOUT)
      continue;
    mutex_lock (&t->mutex);
    write_off_locked (t);
    mutex_unlock (&t->mutex);
  }
}

/* Come, and in if that takes no look at others. */
static bool
come (struct turnstile *t, struct turnstile_turn *turn, const struct flow *flow, bool write,
      uint32_t npages)
{
  turn->flow = flow;
  turn->write = write;
  turn->npages = npages;
  turn->place = NULL;
  turn->npassed = 0;
  return needs_no_look (t, comer (flow, write)) && try_enter (t, false);
}

/* => holds t->mutex. Who comes now? */
static void
look_locked (struct turnstile *t, const struct turnstile_turn *turn)
{
  mutex_assert_held (&t->mutex);
  if (t->adapts)
    look_out_locked (t, comer (turn->flow, turn->write), now_ns ());
}

uint32_t
turnstile_enter (struct turnstile *t, struct turnstile_turn *turn, const struct flow *flow,
                 bool write, uint32_t npages)
{
  bool waits;

  if (come (t, turn, flow, write, npages))
    return npages;
  sem_init (&turn->is_in, 0, 0);
  mutex_lock (&t->mutex);
  look_locked (t, turn);
  queue_locked (t, turn);
  admit_locked (t);
  waits = turn->waits;
  mutex_unlock (&t->mutex);
  if (waits)
    wait_until_in (t, turn);
  sem_destroy (&turn->is_in);
  return turn->npages;
}

/* => holds t->mutex. Nobody is passed, and nobody told to wait. */
static bool
try_locked (struct turnstile *t, struct turnstile_turn *turn)
{
  admit_locked (t); /* with no rivals any more there may be room for those who wait */
  if (t->nwaiting > 0)
    return false;
  place_locked (t, turn);
  if (let_in_locked (t, turn))
    return true;
  turn->place->nhere[turn->write]--;
  return false;
}

bool
turnstile_try_enter (struct turnstile *t, struct turnstile_turn *turn, const struct flow *flow,
                     bool write, uint32_t npages)
{
  bool is_in;

  if (come (t, turn, flow, write, npages))
    return true;
  mutex_lock (&t->mutex);
  look_locked (t, turn);
  is_in = try_locked (t, turn);
  mutex_unlock (&t->mutex);
  return is_in;
}

/* => holds t->mutex. It did not come in without a look. */
static void
end_locked (struct turnstile *t, const struct turnstile_turn *turn)
{
  uint64_t end_ns;

  mutex_assert_held (&t->mutex);
  turn->place->nhere[turn->write]--;
  if (turn->round == t->round)
    t->npages -= turn->npages;
  if (!has_rivals (t))
    return;
  end_ns = now_ns ();
  set_looked (t, end_ns);
  if (comer (turn->flow, turn->write) != atomic_load_explicit (&t->last, memory_order_relaxed))
    t->changed_ns = end_ns; /* it may have been here for long */
  if (turn->begin_ns) {
    window_note (&t->window, turn->begin_ns, end_ns, turn->npages, t->nwaiting > 0);
    set_window_locked (t);
  }
}

void
turnstile_leave (struct turnstile *t, struct turnstile_turn *turn)
{
  if (!(atomic_fetch_sub (&t->state, 1) & WAITING) && !turn->place)
    return;
  mutex_lock (&t->mutex);
  if (turn->place)
    end_locked (t, turn);
  admit_locked (t);
  mutex_unlock (&t->mutex);
}

void
turnstile_set_limit (struct turnstile *t, unsigned limit)
{
  uint64_t state;

  mutex_lock (&t->mutex);
  state = atomic_load (&t->state);
  while (!atomic_compare_exchange_weak (
    &t->state, &state, (state & ~(LIMIT_MASK | SINGLE)) | (uint64_t) limit << LIMIT_SHIFT))
    ;
  admit_locked (t);
  mutex_unlock (&t->mutex);
}

void
turnstile_set_single (struct turnstile *t, bool single)
{
  mutex_lock (&t->mutex);
  if (single && turnstile_limit (t) == 0)
    atomic_fetch_or (&t->state, SINGLE);
  else
    atomic_fetch_and (&t->state, ~SINGLE);
  admit_locked (t);
  mutex_unlock (&t->mutex);
}
