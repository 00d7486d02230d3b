/* SPDX-License-Identifier: BSD-3-Clause
 *
 * drum-swapon.c - connects, has a keeper attach the device, and takes that into use as swap.
 *
 * The keeper is another process from before the device is attached: whatever happens here may wait for the device, and the keeper
 * reconnects it meanwhile.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/swap.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "lib/log.h"
#include "lib/parse.h"

#include "attached.h"
#include "drumctl.h"
#include "keeper.h"
#include "nbdclient.h"
#include "nbdlink.h"
#include "nbduri.h"
#include "options.h"
#include "swaparea.h"
#include "swapon-status.h"
#include "sysctls.h"

#ifndef SWAP_FLAG_DISCARD
#define SWAP_FLAG_DISCARD 0x10000
#endif

enum { CONNECT_MS = 5000, RETRY_MS = 1000, MIN_BYTES = 10 * 4096, NO_PRIORITY = -2 };

static struct {
  int priority, connections, index;
  double wait_seconds;
  bool discard, make, force, tune, plain, foreground, status, version;
} want = { .priority = NO_PRIORITY, .connections = 1, .index = NBDLINK_ANY };

static void
to_stderr (enum log_level level, const char *fmt, va_list args)
{
  fprintf (stderr, "drum-swapon: %s", level == LEVEL_WARNING ? "warning: " : "");
  vfprintf (stderr, fmt, args);
  putc ('\n', stderr);
}

static int
option_priority (const char *name, const char *text, void *value)
{
  return parse_int (name, text, 0, SHRT_MAX, value);
}

static int
option_connections (const char *name, const char *text, void *value)
{
  return parse_int (name, text, 1, KEEPER_MAX_SOCKETS, value);
}

/* /dev/nbdN */
static int
option_device (const char *name, const char *text, void *index)
{
  static const char prefix[] = "/dev/nbd";

  if (strncmp (text, prefix, sizeof prefix - 1) == 0)
    return parse_int (text, text + sizeof prefix - 1, 0, INT16_MAX, index);
  log_error ("%s: \"%s\" is not /dev/nbd and a number", name, text);
  return -EINVAL;
}

/* One of this session alone: HOST-UUID, as far as the host's name has letters that may be in it. */
static void
make_id (char id[NBDCLIENT_ID_BYTES])
{
  enum { UUID_CHARS = 36 };
  size_t len = 0;
  uuid_t uuid;

  if (gethostname (id, NBDCLIENT_ID_BYTES - UUID_CHARS - 1) == 0) {
    id[NBDCLIENT_ID_BYTES - UUID_CHARS - 2] = '\0';
    len = strspn (id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_");
  }
  if (len)
    id[len++] = '-';
  uuid_generate_random (uuid);
  uuid_unparse_lower (uuid, id + len);
}

/* The module, unless it is there. Errors show when the device is attached. */
static void
load_module (void)
{
  static char *const argv[] = { (char *) "modprobe", (char *) "-q", (char *) "nbd", NULL };
  struct nbdlink link;
  pid_t pid;

  if (nbdlink_open (&link) == 0)
    close (link.fd);
  else if (posix_spawnp (&pid, argv[0], NULL, NULL, argv, environ) == 0)
    waitpid (pid, NULL, 0);
}

static int
connect_once (const struct nbduri *uri, struct keeper_order *order, char *why)
{
  const struct nbdclient_session session = { uri->name, order->id, 1 };
  int ret = nbdclient_resolve (uri, &order->server, why);

  return ret < 0 ? ret : nbdclient_open (&order->server, &session, CONNECT_MS, &order->export, why);
}

/* What another try may change: also a name, which may be added, or be somebody else's for a while. */
static bool
may_come (int error)
{
  return error != -EACCES && error != -ENOTSUP && error != -EPROTO;
}

static int
connect_first (const char *text, const struct nbduri *uri, struct keeper_order *order)
{
  int64_t deadline = nbdclient_now () + (int64_t) (want.wait_seconds * 1000);
  char why[NBDCLIENT_WHY_BYTES];
  bool said = false;

  for (;;) {
    int fd = connect_once (uri, order, why);

    if (fd >= 0) {
      order->sockets[order->nsockets++] = fd;
      return 0;
    }
    if (nbdclient_now () >= deadline || !may_come (fd)) {
      log_error ("%s: %s%s", text, why,
                 fd == -ENXIO && *order->id
                   ? "; if it is not a drum, --no-fence asks for NAME instead of NAME@ID.EPOCH"
                   : "");
      return fd;
    }
    if (!said)
      log_notice ("%s: %s; trying for %g seconds", text, why, want.wait_seconds);
    said = true;
    poll (NULL, 0, RETRY_MS);
  }
}

static int
check_export (const char *text, const struct nbdclient_export *export)
{
  if (export->flags & NBD_FLAG_READ_ONLY)
    log_error ("%s: is read-only; swap needs one that can be written", text);
  else if (export->size_bytes < MIN_BYTES)
    log_error ("%s: is too small to swap on: %" PRIu64 " bytes", text, export->size_bytes);
  else if (export->min_block > 4096)
    log_error ("%s: takes requests of at least %" PRIu32 " bytes, and a page has 4096", text,
               export->min_block);
  else if (export->max_block && export->max_block < 4096)
    log_error ("%s: takes requests of at most %" PRIu32 " bytes, and a page has 4096", text,
               export->max_block);
  else
    return 0;
  return -EINVAL;
}

static int
connect_others (const char *text, const struct nbduri *uri, struct keeper_order *order)
{
  const struct nbdclient_session session = { uri->name, order->id, 1 };
  char why[NBDCLIENT_WHY_BYTES];

  if (want.connections > 1 && !(order->export.flags & NBD_FLAG_CAN_MULTI_CONN)) {
    log_warning ("%s: the server wants no more than one connection, and gets one", text);
    want.connections = 1;
  }
  if (want.connections > 1 && !*order->id)
    log_warning ("%s: with --no-fence and several connections an old write may come after a newer "
                 "one; --connections 1 is safe",
                 text);
  while (order->nsockets < (unsigned) want.connections) {
    struct nbdclient_export export;
    int fd = nbdclient_open (&order->server, &session, CONNECT_MS, &export, why);

    if (fd < 0) {
      log_error ("%s: connection %u of %d: %s", text, order->nsockets + 1, want.connections, why);
      return fd;
    }
    order->sockets[order->nsockets++] = fd;
  }
  return 0;
}

/* In the keeper: as little as can be of who started it. */
static int
keep (struct keeper_order *order, int setup, char **argv)
{
  order->setup = setup;
  /* systemd leaves a process of such a name alone when it ends all others at shutdown, before swapoff. */
  argv[0][0] = '@';
  if (chdir ("/") == -1)
    return STATUS_FAILED;
  if (!want.foreground) {
    setsid ();
    if (!freopen ("/dev/null", "r", stdin) || !freopen ("/dev/null", "w", stdout) ||
        !freopen ("/dev/null", "w", stderr))
      return STATUS_FAILED;
  }
  return keeper_run (order);
}

static int
swap_on (const char *device)
{
  int flags = want.discard ? SWAP_FLAG_DISCARD : 0;

  if (want.priority != NO_PRIORITY)
    flags |= SWAP_FLAG_PREFER | (want.priority & SWAP_FLAG_PRIO_MASK);
  if (swapon (device, flags) == 0)
    return 0;
  int error = errno;
  log_error ("%s: swapon: %s", device, strerror (error));
  return -error;
}

/* Wait for the device, and make it swap. */
static int
take_into_use (const char *text, int setup)
{
  char why[NBDCLIENT_WHY_BYTES], device[32];
  int index = keeper_wait (setup, why), ret;

  if (index < 0) {
    log_error ("%s: %s", text, why);
    return STATUS_FAILED;
  }
  snprintf (device, sizeof device, "/dev/nbd%d", index);
  ret = swaparea_prepare (device, want.make, want.force);
  if (ret == 0)
    ret = swap_on (device);
  if (ret < 0) {
    keeper_give_up (setup);
    return STATUS_FAILED;
  }
  keeper_in_use (setup);
  printf ("%s\n", device);
  return STATUS_DONE;
}

/* The keeper is the child, and ours the work; in the foreground it is the other way round. */
static int
start (const char *text, struct keeper_order *order, char **argv)
{
  int pair[2];
  pid_t pid;

  if (socketpair (AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == -1) {
    log_error ("socketpair: %s", strerror (errno));
    return STATUS_FAILED;
  }
  fflush (NULL);
  pid = fork ();
  if (pid == -1) {
    log_error ("fork: %s", strerror (errno));
    return STATUS_FAILED;
  }
  if ((pid == 0) != want.foreground) {
    close (pair[0]);
    return keep (order, pair[1], argv);
  }
  close (pair[1]);
  for (unsigned i = 0; i < order->nsockets; i++)
    close (order->sockets[i]);
  return take_into_use (text, pair[0]);
}

static int
attach (const char *text, char **argv)
{
  static struct keeper_order order;
  char id[NBDCLIENT_ID_BYTES] = "";
  struct nbduri uri;
  int twice;

  if (nbduri_parse (text, &uri) < 0)
    return STATUS_USAGE;
  if (geteuid () != 0) {
    log_error ("only root may attach a device and swap on it");
    return STATUS_FAILED;
  }
  twice = attached_find (text);
  if (twice >= 0) {
    log_error ("%s: is attached already, as /dev/nbd%d; two swap devices on one export would "
               "overwrite each other",
               text, twice);
    return STATUS_FAILED;
  }
  if (!want.plain)
    make_id (id);
  order = (struct keeper_order){
    .uri = text, .name = uri.name, .id = id, .index = want.index, .sockets = { 0 }
  };
  for (unsigned i = 0; i < KEEPER_MAX_SOCKETS; i++)
    order.sockets[i] = -1;
  load_module ();
  if (connect_first (text, &uri, &order) < 0 || check_export (text, &order.export) < 0 ||
      connect_others (text, &uri, &order) < 0)
    return STATUS_FAILED;
  sysctls_check (want.tune);
  return start (text, &order, argv);
}

static int
run (const struct verb *self, int argc, char **argv)
{
  struct table_options table = { .columns = NULL };
  const struct option_spec options[] = {
    { 'p', "priority", "N", option_priority, &want.priority,
      "as swap, 0 to 32767; higher is used first" },
    { 'C', "connections", "N", option_connections, &want.connections, "to the server (1)" },
    { 'w', "wait", "SECONDS", option_seconds, &want.wait_seconds,
      "for a server that is not there" },
    { 'd', "discard", NULL, option_switch, &want.discard, "tell the server what is free" },
    { 0, "mkswap", NULL, option_switch, &want.make, "make a swap header if there is none" },
    { 0, "force", NULL, option_switch, &want.force, "also where there is something else" },
    { 0, "tune", NULL, option_switch, &want.tune, "set vm.min_free_kbytes and the like" },
    { 0, "no-fence", NULL, option_switch, &want.plain, "for a server that is not a drum" },
    { 0, "device", "/dev/nbdN", option_device, &want.index, "attach this one (a free one)" },
    { 0, "foreground", NULL, option_switch, &want.foreground, "do not go to the background" },
    { 0, "status", NULL, option_switch, &want.status, "show what is attached" },
    TABLE_OPTIONS (table),
    { 'V', "version", NULL, option_switch, &want.version, "display the version" },
    { 0 },
  };
  char **first = argv;
  int status = options_parse (self, options, 0, 1, &argc, &argv);

  if (status >= 0)
    return status;
  if (want.version) {
    puts ("drum-swapon (" PACKAGE_STRING ")");
    return STATUS_DONE;
  }
  if (want.status && argc == 0)
    return swapon_status (&table);
  if (argc == 1 && !want.status)
    return attach (argv[0], first);
  log_error (want.status ? "--status takes no URI" : "no URI; nbd://HOST/NAME, say");
  return STATUS_USAGE;
}

static const struct verb drum_swapon = {
  .operands = "URI | --status",
  .summary = "Swap on an export of a server, and stay connected to it when it goes and comes back.",
  .more = swapon_status_help,
  .run = run,
};

int
main (int argc, char **argv)
{
  int status;

  setlocale (LC_CTYPE, "");
  log_set_sink (to_stderr);
  options_program ("drum-swapon");
  status = drum_swapon.run (&drum_swapon, argc, argv);
  if (fflush (stdout) != 0 && status == STATUS_DONE)
    status = STATUS_FAILED;
  return status;
}
