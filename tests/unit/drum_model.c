/* SPDX-License-Identifier: BSD-3-Clause
 *
 * drum_model.c - lib/drum.c compared with a plain array of slots, over random steps.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "lib/placement.h"
#include "tests/random.h"
#include "tests/scratch.h"

#include "devices.h"
#include "logged.h"

enum { MAX_SLOTS = 20000, MAX_DEVICES = 12 };

enum state {
  NOBODYS,
  FREE,
  USED,
  MOVING
}; /* MOVING: its page has got another slot, which is not final yet */

struct model_device {
  struct swapdev *swapdev;
  int prio;
  unsigned came; /* the how-manieth to come to its priority */
  enum drum_device_state state;
  enum drum_device_state before; /* closing: what it was */
  bool leaving;                  /* it was closed, and nobody has said that this has ended */
  uint32_t first, end, nused;    /* usable slots: [first, end) */
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

/* Of the open devices but one, or, with closing, as if those that are closing were open. */
static struct sum
sum_but (const struct model *m, const struct model_device *but, bool closing)
{
  struct sum sum = { .nslots = 0 };

  for (const struct model_device *dev = m->device; dev < m->device + m->ndevices; dev++)
    if (dev != but && (dev->state == DEVICE_OPEN ||
                       (closing && dev->state == DEVICE_CLOSING && dev->before == DEVICE_OPEN))) {
      sum.nslots += dev->end - dev->first;
      sum.nfree += dev->end - dev->first - dev->nused;
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

/* What comes of an alloc while these are open? */
static enum outcome
outcome_of (const struct model *m, struct sum sum, uint32_t nnew, uint32_t nmove)
{
  uint64_t nkept = nkept_of (sum.nslots), nfree = sum.nfree + m->nmoving;
  bool has_room = nnew <= (nfree < nkept ? 0 : nfree - nkept);

  if (has_room && nnew + nmove == 1 && sum.nfree == 0 && m->nmoving > 0)
    return WAITS;
  return has_room && nnew + nmove <= sum.nfree ? ROOM : NO_ROOM;
}

/* The same for a page that may open those that are closing; *opens says if it does. */
static enum outcome
outcome_for_a_page (const struct model *m, uint32_t nnew, uint32_t nmove, bool *opens)
{
  enum outcome outcome = outcome_of (m, sum_but (m, NULL, false), nnew, nmove);

  *opens = outcome == NO_ROOM && nnew + nmove == 1;
  return *opens ? outcome_of (m, sum_but (m, NULL, true), nnew, nmove) : outcome;
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

  dev->nused += (state != FREE) - (m->state[slot] != FREE);
  m->state[slot] = state;
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
  dev->nused = 0;
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

/* It is closed if its pages fit on the others, with the low-water mark to spare. */
static void
step_close (struct model *m)
{
  struct model_device *dev = random_device (m);
  struct swapdev *swapdev = NULL;
  struct sum others;
  int ret, expected;

  if (!dev)
    return;
  others = sum_but (m, dev, false);
  expected = dev->leaving ? -EBUSY
             : dev->nused > 0 && dev->nused + nkept_of (others.nslots) +
                                     low_water_of (others.nslots) + nleaving (m) >
                                   others.nfree
               ? -ENOSPC
               : 0;
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
    dev->state = stuck ? DEVICE_CLOSED : dev->before;
}

static void
step_reopen (struct model *m)
{
  struct model_device *dev = random_device (m);
  int ret;

  if (!dev)
    return;
  ret = drum_reopen_device (m->drum, place_of (swapdev_path (dev->swapdev)));
  CHECK (m, ret == (dev->state == DEVICE_CLOSED ? 0 : -EBUSY), "%d", ret);
  if (ret == 0)
    dev->state = DEVICE_OPEN;
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

  drum_free (m->drum, &run, 1, &(struct drum_return){ .nmove = 1 });
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
      struct slot_run run = { .first = slot, .n = 1 };

      drum_free (m->drum, &run, 1, NULL);
      set_state (m, slot, FREE);
    }
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
  expected = others.nfree >= nkept_of (others.nslots) ? 0 : m->nmoving > 0 ? -EAGAIN : -ENOSPC;
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
    if (d->state == DEVICE_OPEN && d->prio > dev->prio && d->nused < d->end - d->first)
      return false;
  return true;
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
    CHECK (m, higher_are_full (m, dev), "slot %u of priority %d", runs[i].first, dev->prio);
  }
  CHECK (m, sum == n, "%u slots", sum);
}

/* Up to n used slots, whose pages are to move; *nreturn of them, which come first, are room for others once they are freed. */
static uint32_t
slots_to_move (struct model *m, uint32_t n, uint32_t *old, uint32_t *nreturn)
{
  uint32_t nold = 0, slot;

  *nreturn = 0;
  while (nold < n && (slot = random_slot (m, USED)) != 0) {
    bool returns = device_of (m, slot)->state == DEVICE_OPEN;

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
      nfree += d->end - d->first - d->nused;
  return n <= nfree;
}

static void
open_closing (struct model *m)
{
  for (unsigned i = 0; i < m->ndevices; i++)
    if (m->device[i].state == DEVICE_CLOSING && m->device[i].before == DEVICE_OPEN)
      m->device[i].state = DEVICE_OPEN;
}

/* Slots for new pages, for moves, and for pages that leave closed devices, which count as new. */
static void
step_alloc (struct model *m)
{
  uint32_t n = 1 + (uint32_t) rng_below (&m->rng, rng_below (&m->rng, 2) ? 4 : DRUM_BATCH);
  uint32_t want = (uint32_t) rng_below (&m->rng, 3) ? 0 : (uint32_t) rng_below (&m->rng, n + 1);
  int above = rng_below (&m->rng, 4) ? PRIO_ANY : (int) rng_below (&m->rng, 5) - 2;
  uint32_t old[DRUM_BATCH + 1], taken[DRUM_BATCH], nold, nmove;
  struct slot_run runs[DRUM_BATCH + 1] = { { .n = 0 } };
  enum outcome outcome;
  bool opens = false;
  unsigned nruns = 77;
  int ret;

  runs[DRUM_BATCH].n = 12345;
  nold = slots_to_move (m, want, old, &nmove);
  n = n - want + nold;
  if (n == 0)
    return;
  if (above == PRIO_ANY)
    outcome = outcome_for_a_page (m, n - nmove, nmove, &opens);
  else {
    outcome = outcome_of (m, sum_but (m, NULL, false), n - nmove, nmove);
    outcome = outcome == ROOM && has_room_above (m, above, n) ? ROOM : NO_ROOM;
  }
  if (outcome == WAITS)
    return;
  ret =
    above == PRIO_ANY
      ? drum_take_runs (m->drum, n - nmove, nmove, runs, &nruns)
      : drum_alloc_above (m->drum, above,
                          &(struct drum_demand){ .nnew = n - nmove, .nmove = nmove }, runs, &nruns);
  CHECK (m, ret == (outcome == ROOM ? 0 : -ENOSPC), "%u and %u moves above %d: %d", n - nmove,
         nmove, above, ret);
  CHECK (m, runs[DRUM_BATCH].n == 12345, "written behind the end");
  if (opens)
    open_closing (m);
  if (ret < 0) {
    CHECK (m, nruns == 77 && (above != PRIO_ANY || runs[0].n == 0), "output changed on failure");
    return;
  }
  take_runs (m, runs, nruns, n, above, taken);
  m->nmoving += nmove;
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

/* Free runs of used slots, that neither move nor are moved to. */
static void
step_free (struct model *m)
{
  unsigned nruns = 0, max = 1 + (unsigned) rng_below (&m->rng, DRUM_BATCH);
  struct slot_run runs[DRUM_BATCH];

  while (nruns < max) {
    uint32_t first = random_slot (m, USED), n = 0, longest = 1 + (uint32_t) rng_below (&m->rng, 30);

    if (first == 0)
      break;
    for (; n < longest && m->state[first + n] == USED && !m->is_target[first + n]; n++)
      set_state (m, first + n, FREE);
    runs[nruns++] = (struct slot_run){ .first = first, .n = n };
    if (rng_below (&m->rng, 8) == 0)
      break;
  }
  if (nruns > 0)
    drum_free (m->drum, runs, nruns, NULL);
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

    CHECK (m, dev && devices[i].nslots == dev->end - dev->first, "%s", path);
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

static void
check_usage (struct model *m)
{
  struct sum sum = sum_but (m, NULL, false);
  struct drum_usage usage;

  drum_usage (m->drum, &usage);
  CHECK (m, usage.nslots == sum.nslots && usage.nfree == sum.nfree, "%u of %u",
         (unsigned) usage.nfree, (unsigned) usage.nslots);
  CHECK (m, usage.nkept == nkept_of (sum.nslots), "%u", (unsigned) usage.nkept);
  check_devices (m);
  CHECK (m, drum_check (m->drum), "%s", "");
}

static void
compare_with_model (unsigned nsteps, uint32_t stripe_slots, unsigned who)
{
  static struct model m;

  memset (&m, 0, sizeof m);
  m.rng = rng_for (who);
  m.drum = drum_make (stripe_slots);
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
    else if (what < 20)
      step_end_moves (&m);
    else if (what < (grows ? 90 : 40))
      step_alloc (&m);
    else
      step_free (&m);
    check_usage (&m);
  }
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
