/* SPDX-License-Identifier: BSD-3-Clause
 *
 * served.h - the default export of a service.
 */
#ifndef TESTS_SERVED_H
#define TESTS_SERVED_H

#include <stddef.h>

#include "lib/export.h"
#include "lib/exports.h"
#include "lib/service.h"

/* NULL: it has none. It stays as long as the service. */
static inline struct export *
served (const struct service *by)
{
  struct export *e = exports_get (by->exports, "");

  if (e)
    export_release (e);
  return e;
}

#endif
