/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "config-keys.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "lib/drum.h"
#include "lib/log.h"
#include "lib/parse.h"
#include "lib/readahead.h"
#include "lib/service.h"
#include "lib/swapdev.h"
#include "lib/terms.h"
#include "lib/units.h"
#include "lib/utf8.h"

static struct swapdev_spec *devices;
static struct export_spec *exports;
static struct export_template *templates;
static bool force, overcommit = true;
static char *control; /* path of the socket */
static char *state;   /* and of the folder */
static struct service_config config = { .stripe_bytes = STRIPE_DEFAULT_BYTES, .checksum = true };

static int
make_absolute (struct swapdev_spec *spec)
{
  char *path = nbdkit_absolute_path (spec->path);

  if (!path)
    return -EINVAL;
  free ((char *) spec->path);
  spec->path = path;
  return 0;
}

static int
add_device (const char *value)
{
  struct swapdev_spec *more = realloc (devices, (config.ndevices + 1) * sizeof *devices);
  int ret;

  if (!more)
    return -ENOMEM;
  devices = more;
  ret = parse_device (value, &devices[config.ndevices]);
  if (ret < 0)
    return ret;
  return make_absolute (&devices[config.ndevices++]);
}

static int
add_export (const char *value)
{
  struct export_spec *more = realloc (exports, (config.nexports + 1) * sizeof *exports);
  int ret;

  if (!more)
    return -ENOMEM;
  exports = more;
  ret = parse_export (value, &exports[config.nexports]);
  if (ret == 0)
    config.nexports++;
  return ret;
}

static int
add_template (const char *value)
{
  struct export_template *more = realloc (templates, (config.ntemplates + 1) * sizeof *templates);
  int ret;

  if (!more)
    return -ENOMEM;
  templates = more;
  ret = parse_template (value, &templates[config.ntemplates]);
  if (ret == 0)
    config.ntemplates++;
  return ret;
}

static int
set_size (const char *value)
{
  uint64_t bytes;
  int ret = parse_size ("size=", value, &bytes);

  if (ret < 0)
    return ret;
  if (bytes == 0 || bytes % PAGE_BYTES) {
    log_error ("size=: %s is not a multiple of %u bytes above 0", value, PAGE_BYTES);
    return -EINVAL;
  }
  config.size_bytes = bytes;
  return 0;
}

static int
set_stripe (const char *value)
{
  uint64_t bytes;
  int ret = parse_size ("stripe=", value, &bytes);

  if (ret < 0)
    return ret;
  if (bytes < STRIPE_MIN_BYTES || bytes > STRIPE_MAX_BYTES || (bytes & (bytes - 1))) {
    log_error ("stripe=: %s is not a power of two from 4K to 4M", value);
    return -EINVAL;
  }
  config.stripe_bytes = (uint32_t) bytes;
  return 0;
}

static int
set_readahead (const char *value)
{
  uint64_t bytes;
  int ret = parse_size ("readahead=", value, &bytes);

  if (ret < 0)
    return ret;
  if (bytes > READAHEAD_MAX_BYTES || bytes % PAGE_BYTES) {
    log_error ("readahead=: %s is not a multiple of %u bytes up to 4M; 0 is none", value,
               PAGE_BYTES);
    return -EINVAL;
  }
  config.readahead_bytes = (uint32_t) bytes;
  return 0;
}

/* nbdkit changes to / when it goes into the background. */
static int
set_path (const char *value, const char *wanted, char **path)
{
  char *absolute;

  if (!*value) {
    log_error ("%s", wanted);
    return -EINVAL;
  }
  absolute = nbdkit_absolute_path (value);
  if (!absolute)
    return -EINVAL;
  free (*path);
  *path = absolute;
  return 0;
}

int
config_key (const char *key, const char *value)
{
  if (strcmp (key, "device") == 0)
    return add_device (value);
  if (strcmp (key, "export") == 0)
    return add_export (value);
  if (strcmp (key, "template") == 0)
    return add_template (value);
  if (strcmp (key, "overcommit") == 0)
    return parse_bool ("overcommit=", value, &overcommit);
  if (strcmp (key, "size") == 0)
    return set_size (value);
  if (strcmp (key, "stripe") == 0)
    return set_stripe (value);
  if (strcmp (key, "force") == 0)
    return parse_bool ("force=", value, &force);
  if (strcmp (key, "control") == 0)
    return set_path (value, "control=: is empty: give the path of a socket", &control);
  if (strcmp (key, "state") == 0)
    return set_path (value, "state=: is empty: give the path of a folder", &state);
  if (strcmp (key, "sync") == 0)
    return parse_bool ("sync=", value, &config.sync);
  if (strcmp (key, "state-repair") == 0)
    return parse_bool ("state-repair=", value, &config.repair);
  if (strcmp (key, "direct") == 0)
    return parse_bool ("direct=", value, &config.direct);
  if (strcmp (key, "io") == 0)
    return parse_io ("io=", value, &config.io);
  if (strcmp (key, "lock") == 0)
    return parse_lock ("lock=", value, &config.lock);
  if (strcmp (key, "checksum") == 0)
    return parse_bool ("checksum=", value, &config.checksum);
  if (strcmp (key, "reset-on-mkswap") == 0)
    return parse_bool ("reset-on-mkswap=", value, &config.reset_on_mkswap);
  if (strcmp (key, "readahead") == 0)
    return set_readahead (value);
  log_error ("%s=: unknown parameter: nbdkit drum --help lists those that there are", key);
  return -EINVAL;
}

static int
compare_names (const void *a, const void *b)
{
  return strcmp (*(const char *const *) a, *(const char *const *) b);
}

/* No two with one name; there may be thousands. */
static int
check_names (const char *kind, const char **names, unsigned n)
{
  qsort (names, n, sizeof *names, compare_names);
  for (unsigned i = 1; i < n; i++)
    if (strcmp (names[i - 1], names[i]) == 0) {
      log_error ("%s \"%s\" is given twice: each needs a %s of its own", kind, names[i],
                 strcmp (kind, "export") == 0 ? "name" : "pattern");
      return -EINVAL;
    }
  return 0;
}

static int
check_exports (void)
{
  unsigned max = config.nexports > config.ntemplates ? config.nexports : config.ntemplates;
  const char **names = malloc ((max + 1) * sizeof *names);
  int ret;

  if (!names)
    return -ENOMEM;
  for (unsigned i = 0; i < config.nexports; i++)
    names[i] = exports[i].name;
  ret = check_names ("export", names, config.nexports);
  for (unsigned i = 0; i < config.ntemplates; i++)
    names[i] = templates[i].spec.name;
  if (ret == 0)
    ret = check_names ("template", names, config.ntemplates);
  free (names);
  return ret;
}

int
config_complete (void)
{
  int ret = check_exports ();

  if (ret < 0)
    return ret;
  if (config.ndevices == 0) {
    log_error ("device=: no device is given: name at least one file or block device");
    return -EINVAL;
  }
  for (unsigned i = 0; i < config.ndevices; i++) {
    devices[i].force = force;
    if (control && !utf8_is_valid (devices[i].path)) {
      log_error (
        "%s: its name is not UTF-8, so that drumctl can't name it: rename it, or leave out "
        "control=",
        devices[i].path);
      return -EINVAL;
    }
  }
  config.devices = devices;
  config.no_overcommit = !overcommit;
  config.exports = exports;
  config.templates = templates;
  config.state_dir = state;
  return 0;
}

const struct service_config *
config_get (void)
{
  return &config;
}

const char *
config_control (void)
{
  return control;
}

void
config_free (void)
{
  for (unsigned i = 0; i < config.ndevices; i++)
    free ((char *) devices[i].path);
  for (unsigned i = 0; i < config.nexports; i++)
    free (exports[i].name);
  for (unsigned i = 0; i < config.ntemplates; i++)
    free (templates[i].spec.name);
  free (devices);
  free (exports);
  free (templates);
  free (control);
  free (state);
  control = state = NULL;
  devices = NULL;
  exports = NULL;
  templates = NULL;
  config.ndevices = config.nexports = config.ntemplates = 0;
}
