/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "picture.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <stdlib.h>

#include "lib/units.h"

#include "client.h"
#include "fields.h"
#include "text.h"

const char *const shade_meaning[NSHADES] = {
  "free", "to 1/3", "to 2/3", "more", "full", "bad slots"
};

static enum shade
shade (uint64_t nused, uint64_t nbad, uint64_t nslots)
{
  if (nbad)
    return SHADE_BAD;
  if (nused == 0)
    return SHADE_FREE;
  if (nused >= nslots)
    return SHADE_FULL;
  return nused <= nslots / 3 ? SHADE_SOME : nused <= nslots / 3 * 2 ? SHADE_HALF : SHADE_MOST;
}

/* => d's other fields are read. */
static void
read_cells (struct json_object *from, struct picture_device *d)
{
  size_t n, nbads;
  struct json_object *used = field_array (from, "used", &n);
  struct json_object *bads = field_array (from, "bad", &nbads);

  if (n > MAX_CELLS || nbads != n || (n && d->cell_slots == 0)) {
    field_complain ("used");
    return;
  }
  for (d->ncells = 0; d->ncells < n; d->ncells++) {
    uint64_t nused = field_number (json_object_array_get_idx (used, d->ncells), NULL);
    uint64_t nbad = field_number (json_object_array_get_idx (bads, d->ncells), NULL);
    uint64_t before = d->ncells * d->cell_slots, rest = d->nslots > before ? d->nslots - before : 0;

    d->nused += nused;
    d->nbad += nbad;
    d->shade[d->ncells] = shade (nused, nbad, rest < d->cell_slots ? rest : d->cell_slots);
  }
}

static struct picture *
picture_from_reply (struct json_object *reply)
{
  struct picture *p = need (calloc (1, sizeof *p));
  struct json_object *devices = field_array (reply, "devices", &p->ndevices);

  p->reply = reply;
  p->devices = need (calloc (p->ndevices + 1, sizeof *p->devices));
  for (size_t i = 0; i < p->ndevices; i++) {
    struct json_object *from = json_object_array_get_idx (devices, i);
    struct picture_device *d = &p->devices[i];

    d->name = field_text (from, "name");
    d->state = field_text (from, "state");
    d->prio = field_int (from, "prio");
    d->nslots = field_number (from, "slots");
    d->cell_slots = field_number (from, "cell");
    read_cells (from, d);
  }
  if (fields_were_fine ())
    return p;
  picture_free (p);
  return NULL;
}

struct picture *
picture_ask (unsigned ncells)
{
  struct json_object *request = request_new ("map"), *reply;

  request_number (request, "cells", ncells);
  reply = ask_once (request);
  return reply ? picture_from_reply (reply) : NULL;
}

void
picture_free (struct picture *p)
{
  free (p->devices);
  json_object_put (p->reply);
  free (p);
}

char *
picture_caption (const struct picture_device *d)
{
  char *state = text_printable (d->state), *bad = text_format ("%s", ""), *caption;
  char size[16], cell[16];

  if (d->nbad) {
    free (bad);
    bad = text_format (", %" PRIu64 " bad slot%s", d->nbad, d->nbad == 1 ? "" : "s");
  }
  caption =
    text_format ("prio %d, %s, %s, %u%% used%s, a cell is %s", d->prio, state,
                 format_bytes (d->nslots * PAGE_BYTES, size), text_percent (d->nused, d->nslots),
                 bad, format_bytes (d->cell_slots * PAGE_BYTES, cell));
  free (state);
  free (bad);
  return caption;
}
