/* SPDX-License-Identifier: BSD-3-Clause
 *
 * drum_model.c - lib/drum.c compared with a plain array of slots, each of which is somebody's, over random steps.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "lib/drum-health.h"
#include "lib/placement.h"
#include "lib/stats.h"
#include "tests/random.h"
#include "tests/scratch.h"

#include "devices.h"
#include "logged.h"

enum {
  MAX_SLOTS = 20000,
  MAX_DEVICES = 12,
  NACCOUNTS = 5, /* the first is nobody */
  MAX_SUSPECT = 20
};

enum state {
  NOBODYS,
  FREE,
  USED,
  MOVING, /* its page has got another slot, which is not final yet */
  SUSPECT,
};

struct model_device {
  struct swapdev *swapdev;
  int prio;
  unsigned came; /* the how-manieth to come to its priority */
  enum drum_device_state state;
  enum drum_device_state before; /* closing: what it was */
  bool leaving;                  /* it was closed, and nobody has said that this has ended */
  uint32_t first, end;           /* its slots, but those that are reserved */
  uint32_t nused, nsuspect;      /* of these */
};

struct model_account {
  struct room_account real;
  uint64_t nsize, nreserved, nlimit, nused;
};

struct model {
  struct drum *drum;
  struct rng rng;
  unsigned step, names, last_came;
  enum state state[MAX_SLOTS];
  uint32_t moves_to[MAX_SLOTS]; /* of a slot that is MOVING */
  bool is_target[MAX_SLOTS];    /* of a move under way: not to be touched otherwise */
  unsigned ndevices;
  struct model_device device[MAX_DEVICES];
  uint64_t nmoving;
  unsigned char owner[MAX_SLOTS]; /* of a slot that is used, or moves: an account */
  struct model_account account[NACCOUNTS];
  bool no_overcommit;
  bool excused; /* promises can't be kept: what was there has failed, or so */
  unsigned nhonoured;
};

/* Slots of the devices that are open. */
struct sum {
  uint64_t nslots, nfree;
};

#define CHECK(m, condition, ...)                                                           \
  do {                                                                                     \
    if (!(condition))                                                                      \
      cr_assert (false, "DRUM_TEST_SEED=%" PRIu64 ", step %u: not %s: %s", random_seed (), \
                 (m)->step, #condition, str (__VA_ARGS__));                                \
  } while (0)

static uint32_t
nusable_on (const struct model_device *dev)
{
  return dev->end - dev->first - dev->nsuspect;
}

/* Does it when a page finds no room? */
static bool
may_reopen (const struct model_device *dev)
{
  return dev->state == DEVICE_CLOSING && dev->before == DEVICE_OPEN;
}

/* Of the open devices but one, or, with closing, as if those that are closing were open. */
static struct sum
sum_but (const struct model *m, const struct model_device *but, bool closing)
{
  struct sum sum = { .nslots = 0 };

  for (const struct model_device *dev = m->device; dev < m->device + m->ndevices; dev++)
    if (dev != but && (dev->state == DEVICE_OPEN || (closing && may_reopen (dev)))) {
      sum.nslots += nusable_on (dev);
      sum.nfree += nusable_on (dev) - dev->nused;
    }
  return sum;
}

static uint64_t
nkept_of (uint64_t nslots)
{
  uint64_t n = nslots / 64;

  return nslots == 0 ? 0 : n == 0 ? 1 : n > 1024 ? 1024 : n;
}

static uint64_t
low_water_of (uint64_t nslots)
{
  return nslots < 8 * 128 ? nslots / 8 : 128;
}

enum outcome { NO_ROOM, ROOM, WAITS };

static uint64_t
less (uint64_t a, uint64_t b)
{
  return a < b ? 0 : a - b;
}

static uint64_t
nreserved (const struct model *m)
{
  uint64_t n = 0;

  for (unsigned i = 0; i < NACCOUNTS; i++)
    n += m->account[i].nreserved;
  return n;
}

/* Reserved, and not used. */
static uint64_t
npromised (const struct model *m)
{
  uint64_t n = 0;

  for (unsigned i = 0; i < NACCOUNTS; i++)
    n += less (m->account[i].nreserved, m->account[i].nused);
  return n;
}

/* So much more is to be kept back when those that are closing open again, which must not be at the cost of promises. */
static uint64_t
nback_for (const struct model *m, struct sum sum)
{
  return nreserved (m) ? nkept_of (sum_but (m, NULL, true).nslots) - nkept_of (sum.nslots) : 0;
}

/* Somebody wants nnew slots, of which ngrow for pages that he did not have, and nmove. */
struct want {
  unsigned who;
  uint32_t nnew, nmove, ngrow;
};

static bool
is_limited (const struct model *m, struct want want)
{
  const struct model_account *a = &m->account[want.who];

  return want.ngrow > 0 && a->nlimit && a->nused + want.ngrow > a->nlimit;
}

static bool
has_room (const struct model *m, struct sum sum, struct want want)
{
  const struct model_account *a = &m->account[want.who];
  uint64_t base = less (sum.nfree + m->nmoving, nkept_of (sum.nslots)), promised = npromised (m);
  uint64_t own = less (a->nreserved, a->nused);

  own = own < want.ngrow ? own : want.ngrow;
  if (want.nnew == 0)
    return true;
  if (base < promised)
    return want.who && a->nused + want.ngrow <= a->nreserved && want.nnew <= base;
  return want.nnew <= own + less (base, promised + nback_for (m, sum));
}

/* What comes of an alloc while these are open? */
static enum outcome
outcome_of (const struct model *m, struct sum sum, struct want want)
{
  uint32_t n = want.nnew + want.nmove;

  if (is_limited (m, want) || !has_room (m, sum, want))
    return NO_ROOM;
  if (n == 1 && sum.nfree == 0 && m->nmoving > 0)
    return WAITS;
  return n <= sum.nfree ? ROOM : NO_ROOM;
}

/* The same for a page that may open those that are closing; *opens says if it does. */
static enum outcome
outcome_for_a_page (const struct model *m, struct want want, bool *opens)
{
  enum outcome outcome = outcome_of (m, sum_but (m, NULL, false), want);

  *opens = outcome == NO_ROOM && want.nnew + want.nmove == 1 && !is_limited (m, want);
  return *opens ? outcome_of (m, sum_but (m, NULL, true), want) : outcome;
}

static struct model_device *
device_of (struct model *m, uint32_t slot)
{
  for (unsigned i = 0; i < m->ndevices; i++)
    if (slot >= m->device[i].first && slot < m->device[i].end)
      return &m->device[i];
  return NULL;
}

static void
set_state (struct model *m, uint32_t slot, enum state state)
{
  struct model_device *dev = device_of (m, slot);

  bool is_used = state == USED || state == MOVING;
  bool was_used = m->state[slot] == USED || m->state[slot] == MOVING;

  if (state == FREE && dev->state != DEVICE_OPEN && !may_reopen (dev))
    m->excused = true; /* somebody has given it back, and nobody can have it */
  dev->nused += is_used - was_used;
  dev->nsuspect += (state == SUSPECT) - (m->state[slot] == SUSPECT);
  m->state[slot] = state;
}

static struct room_account *
account_of (struct model *m, unsigned who)
{
  return who ? &m->account[who].real : NULL;
}

/* Free runs of slots that are who's, all of them pages that he has no more. */
static void
free_runs (struct model *m, const struct slot_run *runs, unsigned nruns, unsigned who)
{
  struct drum_return what = { .account = account_of (m, who) };

  for (unsigned i = 0; i < nruns; i++)
    what.nshrink += runs[i].n;
  m->account[who].nused -= what.nshrink;
  drum_free (m->drum, runs, nruns, &what);
}

/* A slot in this state, if one is found quickly; else 0. */
static uint32_t
random_slot (struct model *m, enum state state)
{
  for (unsigned tries = 0; tries < 200 && m->ndevices; tries++) {
    struct model_device *dev = &m->device[rng_below (&m->rng, m->ndevices)];
    uint32_t slot = dev->first + (uint32_t) rng_below (&m->rng, dev->end - dev->first);

    if (m->state[slot] == state && !m->is_target[slot])
      return slot;
  }
  return 0;
}

static void
step_add (struct model *m)
{
  struct model_device *dev = &m->device[m->ndevices];
  uint32_t n = 1 + (uint32_t) rng_below (&m->rng, rng_below (&m->rng, 2) ? 20 : 700);
  int prio = (int) rng_below (&m->rng, 4) - 1;
  struct drum_device_info devices[MAX_DEVICES];

  if (m->ndevices == MAX_DEVICES)
    return;
  dev->swapdev = device_create (str ("%u", m->names++), prio, n);
  CHECK (m, drum_add (m->drum, dev->swapdev) == 0, "%u slots", n);
  CHECK (m, drum_devices (m->drum, devices, MAX_DEVICES) == m->ndevices + 1, "a device");
  for (unsigned i = 0; i <= m->ndevices; i++)
    if (devices[i].swapdev == dev->swapdev) {
      dev->first = devices[i].first + SWAPDEV_NRESERVED;
      dev->end = devices[i].end;
    }
  dev->prio = prio;
  dev->came = ++m->last_came;
  dev->state = DEVICE_OPEN;
  dev->leaving = false;
  dev->nused = dev->nsuspect = 0;
  CHECK (m, dev->end - dev->first == n && dev->first > SWAPDEV_NRESERVED && dev->end < MAX_SLOTS,
         "[%u, %u)", dev->first, dev->end);
  for (uint32_t slot = dev->first - SWAPDEV_NRESERVED - 1; slot <= dev->end; slot++) {
    CHECK (m, !device_of (m, slot), "slot %u or its guard is another device's", slot);
    m->state[slot] = slot >= dev->first && slot < dev->end ? FREE : NOBODYS;
  }
  m->ndevices++;
}

static struct model_device *
random_device (struct model *m)
{
  return m->ndevices ? &m->device[rng_below (&m->rng, m->ndevices)] : NULL;
}

/* Slots used on devices that are closing already. */
static unsigned
nleaving (const struct model *m)
{
  unsigned n = 0;

  for (unsigned i = 0; i < m->ndevices; i++)
    if (m->device[i].state == DEVICE_CLOSING)
      n += m->device[i].nused;
  return n;
}

/* Are there slots enough for what is promised? */
static bool
suffices (const struct model *m, struct sum sum)
{
  uint64_t nsizes = 0, nusable = sum.nslots - nkept_of (sum.nslots);

  for (unsigned i = 0; i < NACCOUNTS; i++)
    nsizes += m->account[i].nsize;
  return nreserved (m) <= nusable && (!m->no_overcommit || nsizes <= nusable);
}

/* Do its pages fit on the others, beside what is promised, with the low-water mark to spare? */
static bool
may_close (const struct model *m, const struct model_device *dev)
{
  struct sum others = sum_but (m, dev, false);
  uint64_t nkept = nkept_of (nreserved (m) ? sum_but (m, NULL, true).nslots : others.nslots);
  uint64_t spare = nkept + low_water_of (others.nslots) + nleaving (m) + npromised (m);
  bool was_open = dev->state == DEVICE_OPEN;

  if (was_open && !suffices (m, others))
    return false;
  if (dev->nused == 0 && (!was_open || npromised (m) == 0))
    return true;
  return dev->nused + spare <= others.nfree;
}

static void
step_close (struct model *m)
{
  struct model_device *dev = random_device (m);
  struct swapdev *swapdev = NULL;
  int ret, expected;

  if (!dev)
    return;
  expected = dev->leaving ? -EBUSY : may_close (m, dev) ? 0 : -ENOSPC;
  ret = drum_close_device (m->drum, place_of (swapdev_path (dev->swapdev)), &swapdev);
  CHECK (m, ret == expected, "%s: %d, not %d", swapdev_path (dev->swapdev), ret, expected);
  CHECK (m, swapdev == (ret == 0 ? dev->swapdev : NULL), "%s", "another device");
  if (ret == 0) {
    dev->before = dev->state;
    dev->state = DEVICE_CLOSING;
    dev->leaving = true;
  }
}

static void
step_end_closing (struct model *m)
{
  struct model_device *dev = random_device (m);
  bool stuck = rng_below (&m->rng, 2);

  if (!dev)
    return;
  drum_end_closing (m->drum, dev->swapdev, stuck);
  dev->leaving = false;
  if (dev->state == DEVICE_CLOSING)
    dev->state = stuck && dev->before == DEVICE_OPEN ? DEVICE_CLOSED : dev->before;
  m->excused |= stuck;
}

static void
step_reopen (struct model *m)
{
  struct model_device *dev = random_device (m);
  int ret;

  if (!dev)
    return;
  ret = drum_reopen_device (m->drum, place_of (swapdev_path (dev->swapdev)));
  CHECK (m, ret == (dev->state >= DEVICE_CLOSED && !dev->leaving ? 0 : -EBUSY), "%d", ret);
  if (ret == 0)
    dev->state = DEVICE_OPEN;
  m->excused = true; /* more is to be kept back, and all of its slots may be used */
}

static void
step_fail (struct model *m)
{
  struct model_device *dev = random_device (m);

  if (!dev)
    return;
  drum_fail_device (m->drum, dev->swapdev, "a test");
  if (dev->state == DEVICE_OPEN || dev->state == DEVICE_CLOSED)
    dev->state = DEVICE_FAILING;
  m->excused = true;
}

/* A slot takes no data. */
static void
step_suspect (struct model *m)
{
  uint32_t slot = random_slot (m, USED);
  struct drum_return what = { .nshrink = 1 };
  unsigned nsuspect = 0;

  for (unsigned i = 0; i < m->ndevices; i++)
    nsuspect += m->device[i].nsuspect;
  if (slot == 0 || nsuspect == MAX_SUSPECT)
    return;
  what.account = account_of (m, m->owner[slot]);
  m->account[m->owner[slot]].nused--;
  drum_slots_failed (m->drum, &(struct slot_run){ slot, 1 }, 1, &what, -EIO);
  set_state (m, slot, SUSPECT);
  m->excused = true;
}

/* Those that were suspect work again, on devices that are looked at; so nothing is avoided. */
static void
step_heal (struct model *m)
{
  drum_heal (m->drum);
  for (uint32_t slot = 1; slot < MAX_SLOTS; slot++)
    if (m->state[slot] == SUSPECT && device_of (m, slot) &&
        device_of (m, slot)->state <= DEVICE_CLOSING)
      set_state (m, slot, FREE);
  drum_scan_inflight (m->drum, now_ns (), UINT64_MAX);
}

static void
step_set_priority (struct model *m)
{
  struct model_device *dev = random_device (m);

  if (!dev)
    return;
  dev->prio = (int) rng_below (&m->rng, 4) - 1;
  dev->came = ++m->last_came;
  CHECK (m, drum_set_priority (m->drum, place_of (swapdev_path (dev->swapdev)), dev->prio) == 0,
         "%d", dev->prio);
}

/* End the move of a slot: the page is in its new one, or, if that failed, in the old one. */
static void
end_move (struct model *m, uint32_t slot, bool fails)
{
  uint32_t to = m->moves_to[slot];
  struct slot_run run = { .first = fails ? to : slot, .n = 1 };

  drum_free (m->drum, &run, 1,
             &(struct drum_return){ .account = account_of (m, m->owner[slot]), .nmove = 1 });
  m->nmoving--;
  m->is_target[to] = false;
  if (fails)
    set_state (m, slot, USED);
  set_state (m, run.first, FREE);
}

/* Free all slots of a device, with those that moves under way left or took there. */
static void
empty_device (struct model *m, struct model_device *dev)
{
  for (uint32_t slot = 1; slot < MAX_SLOTS; slot++)
    if (m->state[slot] == MOVING && device_of (m, slot))
      if (device_of (m, slot) == dev || device_of (m, m->moves_to[slot]) == dev)
        end_move (m, slot, false);
  for (uint32_t slot = dev->first; slot < dev->end; slot++)
    if (m->state[slot] == USED) {
      free_runs (m, &(struct slot_run){ slot, 1 }, 1, m->owner[slot]);
      set_state (m, slot, FREE);
    }
}

/* Can what is kept back and what is promised be had from the others? */
static bool
keeps_without (const struct model *m, const struct model_device *dev)
{
  struct sum others = sum_but (m, dev, false), all = sum_but (m, dev, true);

  return others.nfree >= nkept_of (others.nslots) &&
         less (all.nfree, nkept_of (all.nslots)) >= npromised (m);
}

static void
step_remove (struct model *m)
{
  struct model_device *dev = random_device (m);
  struct sum others;
  int expected;

  if (!dev)
    return;
  if (dev->nused > 0)
    CHECK (m, drum_remove (m->drum, dev->swapdev) == -EBUSY, "%u used", dev->nused);
  if (rng_below (&m->rng, 2))
    return;
  empty_device (m, dev);
  CHECK (m, dev->nused == 0, "%u used", dev->nused);
  others = sum_but (m, dev, false);
  if (dev->state != DEVICE_OPEN && !may_reopen (dev))
    expected = 0;
  else if (!suffices (m, others))
    expected = -ENOSPC;
  else
    expected = keeps_without (m, dev) ? 0 : m->nmoving > 0 ? -EAGAIN : -ENOSPC;
  CHECK (m, drum_remove (m->drum, dev->swapdev) == expected, "nothing used, %u left",
         (unsigned) others.nfree);
  if (expected < 0)
    return;
  swapdev_close (dev->swapdev);
  for (uint32_t slot = dev->first; slot < dev->end; slot++)
    m->state[slot] = NOBODYS;
  *dev = m->device[--m->ndevices];
}

/* Is every open device of a higher priority than this one's full? */
static bool
higher_are_full (const struct model *m, const struct model_device *dev)
{
  for (const struct model_device *d = m->device; d < m->device + m->ndevices; d++)
    if (d->state == DEVICE_OPEN && d->prio > dev->prio && d->nused < nusable_on (d))
      return false;
  return true;
}

/* Is a device avoided? */
static bool
any_suspect (const struct model *m)
{
  for (const struct model_device *d = m->device; d < m->device + m->ndevices; d++)
    if (d->nsuspect > 0)
      return true;
  return false;
}

/* All n slots of the runs were free, lie inside one open device each, and on the highest priorities that have any. */
static void
take_runs (struct model *m, const struct slot_run *runs, unsigned nruns, uint32_t n, int above,
           uint32_t *taken)
{
  uint32_t sum = 0;

  for (unsigned i = 0; i < nruns; i++) {
    struct model_device *dev = device_of (m, runs[i].first);

    CHECK (m, dev && runs[i].n > 0 && runs[i].first + runs[i].n <= dev->end, "run %u: %u from %u",
           i, runs[i].n, runs[i].first);
    CHECK (m, dev->state == DEVICE_OPEN && dev->prio > above, "slot %u is on a device that is %d",
           runs[i].first, dev->state);
    CHECK (m, i == 0 || runs[i - 1].first + runs[i - 1].n != runs[i].first, "runs %u are one", i);
    for (uint32_t slot = runs[i].first; slot < runs[i].first + runs[i].n; slot++) {
      CHECK (m, m->state[slot] == FREE, "slot %u is given twice", slot);
      set_state (m, slot, USED);
      CHECK (m, sum < n, "more than %u slots", n);
      taken[sum++] = slot;
    }
    CHECK (m, any_suspect (m) || higher_are_full (m, dev), "slot %u of priority %d", runs[i].first,
           dev->prio);
  }
  CHECK (m, sum == n, "%u slots", sum);
}

/* Up to n used slots of who's, or, for nobody, of anybody's, whose pages are to move; *nreturn of them, which come first, are room for others once they are freed. */
static uint32_t
slots_to_move (struct model *m, unsigned who, uint32_t n, uint32_t *old, uint32_t *nreturn)
{
  uint32_t nold = 0, slot;

  *nreturn = 0;
  for (uint32_t tries = 0; tries < 4 * n && nold < n && (slot = random_slot (m, USED)) != 0;
       tries++) {
    bool returns = device_of (m, slot)->state == DEVICE_OPEN;

    if (who && m->owner[slot] != who)
      continue;

    CHECK (m, drum_slot_returns (m->drum, slot) == returns, "slot %u", slot);
    m->is_target[slot] = true; /* so that it is not found twice */
    old[nold] = old[*nreturn];
    old[returns ? *nreturn : nold] = slot;
    *nreturn += returns;
    nold++;
  }
  for (uint32_t i = 0; i < nold; i++)
    m->is_target[old[i]] = false;
  return nold;
}

/* Is there so much room on open devices above this priority? */
static bool
has_room_above (const struct model *m, int above, uint32_t n)
{
  uint64_t nfree = 0;

  for (const struct model_device *d = m->device; d < m->device + m->ndevices; d++)
    if (d->state == DEVICE_OPEN && d->prio > above)
      nfree += nusable_on (d) - d->nused;
  return n <= nfree;
}

static void
open_closing (struct model *m)
{
  for (unsigned i = 0; i < m->ndevices; i++)
    if (may_reopen (&m->device[i]))
      m->device[i].state = DEVICE_OPEN;
}

/* A page of somebody who is within his reserve gets a slot, whatever the others do. */
static void
check_honoured (struct model *m, struct want want, enum outcome outcome)
{
  const struct model_account *a = &m->account[want.who];

  if (want.ngrow == 1 && want.nnew + want.nmove == 1 && a->nused < a->nreserved && !m->excused) {
    CHECK (m, outcome != NO_ROOM, "account %u", want.who);
    m->nhonoured++;
  }
}

/* Slots for new pages, for moves, and for pages that leave closed devices, which count as new. */
static void
step_alloc (struct model *m)
{
  uint32_t n = 1 + (uint32_t) rng_below (&m->rng, rng_below (&m->rng, 2) ? 4 : DRUM_BATCH);
  uint32_t most = (uint32_t) rng_below (&m->rng, 3) ? 0 : (uint32_t) rng_below (&m->rng, n + 1);
  int above = rng_below (&m->rng, 4) ? PRIO_ANY : (int) rng_below (&m->rng, 5) - 2;
  uint32_t old[DRUM_BATCH + 1], taken[DRUM_BATCH], nold, nmove;
  struct slot_run runs[DRUM_BATCH + 1] = { { .n = 0 } };
  struct want want = { .who = (unsigned) rng_below (&m->rng, NACCOUNTS) };
  struct drum_demand demand;
  enum outcome outcome;
  bool opens = false;
  unsigned nruns = 77;
  int ret;

  runs[DRUM_BATCH].n = 12345;
  nold = slots_to_move (m, want.who, most, old, &nmove);
  want.ngrow = n - most;
  n = want.ngrow + nold;
  want.nmove = nmove;
  want.nnew = n - nmove;
  if (n == 0)
    return;
  if (above == PRIO_ANY) {
    outcome = outcome_for_a_page (m, want, &opens);
    check_honoured (m, want, outcome);
  } else {
    outcome = outcome_of (m, sum_but (m, NULL, false), want);
    outcome = outcome == ROOM && has_room_above (m, above, n) ? ROOM : NO_ROOM;
  }
  if (outcome == WAITS)
    return;
  demand = (struct drum_demand){
    account_of (m, want.who),
    want.nnew,
    want.nmove,
    want.ngrow,
  };
  ret = above == PRIO_ANY ? drum_alloc (m->drum, &demand, runs, &nruns)
                          : drum_alloc_above (m->drum, above, &demand, runs, &nruns);
  CHECK (m, ret == (outcome == ROOM ? 0 : -ENOSPC), "%u: %u (%u) and %u moves above %d: %d",
         want.who, want.nnew, want.ngrow, nmove, above, ret);
  CHECK (m, runs[DRUM_BATCH].n == 12345, "written behind the end");
  if (opens)
    open_closing (m);
  if (ret < 0) {
    CHECK (m, nruns == 77 && (above != PRIO_ANY || runs[0].n == 0), "output changed on failure");
    return;
  }
  take_runs (m, runs, nruns, n, above, taken);
  m->nmoving += nmove;
  m->account[want.who].nused += want.ngrow;
  for (uint32_t i = 0; i < n; i++)
    m->owner[taken[i]] = i < nold ? m->owner[old[i]] : (unsigned char) want.who;
  for (uint32_t i = 0; i < nmove; i++) {
    set_state (m, old[i], MOVING);
    m->moves_to[old[i]] = taken[i];
    m->is_target[taken[i]] = true;
  }
  for (uint32_t i = nmove; i < nold; i++) {
    drum_free (m->drum, &(struct slot_run){ .first = old[i], .n = 1 }, 1, NULL);
    set_state (m, old[i], FREE);
  }
}

/* Promise somebody something else: of slots that there are, or even more. */
static void
step_promise (struct model *m)
{
  struct model_account *a = &m->account[1 + rng_below (&m->rng, NACCOUNTS - 1)];
  struct sum sum = sum_but (m, NULL, false);
  uint64_t nusable = sum.nslots - nkept_of (sum.nslots), nothers = nreserved (m) - a->nreserved;
  uint64_t unfilled = npromised (m) - less (a->nreserved, a->nused), nsizes = 0;
  uint64_t base = less (sum.nfree + m->nmoving, nkept_of (sum_but (m, NULL, true).nslots));
  bool force = rng_below (&m->rng, 16) == 0;
  struct room_promise want = { .nreserved = rng_below (&m->rng, nusable / 2 + 2) };
  struct room_shortage shortage = { .npages = 0 };
  int ret, expected = 0;

  for (unsigned i = 0; i < NACCOUNTS; i++)
    nsizes += m->account[i].nsize;
  nsizes -= a->nsize;
  if (rng_below (&m->rng, 2)) /* just as much as there is, or one more */
    want.nreserved = a->nused + less (base, unfilled) + rng_below (&m->rng, 2);
  want.nlimit = rng_below (&m->rng, 2) ? 0 : want.nreserved + rng_below (&m->rng, 200);
  want.nsize = want.nreserved + rng_below (&m->rng, 300);
  if (want.nreserved > a->nreserved &&
      (nothers + want.nreserved > nusable || unfilled + less (want.nreserved, a->nused) > base))
    expected = -ENOSPC;
  if (want.nsize > a->nsize && m->no_overcommit && nsizes + want.nsize > nusable)
    expected = -ENOSPC;
  ret = drum_promise (m->drum, &a->real, &want, force, &shortage);
  CHECK (m, ret == (force ? 0 : expected), "%u reserved: %d", (unsigned) want.nreserved, ret);
  CHECK (m, (ret < 0) == (shortage.npages > shortage.nslots), "why: %u pages, %u slots",
         (unsigned) shortage.npages, (unsigned) shortage.nslots);
  if (ret < 0)
    return;
  a->nsize = want.nsize;
  a->nreserved = want.nreserved;
  a->nlimit = want.nlimit;
  m->excused |= force;
}

/* Pages become another's, if he may have so many, and what is promised can still be kept; or by force. */
static void
step_pass (struct model *m)
{
  unsigned from = 1 + (unsigned) rng_below (&m->rng, NACCOUNTS - 1), n = 0;
  unsigned to = 1 + (unsigned) rng_below (&m->rng, NACCOUNTS - 1);
  uint32_t slot[50], had = npromised (m);
  bool force = rng_below (&m->rng, 4) == 0;
  struct sum sum = sum_but (m, NULL, false);
  uint64_t base = less (sum.nfree + m->nmoving, nkept_of (sum_but (m, NULL, true).nslots));
  struct model_account *a = &m->account[from], *b = &m->account[to];
  struct room_shortage shortage;
  int ret;

  if (from == to)
    return;
  for (unsigned i = 0; i < 50; i++)
    if ((slot[n] = random_slot (m, USED)) && m->owner[slot[n]] == from)
      m->owner[slot[n++]] = (unsigned char) to;
  a->nused -= n;
  b->nused += n;
  ret = drum_pass_account (m->drum, &a->real, &b->real, n, force, &shortage);
  if ((b->nlimit && b->nused > b->nlimit) || (npromised (m) > had && npromised (m) > base))
    CHECK (m, ret == -ENOSPC, "%u pages of %u to %u: %d", n, from, to, ret);
  else
    CHECK (m, ret == 0, "%u pages of %u to %u: %d", n, from, to, ret);
  m->excused |= force;
  if (ret == 0 || force)
    return;
  a->nused += n;
  b->nused -= n;
  while (n > 0)
    m->owner[slot[--n]] = (unsigned char) from;
}

/* Free runs of used slots, that neither move nor are moved to. */
static void
step_free (struct model *m)
{
  unsigned nruns = 0, max = 1 + (unsigned) rng_below (&m->rng, DRUM_BATCH), who = 0;
  struct slot_run runs[DRUM_BATCH];

  while (nruns < max) {
    uint32_t first = random_slot (m, USED), n = 0, longest = 1 + (uint32_t) rng_below (&m->rng, 30);

    if (first == 0)
      break;
    if (nruns == 0)
      who = m->owner[first];
    else if (m->owner[first] != who)
      break;
    for (; n < longest && m->state[first + n] == USED && !m->is_target[first + n] &&
           m->owner[first + n] == who;
         n++)
      set_state (m, first + n, FREE);
    runs[nruns++] = (struct slot_run){ .first = first, .n = n };
    if (rng_below (&m->rng, 8) == 0)
      break;
  }
  if (nruns > 0)
    free_runs (m, runs, nruns, who);
}

static void
step_end_moves (struct model *m)
{
  for (unsigned i = 0; i < 20; i++) {
    uint32_t slot = random_slot (m, MOVING);

    if (slot)
      end_move (m, slot, rng_below (&m->rng, 4) == 0);
  }
}

static void
check_devices (struct model *m)
{
  struct drum_device_info devices[MAX_DEVICES];
  const struct model_device *before = NULL;
  unsigned n = drum_devices (m->drum, devices, MAX_DEVICES);

  CHECK (m, n == m->ndevices, "%u", n);
  for (unsigned i = 0; i < n; i++) {
    const struct model_device *dev = device_of (m, devices[i].end - 1);
    const char *path = swapdev_path (devices[i].swapdev);

    CHECK (m, dev && devices[i].nslots == nusable_on (dev), "%s", path);
    CHECK (m, devices[i].nslots - devices[i].nfree == dev->nused, "%s", path);
    CHECK (m, devices[i].state == dev->state, "%s: %d, not %d", path, devices[i].state, dev->state);
    CHECK (m, devices[i].prio == dev->prio, "%s", path);
    CHECK (m,
           !before || before->prio > dev->prio ||
             (before->prio == dev->prio && before->came < dev->came),
           "%s stands behind %s", path, swapdev_path (before->swapdev));
    before = dev;
  }
}

/* All slots that are used are somebody's, and he knows how many; and what is promised can be had. */
static void
check_accounts (struct model *m)
{
  struct sum all = sum_but (m, NULL, true);
  unsigned count[NACCOUNTS] = { 0 };

  for (uint32_t slot = 1; slot < MAX_SLOTS; slot++)
    count[m->owner[slot]] += m->state[slot] == USED && !m->is_target[slot];
  for (uint32_t slot = 1; slot < MAX_SLOTS; slot++)
    count[m->owner[slot]] += m->state[slot] == MOVING;
  for (unsigned i = 1; i < NACCOUNTS; i++) {
    CHECK (m, count[i] == m->account[i].nused, "account %u: %u", i, count[i]);
    CHECK (m, m->account[i].real.nused == m->account[i].nused, "account %u", i);
  }
  if (npromised (m) <= less (all.nfree + m->nmoving, nkept_of (all.nslots)))
    m->excused = false;
  else
    CHECK (m, m->excused, "%u are promised, and can't be kept", (unsigned) npromised (m));
}

static void
check_usage (struct model *m)
{
  struct sum sum = sum_but (m, NULL, false);
  struct drum_usage usage;

  drum_usage (m->drum, &usage);
  CHECK (m, usage.nslots == sum.nslots && usage.nfree == sum.nfree, "%u of %u",
         (unsigned) usage.nfree, (unsigned) usage.nslots);
  CHECK (m, usage.nkept == nkept_of (sum.nslots), "%u", (unsigned) usage.nkept);
  CHECK (m, usage.nreserved == nreserved (m) && usage.npromised == npromised (m), "%u of %u",
         (unsigned) usage.npromised, (unsigned) usage.nreserved);
  CHECK (m, usage.overcommit == !m->no_overcommit, "%d", usage.overcommit);
  check_accounts (m);
  check_devices (m);
  CHECK (m, drum_check (m->drum), "%s", "");
}

/* What is to happen less often. */
static void
step_others (struct model *m)
{
  switch (rng_below (&m->rng, 12)) {
  case 0:
    step_fail (m);
    break;
  case 1:
    step_pass (m);
    break;
  case 2:
    m->no_overcommit = rng_below (&m->rng, 3) == 0;
    drum_set_overcommit (m->drum, !m->no_overcommit);
    break;
  case 3:
  case 4:
  case 5:
    step_heal (m);
    break;
  default:
    step_suspect (m);
  }
}

static void
compare_with_model (unsigned nsteps, uint32_t stripe_slots, unsigned who)
{
  static struct model m;

  memset (&m, 0, sizeof m);
  m.rng = rng_for (who);
  m.drum = drum_make (stripe_slots);
  for (unsigned i = 0; i < NACCOUNTS; i++)
    m.account[i].real.name = "model";
  for (m.step = 0; m.step < nsteps; m.step++) {
    bool grows = m.step / 100 % 2 == 0;
    uint64_t what = rng_below (&m.rng, 100);

    if (what < 2)
      step_add (&m);
    else if (what < 4)
      step_remove (&m);
    else if (what < 6)
      step_close (&m);
    else if (what < 7)
      step_end_closing (&m);
    else if (what < 8)
      step_reopen (&m);
    else if (what < 9)
      step_set_priority (&m);
    else if (what < 10)
      step_others (&m);
    else if (what < 12)
      step_promise (&m);
    else if (what < 20)
      step_end_moves (&m);
    else if (what < (grows ? 90 : 40))
      step_alloc (&m);
    else
      step_free (&m);
    check_usage (&m);
  }
  CHECK (&m, m.nhonoured > 10 || nsteps < 3000, "only %u", m.nhonoured);
  drum_destroy (m.drum);
}

static void
setup (void)
{
  scratch_setup ();
  logged_start ();
}

TestSuite (drum_model, .init = setup, .fini = scratch_teardown, .timeout = 600);

/* Whatever is taken, moved, freed, added and removed, the drum says the same as an array of slots. */
Test (drum_model, default_stripe)
{
  compare_with_model (random_steps (6000), 16, 1);
}

/* The same with a stripe of one slot. */
Test (drum_model, smallest_stripe)
{
  compare_with_model (random_steps (4000), 1, 2);
}

/* The same with a stripe longer than any request and any device. */
Test (drum_model, largest_stripe)
{
  compare_with_model (random_steps (4000), 1024, 3);
}
