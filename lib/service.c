/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "service.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "bounce.h"
#include "drum-devices.h"
#include "drum.h"
#include "export.h"
#include "exports.h"
#include "log.h"
#include "service-impl.h"
#include "session.h"
#include "state.h"
#include "units.h"

static void
undo_opening (struct opening *opening)
{
  while (opening->n > 0)
    if (opening->swapdev[--opening->n])
      swapdev_undo (opening->swapdev[opening->n]);
}

/* Has every file system room for all the devices on it? Asked before any space is taken. */
static int
check_room (const struct opening *opening)
{
  uint64_t missing_bytes[DRUM_MAX_DEVICES];

  for (unsigned i = 0; i < opening->n; i++) {
    uint64_t promised_bytes = 0;
    int ret;

    for (unsigned k = 0; k < i; k++)
      if (swapdev_filesystem (opening->swapdev[k]) == swapdev_filesystem (opening->swapdev[i]))
        promised_bytes += missing_bytes[k];
    ret = swapdev_check_room (opening->swapdev[i], promised_bytes, &missing_bytes[i]);
    if (ret < 0)
      return ret;
  }
  return 0;
}

int
opening_add (struct opening *opening, const struct service *service,
             const struct swapdev_spec *asked)
{
  struct swapdev_spec spec = *asked;
  int ret;

  if (opening->n == DRUM_MAX_DEVICES) {
    log_error ("device=: more than %d are given, and a drum has at most so many", DRUM_MAX_DEVICES);
    return -EMFILE;
  }
  spec.bounce = service->bounce;
  ret = swapdev_open (&spec, &opening->swapdev[opening->n]);
  if (ret < 0)
    return ret;
  opening->seat[opening->n++] = (struct drum_seat){ .state = DEVICE_OPEN, .prio = spec.prio };
  return 0;
}

/* Have they room in a drum, and on their file systems? */
static int
check_sizes (const struct opening *opening)
{
  uint32_t nslots[DRUM_MAX_DEVICES];
  int ret;

  for (unsigned i = 0; i < opening->n; i++)
    nslots[i] = swapdev_nslots (opening->swapdev[i]);
  ret = drum_check_sizes (nslots, opening->n);
  if (ret < 0)
    log_error ("device=: the %u devices have more than %u slots of %u bytes (16T) together: take "
               "fewer or smaller ones",
               opening->n, SLOT_MAX, PAGE_BYTES);
  return ret < 0 ? ret : check_room (opening);
}

/* Open all devices; nothing is changed yet. */
static int
open_devices (const struct service_config *config, struct service *service, struct opening *opening)
{
  int ret = 0;

  if (service->state)
    ret = service_open_known (config, service, opening);
  else
    for (unsigned i = 0; i < config->ndevices && ret == 0; i++)
      ret = opening_add (opening, service, &config->devices[i]);
  return ret < 0 ? ret : check_sizes (opening);
}

/* Who these devices are from this start on: the drum of the first one that belongs to one, and the next generation. */
static void
choose_identity (const struct opening *opening, struct swapdev_identity *identity)
{
  bool found = false;

  identity->generation = 0;
  uuid_generate (identity->drum);
  for (unsigned i = 0; i < opening->n; i++) {
    const struct swapdev_identity *had = swapdev_identity (opening->swapdev[i]);

    if (!swapdev_is_labelled (opening->swapdev[i]))
      continue;
    if (!found)
      uuid_copy (identity->drum, had->drum);
    found = true;
    if (had->generation > identity->generation)
      identity->generation = had->generation;
  }
  identity->generation++;
}

static void
say_no_place (const struct swapdev *dev, int ret)
{
  if (ret == -EMFILE)
    log_error ("%s: the drum has %d devices already, and can have no more: remove one",
               swapdev_path (dev), DRUM_MAX_DEVICES);
  else if (ret == -EFBIG)
    log_error ("%s: there is no gap for its %u slots in the drum, which has at most %u (16T): "
               "remove a device, or add a smaller one",
               swapdev_path (dev), swapdev_nslots (dev), SLOT_MAX);
  else
    log_error ("%s: can't be added: %s", swapdev_path (dev), strerror (-ret));
}

/* Hand a device over to the drum. */
static int
seat_device (struct opening *opening, const struct service *service, unsigned i)
{
  struct swapdev *dev = opening->swapdev[i];
  int ret = drum_add_at (service->drum, dev, &opening->seat[i]);

  if (ret < 0)
    say_no_place (dev, ret);
  else
    opening->swapdev[i] = NULL; /* the drum's to undo */
  return ret;
}

/* Allocate and label it. */
static int
prepare_device (struct swapdev *dev, const struct service *service)
{
  struct swapdev_identity identity = service->identity;
  int ret;

  uuid_copy (identity.device, swapdev_identity (dev)->device);
  ret = swapdev_prepare (dev, &identity);
  if (ret == 0 && service->locked && (ret = swapdev_touch (dev)) < 0)
    log_error ("%s: no memory for the map of its free slots: %s", swapdev_path (dev),
               strerror (-ret));
  return ret;
}

/* Allocate and label all devices. */
static int
prepare_devices (struct opening *opening, const struct service *service)
{
  int ret = 0;

  for (unsigned i = 0; i < opening->n && ret == 0; i++)
    ret = prepare_device (opening->swapdev[i], service);
  return ret;
}

/* Hand devices over to the drum: those that have their place in it, or all that have not been. */
static int
seat_devices (struct opening *opening, const struct service *service, bool known)
{
  int ret = 0;

  for (unsigned i = 0; i < opening->n && ret == 0; i++)
    if (opening->swapdev[i] && (!known || opening->seat[i].first != 0))
      ret = seat_device (opening, service, i);
  return ret;
}

static void
destroy_io (struct service *service)
{
  if (service->bounce)
    bounce_destroy (service->bounce);
  if (service->rings)
    rings_destroy (service->rings);
}

/* What can be told of the parameters alone. */
static int
check_config (const struct service_config *config)
{
  if (config->ndevices > DRUM_MAX_DEVICES) {
    log_error ("device=: %u are given, and a drum has at most %d", config->ndevices,
               DRUM_MAX_DEVICES);
    return -EMFILE;
  }
  if (config->state_dir && !config->checksum) {
    log_error (
      "checksum=: no is not for state=: what a power failure leaves can only be told apart by "
      "checksums");
    return -EINVAL;
  }
  if (!config->state_dir && (config->sync || config->repair)) {
    log_error ("%s=: is only for a server with state=", config->sync ? "sync" : "state-repair");
    return -EINVAL;
  }
  if (config->direct && config->readahead_bytes > 0)
    log_warning ("readahead=: does nothing with direct=yes, which passes the page cache by");
  return config->lock == MEMLOCK_STRICT ? memlock_check () : 0;
}

static int
create_drum (const struct service_config *config, struct service *service)
{
  int ret = drum_create (config->stripe_bytes, &service->drum);

  if (ret == -EINVAL)
    log_error ("stripe=: %" PRIu32 " is not a power of two from %d to %d", config->stripe_bytes,
               STRIPE_MIN_BYTES, STRIPE_MAX_BYTES);
  else if (ret < 0)
    log_error ("the drum can't be made: %s", strerror (-ret));
  return ret;
}

/* Rings, if they are of use? Not by themselves where a request is to take no memory: the kernel does for what goes through them, and even
 * threads. */
static bool
wants_rings (const struct service_config *config)
{
  return config->io == RINGS_ALWAYS || (config->io == RINGS_AUTO && config->lock == MEMLOCK_NO);
}

/* What the I/O needs beside the devices. */
static int
create_io (const struct service_config *config, struct service *service)
{
  int ret = config->direct ? bounce_create (&service->bounce) : 0;

  if (ret < 0)
    log_error ("direct=: no memory for its buffers: %s", strerror (-ret));
  if (ret < 0 || !wants_rings (config))
    return ret;
  ret = rings_create (config->io == RINGS_ALWAYS, &service->rings);
  if (ret < 0 && config->io == RINGS_ALWAYS) {
    log_error (
      "io=uring: the kernel does not let us use io_uring: %s: give io=auto, or leave it out",
      strerror (-ret));
    return ret;
  }
  drum_set_rings (service->drum, service->rings);
  return 0;
}

/* => the drum is there. */
static int
start (const struct service_config *config, struct service *service, struct opening *opening)
{
  int ret = create_io (config, service);

  if (ret == 0 && config->state_dir)
    ret = state_open (config->state_dir, config->sync, &service->state);
  if (ret == 0 && service->state)
    ret = service_allow_files (config, service);
  if (ret == 0 && (ret = service_keep_named (config, service)) < 0)
    log_error ("no memory for the names of devices, exports and templates");
  if (ret == 0)
    ret = open_devices (config, service, opening);
  if (ret == 0) {
    choose_identity (opening, &service->identity);
    ret = service->state ? service_begin_state (config, service) : 0;
  }
  if (ret == 0)
    ret = prepare_devices (opening, service);
  if (ret == 0)
    ret = seat_devices (opening, service, true);
  if (ret == 0 && service->state)
    ret = service_restore_exports (config, service);
  if (ret == 0) /* only now: no page that is lost may be taken to lie on a new one */
    ret = seat_devices (opening, service, false);
  if (ret == 0)
    ret = service_create_exports (config, service);
  if (ret == 0)
    service_check_templates (service);
  if (ret == 0 && (ret = sessions_create (service_note_client, service, &service->sessions)) < 0)
    log_error ("no memory for the sessions of clients");
  if (ret == 0 && service->state)
    ret = service_finish_state (config, service);
  return ret;
}

/* Leave all as it was before the start; opening has what is not in the drum yet. */
static void
undo (struct service *service, struct opening *opening)
{
  if (service->sessions)
    sessions_destroy (service->sessions);
  exports_destroy (service->exports);
  if (service->state)
    state_begin_undo (service->state);
  undo_opening (opening);
  drum_undo (service->drum);
  destroy_io (service);
  service_forget_named (service);
  mutex_destroy (&service->creating);
  if (service->state)
    state_undo (service->state);
  *service = (struct service){ .drum = NULL };
}

int
service_start (const struct service_config *config, struct service *service)
{
  struct opening opening = { .n = 0 };
  int ret = check_config (config);

  *service = (struct service){ .lock = config->lock,
                               .checksum = config->checksum,
                               .reset_on_mkswap = config->reset_on_mkswap,
                               .readahead_bytes = config->readahead_bytes };
  if (ret == 0 && (ret = exports_create (&service->exports)) < 0)
    log_error ("no memory for the exports");
  if (ret == 0 && (ret = create_drum (config, service)) < 0)
    exports_destroy (service->exports);
  if (ret < 0) {
    *service = (struct service){ .drum = NULL };
    return ret;
  }
  mutex_init (&service->creating);
  ret = start (config, service, &opening);
  if (ret < 0)
    undo (service, &opening);
  return ret;
}

static int
touch_exports (struct service *service)
{
  struct export *e = NULL;
  int ret = 0;

  while (ret == 0 && (e = exports_next (service->exports, e)))
    ret = export_touch (e);
  if (e)
    export_release (e);
  return ret;
}

/* All that I/O writes to. */
static int
touch_tables (void *opaque)
{
  struct drum_device_info dev[DRUM_MAX_DEVICES];
  struct service *service = opaque;
  unsigned n = drum_devices (service->drum, dev, DRUM_MAX_DEVICES);
  int ret = touch_exports (service);

  for (unsigned i = 0; i < n && ret == 0; i++)
    ret = swapdev_touch (dev[i].swapdev);
  if (ret == 0 && service->bounce)
    ret = bounce_touch (service->bounce);
  return ret;
}

int
service_lock (struct service *service)
{
  service->locked = service->lock != MEMLOCK_NO;
  return memlock_apply (service->lock, touch_tables, service);
}

void
service_enter_thread (const struct service *service)
{
  if (service->locked)
    memlock_touch_stack ();
}

void
service_enter_connection (const struct service *service)
{
  service_enter_thread (service);
  if (service->locked && memlock_touch_heap () < 0)
    log_warning ("lock=: no memory for a connection's largest requests: they may wait for it");
}

/* Hand a device that is prepared over to the drum: once it is in the state, it has its turn. */
static int
publish (struct service *service, struct opening *opening)
{
  struct swapdev *dev = opening->swapdev[0];
  int ret;

  opening->seat[0].coming = service->state;
  ret = seat_device (opening, service, 0);
  if (ret < 0 || !service->state)
    return ret;
  ret = service_save (service);
  if (ret == 0)
    drum_open_device (service->drum, dev);
  else {
    while (drum_remove (service->drum, dev) == -EAGAIN) /* until a sync has let go of it */
      nanosleep (&(struct timespec){ .tv_nsec = 10000000 }, NULL);
    opening->swapdev[0] = dev; /* to be undone */
  }
  return ret;
}

int
service_add (struct service *service, const struct swapdev_spec *asked)
{
  const struct swapdev_spec *named = service_named (service, asked->path);
  struct opening opening = { .n = 0 };
  struct swapdev_spec spec = *asked;
  int ret;

  spec.state = service->state ? service->identity.state : NULL;
  if (named) { /* the same at the next start is not to change what is asked for now */
    spec.prio = named->prio;
    spec.maxio = named->maxio;
  }
  ret = opening_add (&opening, service, &spec);
  if (ret == 0) {
    opening.seat[0].prio = asked->prio;
    swapdev_set_maxio (opening.swapdev[0], asked->maxio);
    ret = check_sizes (&opening);
  }
  if (ret == 0) {
    ret = drum_check_place (service->drum, swapdev_nslots (opening.swapdev[0]));
    if (ret < 0)
      say_no_place (opening.swapdev[0], ret);
  }
  if (ret == 0)
    ret = prepare_device (opening.swapdev[0], service);
  if (ret == 0)
    ret = publish (service, &opening);
  if (ret < 0)
    undo_opening (&opening);
  return ret;
}

int
service_drop (struct service *service, struct swapdev *dev, uint32_t first, int prio)
{
  struct drum_seat seat = { .first = first, .state = DEVICE_CLOSED, .prio = prio };
  int ret = service_save (service);

  if (ret < 0 && drum_add_at (service->drum, dev, &seat) == 0) {
    log_error ("%s: is empty, and stays, closed: the state can't be changed", swapdev_path (dev));
    return ret;
  }
  if (ret == 0 && service->state)
    swapdev_disown (dev);
  swapdev_close (dev); /* may take long: the last close of a block device writes what is cached */
  return ret;
}

int
service_sync (struct service *service)
{
  return service->state ? state_sync (service->state) : 0;
}

bool
service_keeps_pages (const struct service *service)
{
  return service->state;
}

void
service_stop (struct service *service)
{
  if (service_sync (service) < 0)
    log_error ("state=: %s: not all of its pages could be made durable",
               state_dir (service->state));
  sessions_destroy (service->sessions);
  exports_destroy (service->exports);
  drum_destroy (service->drum);
  destroy_io (service);
  service_forget_named (service);
  mutex_destroy (&service->creating);
  if (service->state)
    state_close (service->state);
}

void
service_undo (struct service *service)
{
  struct opening none = { .n = 0 };

  undo (service, &none);
}
