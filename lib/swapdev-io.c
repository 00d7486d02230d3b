/* SPDX-License-Identifier: BSD-3-Clause
 *
 * swapdev-io.c - see swapdev.h: the I/O of a device, and of several at once.
 *
 * A transfer has a turn, as long as the turnstile lets in all of it, or one after the other; with O_DIRECT also a buffer for each. Who
 * waits for a turn or a buffer has nothing under way; who has, takes what is to be had at once, and comes back for the rest when some of it has
 * ended: so nobody waits in a circle, and a device that hangs holds no turn on another one. What the kernel does not take for a ring gives its
 * turn up, and is done alone when nothing else is under way, for the same reason.
 */
#include <config.h>

#include <errno.h>
#include <stdatomic.h>

#include "ring.h"
#include "swapdev-impl.h"

enum {
  PAGE_NS = 2000, /* to copy a page takes less */
  RING_NS = 50 * 1000,
  DELAY_MAX_NS = 1000 * 1000 * 1000,
  SMOOTHING = 8,
};

static uint32_t
count_slots (const struct iovec *iov, unsigned niov)
{
  size_t bytes = 0;

  for (unsigned i = 0; i < niov; i++)
    bytes += iov[i].iov_len;
  return (uint32_t) (bytes >> PAGE_SHIFT);
}

/* A turn for what is left of it, or for less. False: it would have to wait. */
static bool
get_turn (struct swapdev_io *io, bool may_wait)
{
  struct turnstile *t = &io->dev->turnstile;

  io->turn.slot = io->slot;
  if (may_wait)
    io->nturn = turnstile_enter (t, &io->turn, io->flow, io->write, io->nslots);
  else if (turnstile_try_enter (t, &io->turn, io->flow, io->write, io->nslots))
    io->nturn = io->turn.npages;
  else
    return false;
  return true;
}

/* The same for a buffer for so many pages, if it needs one. */
static bool
get_buffer (struct swapdev_io *io, uint32_t npages, bool may_wait)
{
  struct swapdev *dev = io->dev;
  struct turnstile *share;

  io->buffer = NULL;
  if (!devio_needs_buffer (&dev->io, io->iov, io->niov))
    return true;
  io->share.slot = io->slot;
  io->kind = bounce_kind ((size_t) npages * PAGE_BYTES);
  share = &dev->share[io->kind];
  if (may_wait)
    turnstile_enter (share, &io->share, io->flow, io->write, npages);
  else if (!turnstile_try_enter (share, &io->share, io->flow, io->write, npages))
    return false;
  io->buffer =
    may_wait ? bounce_get (dev->bounce, io->kind) : bounce_try_get (dev->bounce, io->kind);
  if (!io->buffer)
    turnstile_leave (share, &io->share);
  return io->buffer;
}

/* A transfer of so many pages took so long. What a page cache takes, or has, costs little more than the copy; a disk makes one wait. */
static void
note_delay (struct swapdev *dev, bool write, uint64_t ns, uint32_t npages)
{
  uint64_t copy_ns = (uint64_t) npages * PAGE_NS, delay_ns = ns > copy_ns ? ns - copy_ns : 0;
  uint32_t was_ns = atomic_load_explicit (&dev->delay_ns[write], memory_order_relaxed), is_ns;

  delay_ns = delay_ns < DELAY_MAX_NS ? delay_ns : DELAY_MAX_NS;
  is_ns = was_ns - was_ns / SMOOTHING + (uint32_t) delay_ns / SMOOTHING;
  if (is_ns != was_ns)
    atomic_store_explicit (&dev->delay_ns[write], is_ns, memory_order_relaxed);
}

/* How long does one wait, these days? */
static uint32_t
load_delay (const struct swapdev *dev, bool write)
{
  return atomic_load_explicit (&dev->delay_ns[write], memory_order_relaxed);
}

/* Has head nothing to learn from a transfer that has ended? A fast device never has. */
static bool
needs_no_head (const struct swapdev_io *io, uint64_t end_ns)
{
  struct swapdev *dev = io->dev;
  uint64_t from_ns = atomic_load_explicit (&dev->head.from_ns, memory_order_relaxed);

  return from_ns != 0 && (!io->write || load_delay (dev, true) < HEAD_SLOW_NS || end_ns < from_ns);
}

/* => holds dev->trying, and io its turn. */
static void
note_head_locked (const struct swapdev_io *io, uint64_t end_ns)
{
  struct turnstile *t = &io->dev->turnstile;
  struct head *h = &io->dev->head;

  mutex_assert_held (&io->dev->trying);
  if (h->one != turnstile_is_single (t))
    head_give_up (h, end_ns, TURNSTILE_HANG_NS);
  else if (turnstile_has_window (t))
    head_interrupt (h, end_ns);
  else
    head_note (h, &(struct head_io){ .begin_ns = io->begin_ns,
                                     .end_ns = end_ns,
                                     .npages = io->nturn,
                                     .write = io->write,
                                     .alone = turnstile_is_alone (t) });
  if (h->one != turnstile_is_single (t))
    turnstile_set_single (t, h->one);
}

/* => has its turn, whose I/O has come to this. Should there be more at once, or less? */
static void
note_head (const struct swapdev_io *io, uint64_t end_ns, int ret)
{
  struct swapdev *dev = io->dev;

  if (ret < 0 || needs_no_head (io, end_ns) || turnstile_limit (&dev->turnstile) > 0)
    return;
  mutex_lock (&dev->trying);
  note_head_locked (io, end_ns);
  mutex_unlock (&dev->trying);
}

/* Would one wait for it, so that something else may as well be under way meanwhile? */
static bool
is_slow (const struct swapdev_io *io)
{
  return io->dev->io.align > 0 || load_delay (io->dev, io->write) > RING_NS;
}

/* Are there at least two to wait for? A ring costs more than system calls that need not sleep, above all for writes into the page cache,
 * which the kernel gives to threads of its own. */
static bool
is_worth_a_ring (const struct swapdev_io *io, unsigned n)
{
  unsigned nslow = 0;

  for (unsigned i = 0; i < n && nslow < 2; i++)
    nslow += is_slow (&io[i]);
  return nslow == 2;
}

static void
put_buffer (struct swapdev_io *io)
{
  if (!io->buffer)
    return;
  bounce_put (io->dev->bounce, io->kind, io->buffer);
  turnstile_leave (&io->dev->share[io->kind], &io->share);
}

/* Who waits has his turn before his buffer, since those are few; who does not gives no turn back unused. */
static bool
enter (struct swapdev_io *io, bool may_wait)
{
  if (may_wait)
    return get_turn (io, true) && get_buffer (io, io->nturn, true);
  if (!get_buffer (io, io->nslots, false))
    return false;
  if (get_turn (io, false))
    return true;
  put_buffer (io);
  return false;
}

/* How many pieces of iov so many bytes are; *excess is what the last one has beyond them. */
static unsigned
count_pieces (const struct iovec *iov, size_t nbytes, size_t *excess)
{
  unsigned n = 0;

  while (iov[n].iov_len < nbytes)
    nbytes -= iov[n++].iov_len;
  *excess = iov[n].iov_len - nbytes;
  return n + 1;
}

/* The turn is not for all of it: take what it is for off the rest. */
static void
cut (struct swapdev_io *io)
{
  unsigned npieces;
  size_t excess;

  npieces = count_pieces (io->iov, (size_t) io->nturn * PAGE_BYTES, &excess);
  io->rest = io->iov[npieces - 1];
  io->rest.iov_base = (char *) io->rest.iov_base + io->rest.iov_len - excess;
  io->rest.iov_len = excess;
  io->iov[npieces - 1].iov_len -= excess;
  io->npieces = npieces;
}

/* What the turn was for is done. */
static void
go_to_rest (struct swapdev_io *io)
{
  io->slot += io->nturn;
  io->nslots -= io->nturn;
  io->iov += io->npieces - 1;
  io->niov -= io->npieces - 1;
  *io->iov = io->rest;
  if (io->rest.iov_len == 0) {
    io->iov++;
    io->niov--;
  }
}

/* => has its turn. From now on its I/O is under way. */
static void
set_under_way (struct swapdev_io *io, uint64_t now)
{
  struct swapdev *dev = io->dev;

  io->begin_ns = now;
  io->inflight = inflight_begin (&dev->inflight, now, io->write, io->slot, io->nturn);
  turnstile_see (&dev->turnstile, now);
}

/* => has its turn. The turn's I/O begins: its first call is ready to be made. */
static const struct iovec *
start (struct swapdev_io *io, unsigned *niov, uint64_t *known_ns)
{
  struct swapdev *dev = io->dev;

  io->npieces = io->niov;
  if (io->nturn < io->nslots)
    cut (io);
  if (io->turn.place || io->buffer)
    *known_ns = 0; /* it may have waited */
  stats_begin (&dev->stats[io->write]);
  set_under_way (io, current_ns (known_ns));
  devio_begin (&io->op, &dev->io, (off_t) io->slot << PAGE_SHIFT, io->iov, io->npieces, io->write,
               io->buffer);
  return devio_next (&io->op, niov);
}

/* => has its turn, whose I/O has come to this; gives it up. True if there is nothing more to do. */
static bool
end (struct swapdev_io *io, int ret, uint64_t *known_ns)
{
  struct swapdev *dev = io->dev;

  if (io->write && !atomic_load (&dev->dirty))
    atomic_store (&dev->dirty, true);
  inflight_end (io->inflight, ret);
  *known_ns = now_ns ();
  note_delay (dev, io->write,
              stats_end (&dev->stats[io->write], io->begin_ns, *known_ns,
                         (uint64_t) io->nturn * PAGE_BYTES, ret),
              io->nturn);
  note_head (io, *known_ns, ret);
  put_buffer (io);
  turnstile_leave (&dev->turnstile, &io->turn);
  io->ret = ret;
  if (ret < 0 || io->nturn == io->nslots)
    return true;
  go_to_rest (io);
  return false;
}

/* => between two calls. Somebody else's turn is to come meanwhile. */
static void
put_off (struct swapdev_io *io)
{
  inflight_end (io->inflight, 0);
  put_buffer (io);
  turnstile_leave (&io->dev->turnstile, &io->turn);
  io->is_put_off = true;
}

/* A turn for all that was put off, and what comes of it. */
static int
go_on_alone (struct swapdev_io *io)
{
  unsigned niov;

  io->is_put_off = false;
  turnstile_enter (&io->dev->turnstile, &io->turn, io->flow, io->write, io->nturn);
  get_buffer (io, io->nturn, true);
  set_under_way (io, now_ns ());
  io->op.buffer = io->buffer;
  devio_next (&io->op, &niov);
  return devio_go_on (&io->op);
}

static void
transfer_alone (struct swapdev_io *io, uint64_t *known_ns)
{
  unsigned niov;

  if (io->is_put_off && end (io, go_on_alone (io), known_ns))
    return;
  do {
    enter (io, true);
    start (io, &niov, known_ns);
  } while (!end (io, devio_go_on (&io->op), known_ns));
}

/* In the order in which they are to begin. */
struct queue {
  struct swapdev_io *first, **end;
};

static void
append (struct queue *q, struct swapdev_io *io)
{
  io->next = NULL;
  *q->end = io;
  q->end = &io->next;
}

/* NULL: there is none. */
static struct swapdev_io *
take_first (struct queue *q)
{
  struct swapdev_io *io = q->first;

  if (io && !(q->first = io->next))
    q->end = &q->first;
  return io;
}

static void
queue_call (struct ring *ring, struct swapdev_io *io, const struct iovec *iov, unsigned niov)
{
  ring_queue (ring, io->dev->io.fd, iov, niov, io->op.at, io->write, io);
}

/* Begin what can be; what can't, and is the only one, waits. Returns how many are under way. */
static unsigned
begin (struct ring *ring, struct queue *q, unsigned nout, uint64_t *known_ns)
{
  while (q->first && ring_takes (ring) && enter (q->first, nout == 0)) {
    struct swapdev_io *io = take_first (q);
    unsigned niov;
    const struct iovec *iov = start (io, &niov, known_ns);

    queue_call (ring, io, iov, niov);
    nout++;
  }
  return nout;
}

/* A call has come to this. What all have come to; or -EINPROGRESS: the next one is under way, or put off. */
static int
go_on (struct ring *ring, struct swapdev_io *io, ssize_t done)
{
  bool refused = done == RING_REFUSED;
  int ret = devio_done (&io->op, refused ? -EAGAIN : done);
  unsigned niov;

  if (ret != -EINPROGRESS)
    return ret;
  if (refused || !ring_takes (ring))
    put_off (io);
  else {
    const struct iovec *iov = devio_next (&io->op, &niov);

    queue_call (ring, io, iov, niov);
  }
  return ret;
}

static void
transfer_together (struct ring *ring, struct swapdev_io *ios, unsigned n, uint64_t *known_ns)
{
  struct queue q = { .end = &q.first }, alone = { .end = &alone.first };
  struct swapdev_io *io;
  unsigned nout = 0;

  for (unsigned i = 0; i < n; i++)
    append (&q, &ios[i]);
  for (;;) {
    ssize_t done;
    int ret;

    nout = begin (ring, &q, nout, known_ns);
    if (nout == 0) {
      io = alone.first ? take_first (&alone) : take_first (&q);
      if (!io)
        return;
      transfer_alone (io, known_ns);
      continue;
    }
    io = ring_wait (ring, &done);
    *known_ns = 0;
    ret = go_on (ring, io, done);
    if (ret == -EINPROGRESS && !io->is_put_off)
      continue;
    nout--;
    if (io->is_put_off)
      append (&alone, io);
    else if (!end (io, ret, known_ns))
      append (&q, io);
  }
}

void
swapdev_transfer (struct swapdev_io *io, unsigned n, struct rings *rings, uint64_t *known_ns)
{
  uint64_t unknown = 0;
  struct ring *ring = NULL;

  known_ns = known_ns ? known_ns : &unknown;
  for (unsigned i = 0; i < n; i++) {
    io[i].nslots = count_slots (io[i].iov, io[i].niov);
    io[i].is_put_off = false;
  }
  if (n > 1 && rings && (rings_always (rings) || is_worth_a_ring (io, n)))
    ring = rings_get (rings);
  if (ring) {
    transfer_together (ring, io, n, known_ns);
    rings_put (rings, ring);
  } else
    for (unsigned i = 0; i < n; i++)
      transfer_alone (&io[i], known_ns);
}

static int
transfer_one (struct swapdev *dev, const struct flow *flow, uint32_t slot, struct iovec *iov,
              unsigned niov, bool write)
{
  struct swapdev_io io;

  io.dev = dev;
  io.flow = flow;
  io.slot = slot;
  io.iov = iov;
  io.niov = niov;
  io.write = write;
  swapdev_transfer (&io, 1, NULL, NULL);
  return io.ret;
}

int
swapdev_read (struct swapdev *dev, const struct flow *flow, uint32_t slot, struct iovec *iov,
              unsigned niov)
{
  return transfer_one (dev, flow, slot, iov, niov, false);
}

int
swapdev_write (struct swapdev *dev, const struct flow *flow, uint32_t slot, struct iovec *iov,
               unsigned niov)
{
  return transfer_one (dev, flow, slot, iov, niov, true);
}
