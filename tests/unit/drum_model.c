/* SPDX-License-Identifier: BSD-3-Clause
 *
 * drum_model.c - lib/drum.c compared with a plain array of slots, over random steps.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

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
  uint32_t first, end, nused; /* usable slots: [first, end) */
};

struct model {
  struct drum *drum;
  struct rng rng;
  unsigned step, names;
  enum state state[MAX_SLOTS];
  uint32_t moves_to[MAX_SLOTS]; /* of a slot that is MOVING */
  bool is_target[MAX_SLOTS];    /* of a move under way: not to be touched otherwise */
  unsigned ndevices;
  struct model_device device[MAX_DEVICES];
  uint64_t nslots, nfree, nmoving;
};

#define CHECK(m, condition, ...)                                                           \
  do {                                                                                     \
    if (!(condition))                                                                      \
      cr_assert (false, "DRUM_TEST_SEED=%" PRIu64 ", step %u: not %s: %s", random_seed (), \
                 (m)->step, #condition, str (__VA_ARGS__));                                \
  } while (0)

static uint64_t
model_nkept (const struct model *m)
{
  uint64_t n = m->nslots / 64;

  return m->nslots == 0 ? 0 : n == 0 ? 1 : n > 1024 ? 1024 : n;
}

static uint64_t
model_room (const struct model *m)
{
  uint64_t nfree = m->nfree + m->nmoving;

  return nfree < model_nkept (m) ? 0 : nfree - model_nkept (m);
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
  m->nfree += (state == FREE) - (m->state[slot] == FREE);
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
  dev->nused = 0;
  CHECK (m, dev->end - dev->first == n && dev->first > SWAPDEV_NRESERVED && dev->end < MAX_SLOTS,
         "[%u, %u)", dev->first, dev->end);
  for (uint32_t slot = dev->first - SWAPDEV_NRESERVED - 1; slot <= dev->end; slot++) {
    CHECK (m, !device_of (m, slot), "slot %u or its guard is another device's", slot);
    m->state[slot] = slot >= dev->first && slot < dev->end ? FREE : NOBODYS;
  }
  m->ndevices++;
  m->nslots += n;
  m->nfree += n;
}

/* End the move of a slot: the page is in its new one, or, if that failed, in the old one. */
static void
end_move (struct model *m, uint32_t slot, bool fails)
{
  uint32_t to = m->moves_to[slot];
  struct slot_run run = { .first = fails ? to : slot, .n = 1 };

  drum_free (m->drum, &run, 1, 1);
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

      drum_free (m->drum, &run, 1, 0);
      set_state (m, slot, FREE);
    }
}

static void
step_remove (struct model *m)
{
  struct model_device *dev;
  uint64_t n;

  if (m->ndevices == 0)
    return;
  dev = &m->device[rng_below (&m->rng, m->ndevices)];
  if (dev->nused > 0)
    CHECK (m, drum_remove (m->drum, dev->swapdev) == -EBUSY, "%u used", dev->nused);
  if (rng_below (&m->rng, 2))
    return;
  empty_device (m, dev);
  CHECK (m, dev->nused == 0, "%u used", dev->nused);
  n = dev->end - dev->first;
  if (m->nfree - n < (m->nslots - n) / 64 + 1)
    return; /* what is left must have its slots kept back */
  CHECK (m, drum_remove (m->drum, dev->swapdev) == 0, "nothing used");
  for (uint32_t slot = dev->first; slot < dev->end; slot++)
    m->state[slot] = NOBODYS;
  m->nslots -= n;
  m->nfree -= n;
  *dev = m->device[--m->ndevices];
}

/* Is every device of a higher priority than this one's full? */
static bool
higher_are_full (const struct model *m, const struct model_device *dev)
{
  for (unsigned i = 0; i < m->ndevices; i++)
    if (m->device[i].prio > dev->prio && m->device[i].nused < m->device[i].end - m->device[i].first)
      return false;
  return true;
}

/* All n slots of the runs were free, lie inside one device each, and on the highest priorities that have any. */
static void
take_runs (struct model *m, const struct slot_run *runs, unsigned nruns, uint32_t n,
           uint32_t *taken)
{
  uint32_t sum = 0;

  for (unsigned i = 0; i < nruns; i++) {
    struct model_device *dev = device_of (m, runs[i].first);

    CHECK (m, dev && runs[i].n > 0 && runs[i].first + runs[i].n <= dev->end, "run %u: %u from %u",
           i, runs[i].n, runs[i].first);
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

static void
step_alloc (struct model *m)
{
  uint32_t n = 1 + (uint32_t) rng_below (&m->rng, rng_below (&m->rng, 2) ? 4 : DRUM_BATCH);
  uint32_t nmove = (uint32_t) rng_below (&m->rng, 3) ? 0 : (uint32_t) rng_below (&m->rng, n + 1);
  uint32_t old[DRUM_BATCH], taken[DRUM_BATCH], nold = 0;
  struct slot_run runs[DRUM_BATCH + 1] = { { .n = 0 } };
  unsigned nruns = 77;
  bool fits;
  int ret;

  runs[DRUM_BATCH].n = 12345;
  while (nold < nmove && (old[nold] = random_slot (m, USED)) != 0) {
    m->is_target[old[nold]] = true; /* so that it is not found twice */
    nold++;
  }
  n = n - nmove + nold;
  nmove = nold;
  for (uint32_t i = 0; i < nold; i++)
    m->is_target[old[i]] = false;
  if (n == 0 || (n == 1 && n - nmove <= model_room (m) && m->nfree == 0 && m->nmoving > 0))
    return; /* that would wait */
  fits = n - nmove <= model_room (m) && n <= m->nfree;
  ret = drum_alloc (m->drum, n - nmove, nmove, runs, &nruns);
  CHECK (m, ret == (fits ? 0 : -ENOSPC), "%u and %u moves: %d", n - nmove, nmove, ret);
  CHECK (m, runs[DRUM_BATCH].n == 12345, "written behind the end");
  if (ret < 0) {
    CHECK (m, nruns == 77 && runs[0].n == 0, "output changed on failure");
    return;
  }
  take_runs (m, runs, nruns, n, taken);
  m->nmoving += nmove;
  for (uint32_t i = 0; i < nmove; i++) {
    set_state (m, old[i], MOVING);
    m->moves_to[old[i]] = taken[i];
    m->is_target[taken[i]] = true;
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
    drum_free (m->drum, runs, nruns, 0);
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
check_usage (struct model *m)
{
  struct drum_device_info devices[MAX_DEVICES];
  struct drum_usage usage;
  unsigned n = drum_devices (m->drum, devices, MAX_DEVICES);

  drum_usage (m->drum, &usage);
  CHECK (m, usage.nslots == m->nslots && usage.nfree == m->nfree, "%u of %u",
         (unsigned) usage.nfree, (unsigned) usage.nslots);
  CHECK (m, usage.nkept == model_nkept (m), "%u", (unsigned) usage.nkept);
  CHECK (m, n == m->ndevices, "%u", n);
  for (unsigned i = 0; i < n; i++) {
    struct model_device *dev = device_of (m, devices[i].end - 1);

    CHECK (m, dev && devices[i].nslots == dev->end - dev->first, "%s",
           swapdev_path (devices[i].swapdev));
    CHECK (m, devices[i].nslots - devices[i].nfree == dev->nused, "%s",
           swapdev_path (devices[i].swapdev));
    CHECK (m, devices[i].prio == dev->prio, "%s", swapdev_path (devices[i].swapdev));
    CHECK (m, i == 0 || devices[i - 1].prio >= devices[i].prio, "%s",
           swapdev_path (devices[i].swapdev));
  }
  CHECK (m, m->step % 16 || drum_check (m->drum), "%s", "");
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
    else if (what < 15)
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
