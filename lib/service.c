/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "service.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "bounce.h"
#include "drum-devices.h"
#include "drum.h"
#include "export.h"
#include "log.h"
#include "session.h"
#include "units.h"

/* Devices on their way into the drum. */
struct opening {
  unsigned n;
  struct swapdev *swapdev[DRUM_MAX_DEVICES];
};

static void
undo_opening (struct opening *opening)
{
  while (opening->n > 0)
    swapdev_undo (opening->swapdev[--opening->n]);
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

/* Open all devices; nothing is changed yet. */
static int
open_devices (const struct service *service, const struct swapdev_spec *specs, unsigned n,
              struct opening *opening)
{
  uint32_t nslots[DRUM_MAX_DEVICES];
  int ret;

  for (unsigned i = 0; i < n; i++) {
    struct swapdev_spec spec = specs[i];

    spec.bounce = service->bounce;
    ret = swapdev_open (&spec, &opening->swapdev[i]);
    if (ret < 0)
      return ret;
    opening->n++;
    nslots[i] = swapdev_nslots (opening->swapdev[i]);
  }
  ret = drum_check_sizes (nslots, opening->n);
  if (ret < 0)
    log_error ("device=: the %u devices have more than %u slots of %u bytes (16T) together: take "
               "fewer or smaller ones",
               opening->n, SLOT_MAX, PAGE_BYTES);
  return ret < 0 ? ret : check_room (opening);
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

/* Allocate and label all devices, and hand them over to the drum. */
static int
prepare_devices (struct opening *opening, const struct service *service)
{
  struct swapdev_identity identity = service->identity;
  int ret;

  for (unsigned i = 0; i < opening->n; i++) {
    uuid_copy (identity.device, swapdev_identity (opening->swapdev[i])->device);
    ret = swapdev_prepare (opening->swapdev[i], &identity);
    if (ret == 0 && service->locked && (ret = swapdev_touch (opening->swapdev[i])) < 0)
      log_error ("%s: no memory for the map of its free slots: %s",
                 swapdev_path (opening->swapdev[i]), strerror (-ret));
    if (ret < 0)
      return ret;
  }
  for (unsigned i = 0; i < opening->n; i++) {
    ret = drum_add (service->drum, opening->swapdev[i]);
    if (ret < 0) {
      say_no_place (opening->swapdev[i], ret);
      opening->n -= i; /* the first i are the drum's to undo */
      memmove (opening->swapdev, opening->swapdev + i, opening->n * sizeof opening->swapdev[0]);
      return ret;
    }
  }
  opening->n = 0;
  return 0;
}

static int
create_export (const struct service_config *config, struct service *service)
{
  struct export_config export = { .name = "", .checksum = config->checksum };
  struct drum_usage usage;
  int ret;

  drum_usage (service->drum, &usage);
  if (usage.nslots <= usage.nkept) {
    log_error ("device=: the drum has %" PRIu64
               " usable slots, and needs one more to keep back for rewrites: "
               "give one more device, or a larger one",
               usage.nslots);
    return -ENOSPC;
  }
  export.size_bytes = config->size_bytes;
  if (export.size_bytes == 0)
    export.size_bytes = (usage.nslots - usage.nkept) * PAGE_BYTES;
  ret = export_create (service->drum, &export, &service->export);
  if (ret == -EINVAL)
    log_error ("size=: %" PRIu64 " is not a multiple of %u bytes", export.size_bytes, PAGE_BYTES);
  else if (ret < 0)
    log_error ("size=: no memory for the page map of an export of %" PRIu64
               " bytes: give a smaller size=",
               export.size_bytes);
  return ret;
}

static void
destroy_bounce (struct service *service)
{
  if (service->bounce)
    bounce_destroy (service->bounce);
}

int
service_start (const struct service_config *config, struct service *service)
{
  struct service s = { .lock = config->lock };
  struct opening opening = { .n = 0 };
  int ret;

  if (config->ndevices > DRUM_MAX_DEVICES) {
    log_error ("device=: %u are given, and a drum has at most %d", config->ndevices,
               DRUM_MAX_DEVICES);
    return -EMFILE;
  }
  if (config->lock == MEMLOCK_STRICT && (ret = memlock_check ()) < 0)
    return ret;
  ret = drum_create (config->stripe_bytes, &s.drum);
  if (ret == -EINVAL)
    log_error ("stripe=: %" PRIu32 " is not a power of two from %d to %d", config->stripe_bytes,
               STRIPE_MIN_BYTES, STRIPE_MAX_BYTES);
  else if (ret < 0)
    log_error ("the drum can't be made: %s", strerror (-ret));
  if (ret < 0)
    return ret;
  if (config->direct && (ret = bounce_create (&s.bounce)) < 0)
    log_error ("direct=: no memory for its buffers: %s", strerror (-ret));
  if (ret == 0)
    ret = open_devices (&s, config->devices, config->ndevices, &opening);
  if (ret == 0) {
    choose_identity (&opening, &s.identity);
    ret = prepare_devices (&opening, &s);
  }
  if (ret == 0)
    ret = create_export (config, &s);
  if (ret == 0 && (ret = sessions_create (NULL, NULL, &s.sessions)) < 0) {
    log_error ("no memory for the sessions of clients");
    export_destroy (s.export);
  }
  if (ret < 0) {
    undo_opening (&opening);
    drum_undo (s.drum);
    destroy_bounce (&s);
    return ret;
  }
  *service = s;
  return 0;
}

/* All that I/O writes to. */
static int
touch_tables (void *opaque)
{
  struct drum_device_info dev[DRUM_MAX_DEVICES];
  struct service *service = opaque;
  unsigned n = drum_devices (service->drum, dev, DRUM_MAX_DEVICES);
  int ret = export_touch (service->export);

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

int
service_add (struct service *service, const struct swapdev_spec *spec)
{
  struct opening opening = { .n = 0 };
  int ret = open_devices (service, spec, 1, &opening);

  if (ret == 0) {
    ret = drum_check_place (service->drum, swapdev_nslots (opening.swapdev[0]));
    if (ret < 0)
      say_no_place (opening.swapdev[0], ret);
  }
  if (ret == 0)
    ret = prepare_devices (&opening, service);
  if (ret < 0)
    undo_opening (&opening);
  return ret;
}

bool
service_keeps_pages (const struct service *service)
{
  (void) service;
  return false;
}

int
service_sync (struct service *service)
{
  (void) service;
  return 0;
}

void
service_stop (struct service *service)
{
  sessions_destroy (service->sessions);
  export_destroy (service->export);
  drum_destroy (service->drum);
  destroy_bounce (service);
}

void
service_undo (struct service *service)
{
  sessions_destroy (service->sessions);
  export_destroy (service->export);
  drum_undo (service->drum);
  destroy_bounce (service);
}
