/* SPDX-License-Identifier: BSD-3-Clause
 *
 * service-asked.c - what the start asks for, kept while the service runs; and of its exports what of that is another than at the last
 * start.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "manifest.h"
#include "service-impl.h"

/* ---- kept ---- */

static int
keep_template (struct service *service, const struct export_template *t)
{
  struct export_template *kept = &service->templates[service->ntemplates];

  *kept = *t;
  kept->spec.name = strdup (t->spec.name);
  return kept->spec.name ? (service->ntemplates++, 0) : -ENOMEM;
}

static int
keep_export (struct service *service, const struct export_spec *spec)
{
  struct export_spec *kept = &service->asked[service->nasked];

  *kept = *spec;
  kept->name = strdup (spec->name);
  return kept->name ? (service->nasked++, 0) : -ENOMEM;
}

static int
keep_device (struct service *service, const struct swapdev_spec *spec)
{
  struct swapdev_spec *kept = &service->named[service->nnamed];

  *kept = *spec;
  kept->path = strdup (spec->path);
  return kept->path ? (service->nnamed++, 0) : -ENOMEM;
}

int
service_keep_named (const struct service_config *config, struct service *service)
{
  struct export_spec by_default = { .name = "",
                                    .size_bytes = config->size_bytes,
                                    .terms = { .weight = EXPORT_WEIGHT_DEFAULT } };
  int ret = 0;

  service->named = calloc (config->ndevices, sizeof *service->named);
  service->templates = calloc (config->ntemplates + 1, sizeof *service->templates);
  service->asked = calloc (config->nexports + 1, sizeof *service->asked);
  if (!service->named || !service->templates || !service->asked)
    return -ENOMEM;
  for (unsigned i = 0; i < config->ndevices && ret == 0; i++)
    ret = keep_device (service, &config->devices[i]);
  for (unsigned i = 0; i < config->ntemplates && ret == 0; i++)
    ret = keep_template (service, &config->templates[i]);
  if (ret == 0 && (config->size_bytes > 0 || (config->nexports == 0 && config->ntemplates == 0)))
    ret = keep_export (service, &by_default);
  for (unsigned i = 0; i < config->nexports && ret == 0; i++)
    ret = keep_export (service, &config->exports[i]);
  return ret;
}

const struct swapdev_spec *
service_named (const struct service *service, const char *path)
{
  for (unsigned i = 0; i < service->nnamed; i++)
    if (strcmp (service->named[i].path, path) == 0)
      return &service->named[i];
  return NULL;
}

const struct export_spec *
service_asked (const struct service *service, const char *name)
{
  for (unsigned i = 0; i < service->nasked; i++)
    if (strcmp (service->asked[i].name, name) == 0)
      return &service->asked[i];
  return NULL;
}

void
service_forget_named (struct service *service)
{
  while (service->nasked > 0)
    free (service->asked[--service->nasked].name);
  free (service->asked);
  while (service->ntemplates > 0)
    free (service->templates[--service->ntemplates].spec.name);
  free (service->templates);
  while (service->nnamed > 0)
    free ((char *) service->named[--service->nnamed].path);
  free (service->named);
}

/* ---- and compared ---- */

#define GIVEN(u64)                                                                        \
  "size=%" u64 ",reserve=%" u64 ",limit=%" u64 ",weight=%u,iops=%" u64 ",bandwidth=%" u64 \
  ",exclusive=%d"

void
service_describe (const struct export_spec *spec, char text[GIVEN_BYTES])
{
  const struct export_terms *t = &spec->terms;

  snprintf (text, GIVEN_BYTES, GIVEN (PRIu64), spec->size_bytes, t->reserve_bytes, t->limit_bytes,
            t->weight, t->iops, t->bandwidth, t->exclusive);
}

void
service_last_asked (const struct manifest_export *known, struct export_spec *spec)
{
  struct export_terms *t = &spec->terms;
  int exclusive;

  *spec = (struct export_spec){ .name = known->name };
  if (sscanf (known->given, GIVEN (SCNu64), &spec->size_bytes, &t->reserve_bytes, &t->limit_bytes,
              &t->weight, &t->iops, &t->bandwidth, &exclusive) == 7)
    t->exclusive = exclusive;
  else
    *spec = (struct export_spec){ .name = known->name, .terms.weight = EXPORT_WEIGHT_DEFAULT };
}

/* A term is as the start asks for: say so if that undoes a live change. */
static void
say_renewed (const char *name, const char *term, uint64_t live, uint64_t last, uint64_t asked)
{
  if (live != last && live != asked)
    log_notice ("export \"%s\": its %s was %" PRIu64
                ", changed while the server ran, and is %" PRIu64 " now, as the start asks for",
                name, term, live, asked);
}

void
service_renew_terms (const struct export_spec *asked, const struct manifest_export *known,
                     struct export_terms *terms)
{
  const struct export_terms *a = &asked->terms, *live = &known->terms;
  struct export_spec last;
  bool reserve, limit;

  service_last_asked (known, &last);
#define IS_NEW(term) (a->term != last.terms.term)
#define RENEW(is_new, term, what)                                          \
  if (is_new) {                                                            \
    say_renewed (known->name, what, live->term, last.terms.term, a->term); \
    terms->term = a->term;                                                 \
  }
  *terms = *live;
  reserve = IS_NEW (reserve_bytes);
  limit = IS_NEW (limit_bytes);
  if (reserve != limit) { /* then one stays as it is live: do they go together? */
    uint64_t reserve_bytes = (reserve ? a : live)->reserve_bytes;
    uint64_t limit_bytes = (limit ? a : live)->limit_bytes;

    if (limit_bytes && limit_bytes < reserve_bytes)
      reserve = limit = true;
  }
  RENEW (reserve, reserve_bytes, "reserve");
  RENEW (limit, limit_bytes, "limit");
  RENEW (IS_NEW (weight), weight, "weight");
  RENEW (IS_NEW (iops), iops, "iops");
  RENEW (IS_NEW (bandwidth), bandwidth, "bandwidth");
  RENEW (IS_NEW (exclusive), exclusive, "exclusive");
#undef RENEW
#undef IS_NEW
}
