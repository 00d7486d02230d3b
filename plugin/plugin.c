/* SPDX-License-Identifier: BSD-3-Clause
 *
 * plugin.c - nbdkit's callbacks. Each is one call into lib/ and one mapping of -errno; nothing is decided here.
 */
#include <config.h>

#include <errno.h>
#include <limits.h>
#include <linux/vm_sockets.h>
#include <netdb.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "config-keys.h"
#include "keepalive.h"
#include "lib/export.h"
#include "lib/exports.h"
#include "lib/log.h"
#include "lib/ring.h"
#include "lib/service.h"
#include "lib/session.h"
#include "lib/units.h"
#include "lib/utf8.h"
#include "remote.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

enum { MAX_BLOCK_BYTES = 32 << 20 };

static struct service service;
static bool started; /* service is there */
static bool serving; /* and the server came up: what the start did to files stays */

/* One line, whatever name a client has asked for: nobody forges one of ours, or sends a terminal what it obeys. */
static void
to_nbdkit (enum log_level level, const char *fmt, va_list args)
{
  static const char *const prefix[] = { "drum: ", "drum: warning: ", "drum: " };
  char line[PATH_MAX + 512], printable[4 * sizeof line];

  vsnprintf (line, sizeof line, fmt, args);
  utf8_escape (line, printable, sizeof printable);
  nbdkit_error ("%s%s", prefix[level], printable);
}

static void
drum_load (void)
{
  log_set_sink (to_nbdkit);
}

static int
drum_config (const char *key, const char *value)
{
  return config_key (key, value) < 0 ? -1 : 0;
}

static int
drum_config_complete (void)
{
  return config_complete () < 0 ? -1 : 0;
}

/* nbdkit goes into the background now: it has all that it needs to serve. */
static void
before_fork (void)
{
  serving = true;
}

static int
drum_get_ready (void)
{
  if (service_start (config_get (), &service) < 0)
    return -1;
  started = true;
  if (remote_open (config_control ()) < 0)
    return -1;
  if (pthread_atfork (before_fork, NULL, NULL) != 0) {
    nbdkit_error ("drum: out of memory");
    return -1;
  }
  return 0;
}

static int
drum_after_fork (void)
{
  serving = service_lock (&service) == 0 &&
            remote_start (&service) == 0; /* or else the destructor undoes it all */
  return serving ? 0 : -1;
}

/* All clients have gone. */
static void
drum_cleanup (void)
{
  remote_stop ();
}

static void
drum_unload (void)
{
  remote_stop ();
  if (started && serving)
    service_stop (&service);
  else if (started)
    service_undo (&service);
  started = false;
  config_free ();
}

/* nbdkit exits without .unload when it can't bind its socket, say. */
static void __attribute__ ((destructor)) undo_failed_start (void)
{
  if (started && !serving) {
    remote_stop ();
    service_undo (&service);
  }
  started = false;
}

static void
drum_dump_plugin (void)
{
  printf ("drum_version=%s\n", PACKAGE_VERSION);
  printf ("drum_page_bytes=%u\n", PAGE_BYTES);
  printf ("drum_max_slots=%u\n", SLOT_MAX);
  printf ("drum_io=%s\n", rings_are_there () ? "uring" : "sync");
#ifdef DRUM_DEBUG
  printf ("drum_debug=yes\n");
#endif
}

static int
drum_list_exports (int readonly, int is_tls, struct nbdkit_exports *exports)
{
  struct export *e = NULL;

  while ((e = exports_next (service.exports, e)))
    if (nbdkit_add_export (exports, export_name (e), NULL) == -1) {
      export_release (e);
      return -1;
    }
  return 0;
}

static const char *
drum_default_export (int readonly, int is_tls)
{
  struct export *e = exports_get (service.exports, "");

  if (!e)
    return NULL;
  export_release (e);
  return "";
}

/* Where the client of this connection is, as session.h wants it; and it is asked after. */
static void
meet_peer (char peer[SESSION_PEER_MAX + 1])
{
  struct sockaddr_storage addr;
  socklen_t len = sizeof addr;

  *peer = 0;
  if (nbdkit_peer_name ((struct sockaddr *) &addr, &len) == -1)
    return;
  keepalive_start ((struct sockaddr *) &addr, len);
  if (addr.ss_family == AF_UNIX)
    snprintf (peer, SESSION_PEER_MAX + 1, "process %lld", (long long) nbdkit_peer_pid ());
  else if (addr.ss_family == AF_VSOCK)
    snprintf (peer, SESSION_PEER_MAX + 1, "vsock %u", ((struct sockaddr_vm *) &addr)->svm_cid);
  else if (getnameinfo ((struct sockaddr *) &addr, len, peer, SESSION_PEER_MAX + 1, NULL, 0,
                        NI_NUMERICHOST) != 0)
    *peer = 0;
}

static void *
drum_open (int readonly)
{
  const char *text = nbdkit_export_name ();
  char peer[SESSION_PEER_MAX + 1];
  struct session *session;

  if (!text)
    return NULL;
  service_enter_connection (&service);
  meet_peer (peer);
  return service_open (&service, text, peer, &session) == 0 ? session : NULL;
}

static void
drum_close (void *handle)
{
  service_close (&service, handle);
}

static const char *
drum_export_description (void *handle)
{
  return "one swap device on several files and block devices (" PACKAGE_STRING ")";
}

static int64_t
drum_get_size (void *handle)
{
  return (int64_t) export_size_bytes (session_export (handle));
}

static int
drum_block_size (void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
  *minimum = 1;
  *preferred = PAGE_BYTES;
  *maximum = MAX_BLOCK_BYTES;
  return 0;
}

static int
yes (void *handle)
{
  return 1;
}

static int
no (void *handle)
{
  return 0;
}

static int
fua_native (void *handle)
{
  return NBDKIT_FUA_NATIVE;
}

static int
cache_native (void *handle)
{
  return NBDKIT_CACHE_NATIVE;
}

/* What a client may see: no room, can't be done fast, or an I/O error; and that it is a client no more. */
static int
result (int ret)
{
  if (ret == -ESTALE)
    nbdkit_set_error (ESHUTDOWN);
  else if (ret < 0)
    nbdkit_set_error (ret == -ENOSPC || ret == -EOPNOTSUPP ? -ret : EIO);
  return ret < 0 ? -1 : 0;
}

/* Wait as long as the caps of the export say. Not for a client that hangs up, nor when the server stops. */
static void
pace (struct export *e, uint32_t count)
{
  uint64_t until_ns = 0, ns;

  while ((ns = export_pace (e, count, &until_ns)) > 0)
    if (nbdkit_nanosleep (0, (unsigned) ns) == -1)
      break;
}

/* A request of so many bytes begins, for this export; NULL: it may not, and that is its result. A connection may have more threads
 * than the one that opened it. */
static struct export *
begin (void *handle, uint32_t count)
{
  struct export *e = session_export (handle);

  service_enter_thread (&service);
  pace (e, count);
  return result (session_begin (handle)) == 0 ? e : NULL;
}

static int
end (void *handle, int ret)
{
  session_end (handle);
  return result (ret);
}

static int
drum_pread (void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
  struct export *e = begin (handle, count);

  return e ? end (handle, export_read (e, buf, count, offset)) : -1;
}

/* A change is done; with NBDKIT_FLAG_FUA it is to be durable, too. */
static int
changed (struct export *e, int ret, uint32_t flags)
{
  return ret == 0 && (flags & NBDKIT_FLAG_FUA) ? export_flush (e) : ret;
}

static int
drum_pwrite (void *handle, const void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
  struct export *e = begin (handle, count);

  return e ? end (handle, changed (e, export_write (e, buf, count, offset), flags)) : -1;
}

static int
drum_flush (void *handle, uint32_t flags)
{
  struct export *e = begin (handle, 0);

  return e ? end (handle, export_flush (e)) : -1;
}

static int
drum_trim (void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
  struct export *e = begin (handle, 0);

  return e ? end (handle, changed (e, export_trim (e, count, offset), flags)) : -1;
}

/* Without NBDKIT_FLAG_MAY_TRIM a client would have room kept for later writes; an export is thin, and zeroes have no
 * slots whatever they came from. */
static int
drum_zero (void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
  struct export *e = begin (handle, 0);

  return e ? end (handle,
                  changed (e, export_zero (e, count, offset, flags & NBDKIT_FLAG_FAST_ZERO), flags))
           : -1;
}

static int
drum_cache (void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
  struct export *e = begin (handle, count);

  return e ? end (handle, export_cache (e, count, offset)) : -1;
}

static int
add_extent (void *opaque, uint64_t offset, uint64_t length, bool data)
{
  return nbdkit_add_extent (opaque, offset, length,
                            data ? 0 : NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO) == -1
           ? -EIO
           : 0;
}

static int
drum_extents (void *handle, uint32_t count, uint64_t offset, uint32_t flags,
              struct nbdkit_extents *extents)
{
  struct export *e = begin (handle, 0);
  bool one = flags & NBDKIT_FLAG_REQ_ONE;

  return e ? end (handle, export_extents (e, count, offset, one, add_extent, extents)) : -1;
}

/* clang-format off */
static struct nbdkit_plugin plugin = {
  .name               = "drum",
  .longname           = "nbdkit drum plugin",
  .version            = PACKAGE_VERSION,
  .description        = "one swap device on several prioritised files and block devices",
  .load               = drum_load,
  .unload             = drum_unload,
  .config             = drum_config,
  .config_complete    = drum_config_complete,
  .config_help        = CONFIG_HELP,
  .magic_config_key   = "device",
  .dump_plugin        = drum_dump_plugin,
  .get_ready          = drum_get_ready,
  .after_fork         = drum_after_fork,
  .cleanup            = drum_cleanup,
  .list_exports       = drum_list_exports,
  .default_export     = drum_default_export,
  .open               = drum_open,
  .close              = drum_close,
  .export_description = drum_export_description,
  .get_size           = drum_get_size,
  .block_size         = drum_block_size,
  .can_write          = yes,
  .can_flush          = yes,
  .is_rotational      = no,
  .can_trim           = yes,
  .can_zero           = yes,
  .can_fast_zero      = yes,
  .can_extents        = yes,
  .can_fua            = fua_native,
  .can_cache          = cache_native,
  .can_multi_conn     = yes, /* a flush covers all connections */
  .pread              = drum_pread,
  .pwrite             = drum_pwrite,
  .flush              = drum_flush,
  .trim               = drum_trim,
  .zero               = drum_zero,
  .cache              = drum_cache,
  .extents            = drum_extents,
  .errno_is_preserved = 1,
};
/* clang-format on */

NBDKIT_REGISTER_PLUGIN (plugin)
