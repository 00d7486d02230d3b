/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "session.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bug.h"
#include "mutex.h"
#include "stats.h"
#include "terms.h"

enum { CACHE_LINE = 64, NS_PER_MS = 1000000, NS_PER_SECOND = 1000000000 };

/* The state of a session: how many requests are under way, and why no more may begin. */
#define COUNT  UINT64_C (0xffffffff)
#define BARRED (UINT64_C (1) << 32)
#define HALTED (UINT64_C (1) << 33)

enum { KEY_BYTES = EXPORT_NAME_MAX + 1 + SESSION_ID_MAX + 1 };

/* One ID of one export. */
struct client {
  struct client *next;
  char key[KEY_BYTES];
  uint64_t epoch;  /* the highest: lower ones are barred */
  bool noted;      /* it is kept */
  bool noting;     /* somebody sees to that, without the mutex */
  unsigned nusers; /* its sessions, and opens under way */
};

struct session {
  _Alignas(CACHE_LINE) _Atomic uint64_t state;
  struct export *export;
  struct sessions *sessions;
  struct client *client; /* NULL: it is not fenced */
  uint64_t epoch;
  struct session *next;
  char peer[SESSION_PEER_MAX + 1];
};

/* A client that lost an export to an operator: it is not to take it back before another has had it. */
struct ousted {
  struct ousted *next;
  const struct export *export;
  char key[KEY_BYTES]; /* "": it had no ID */
  char peer[SESSION_PEER_MAX + 1];
};

struct sessions {
  struct mutex mutex;     /* all below */
  pthread_cond_t changed; /* for all who wait, whatever they wait for */
  session_note *note;
  void *opaque;
  bool halted;
  struct session *first;
  struct session_hold *holds;
  struct ousted *ousted;
  struct client *clients; /* the one opened last is last */
  unsigned nclients;
};

static bool
is_id (const char *text, size_t len)
{
  static const char letters[] = "abcdefghijklmnopqrstuvwxyz"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "0123456789-_";

  return len > 0 && len <= SESSION_ID_MAX && strspn (text, letters) >= len;
}

static bool
parse_epoch (const char *text, uint64_t *epoch)
{
  char *end;

  if (!*text || text[strspn (text, "0123456789")])
    return false;
  errno = 0;
  *epoch = strtoull (text, &end, 10);
  return errno == 0;
}

int
session_parse (const char *text, struct session_name *name)
{
  const char *at = strrchr (text, '@'), *dot = at ? strchr (at, '.') : NULL;
  uint64_t epoch = 0;
  bool fenced = dot && is_id (at + 1, (size_t) (dot - at) - 1) && parse_epoch (dot + 1, &epoch);
  size_t export_len = fenced ? (size_t) (at - text) : strlen (text);
  size_t id_len = fenced ? (size_t) (dot - at) - 1 : 0;

  if (export_len > SESSION_NAME_MAX)
    return -ENAMETOOLONG;
  memcpy (name->export, text, export_len);
  name->export[export_len] = 0;
  if (fenced)
    memcpy (name->id, at + 1, id_len);
  name->id[id_len] = 0;
  name->epoch = fenced ? epoch : 0;
  return 0;
}

int
sessions_create (session_note *note, void *opaque, struct sessions **ret)
{
  struct sessions *s = calloc (1, sizeof *s);
  pthread_condattr_t attr;

  if (!s)
    return -ENOMEM;
  mutex_init (&s->mutex);
  pthread_condattr_init (&attr);
  pthread_condattr_setclock (&attr, CLOCK_MONOTONIC);
  pthread_cond_init (&s->changed, &attr);
  pthread_condattr_destroy (&attr);
  s->note = note;
  s->opaque = opaque;
  *ret = s;
  return 0;
}

void
sessions_destroy (struct sessions *s)
{
  if (!s)
    return;
  while (s->first)
    session_close (s->first);
  while (s->ousted) {
    struct ousted *o = s->ousted;

    s->ousted = o->next;
    free (o);
  }
  while (s->clients) {
    struct client *client = s->clients;

    s->clients = client->next;
    free (client);
  }
  pthread_cond_destroy (&s->changed);
  mutex_destroy (&s->mutex);
  free (s);
}

/* => holds s->mutex. Take a client out of the list: that of this key, or, for NULL, the first that nobody uses. NULL if there is
 * none. */
static struct client *
take_client_locked (struct sessions *s, const char *key)
{
  mutex_assert_held (&s->mutex);
  for (struct client **link = &s->clients; *link; link = &(*link)->next) {
    struct client *client = *link;

    if (key ? strcmp (client->key, key) != 0 : client->nusers > 0)
      continue;
    *link = client->next;
    s->nclients--;
    return client;
  }
  return NULL;
}

/* => holds s->mutex. The client of this key, which is the last in the list now; a new one has this epoch. */
static int
get_client_locked (struct sessions *s, const char *key, uint64_t epoch, struct client **ret)
{
  struct client *client = take_client_locked (s, key), **link;

  if (!client) {
    client =
      s->nclients < SESSION_CLIENTS_MAX ? malloc (sizeof *client) : take_client_locked (s, NULL);
    if (!client)
      return s->nclients < SESSION_CLIENTS_MAX ? -ENOMEM : -EUSERS;
    *client = (struct client){ .epoch = epoch };
    strcpy (client->key, key);
  }
  for (link = &s->clients; *link; link = &(*link)->next)
    ;
  *link = client;
  client->next = NULL;
  s->nclients++;
  *ret = client;
  return 0;
}

int
sessions_remember (struct sessions *s, const char *key, uint64_t epoch)
{
  struct client *client;
  int ret;

  if (strlen (key) >= KEY_BYTES)
    return -EINVAL;

  mutex_lock (&s->mutex);
  ret = get_client_locked (s, key, epoch, &client);
  if (ret == 0 && epoch >= client->epoch) {
    client->epoch = epoch;
    client->noted = true;
  }
  mutex_unlock (&s->mutex);
  return ret;
}

void
sessions_clients (struct sessions *s, void (*each) (void *opaque, const char *key, uint64_t epoch),
                  void *opaque)
{
  mutex_lock (&s->mutex);
  for (const struct client *client = s->clients; client; client = client->next)
    each (opaque, client->key, client->epoch);
  mutex_unlock (&s->mutex);
}

static bool
is_busy (const struct session *session)
{
  return (atomic_load (&session->state) & COUNT) > 0;
}

static bool
is_barred (const struct session *session)
{
  return atomic_load (&session->state) & BARRED;
}

/* => holds s->mutex. Is anybody's request under way? */
static bool
is_any_busy_locked (struct sessions *s)
{
  mutex_assert_held (&s->mutex);
  for (const struct session *session = s->first; session; session = session->next)
    if (is_busy (session))
      return true;
  return false;
}

/* => holds s->mutex. Is a request under way that must have ended before this session begins: of one that is barred, of the same client or of the one
 * before? */
static bool
must_wait_locked (struct sessions *s, const struct session *session, bool exclusive)
{
  mutex_assert_held (&s->mutex);
  for (const struct session *other = s->first; other; other = other->next)
    if (other->export == session->export && is_barred (other) && is_busy (other) &&
        (exclusive || (session->client && other->client == session->client)))
      return true;
  return false;
}

/* => holds s->mutex; epoch is higher than all. From here on who ends the last request of those that are barred comes to the mutex, and no more begin. */
static void
bar_others_locked (struct sessions *s, struct client *client, uint64_t epoch)
{
  mutex_assert_held (&s->mutex);
  client->epoch = epoch;
  client->noted = false;
  for (struct session *session = s->first; session; session = session->next)
    if (session->client == client)
      atomic_fetch_or (&session->state, BARRED);
  pthread_cond_broadcast (&s->changed); /* opens that wait are barred, too */
}

/* => holds s->mutex, but not meanwhile. */
static int
note_locked (struct sessions *s, struct client *client, uint64_t epoch)
{
  int ret = 0;

  mutex_assert_held (&s->mutex);
  client->noting = true;
  mutex_unlock (&s->mutex);
  if (s->note)
    ret = s->note (s->opaque, client->key, epoch);
  mutex_lock (&s->mutex);
  client->noting = false;
  client->noted = ret == 0 && client->epoch == epoch;
  pthread_cond_broadcast (&s->changed);
  return ret == -ENOENT ? -EIO : ret; /* that is said of exports that went */
}

/* Is that the same client? */
static bool
is_same_client (const struct session *a, const struct session *b)
{
  if (a->client && b->client)
    return a->client == b->client;
  return *a->peer && strcmp (a->peer, b->peer) == 0;
}

/* => holds s->mutex. Another client that has the export of this session, which is not in the list yet; NULL: nobody. */
static const struct session *
find_rival_locked (struct sessions *s, const struct session *session)
{
  mutex_assert_held (&s->mutex);
  for (const struct session *other = s->first; other; other = other->next)
    if (other->export == session->export && !is_barred (other) && !is_same_client (other, session))
      return other;
  return NULL;
}

/* => holds s->mutex. */
static void
forget_ousted_locked (struct sessions *s, const struct export *e)
{
  mutex_assert_held (&s->mutex);
  for (struct ousted **link = &s->ousted; *link;) {
    struct ousted *o = *link;

    if (o->export == e) {
      *link = o->next;
      free (o);
    } else
      link = &o->next;
  }
}

/* => holds s->mutex. */
static bool
is_ousted_locked (struct sessions *s, const struct session *session)
{
  mutex_assert_held (&s->mutex);
  for (const struct ousted *o = s->ousted; o; o = o->next)
    if (o->export == session->export &&
        (session->client ? strcmp (o->key, session->client->key) == 0
                         : !*o->key && *o->peer && strcmp (o->peer, session->peer) == 0))
      return true;
  return false;
}

/* => holds s->mutex. Without memory it may come back. */
static void
oust_locked (struct sessions *s, const struct session *session)
{
  struct ousted *o = calloc (1, sizeof *o);

  mutex_assert_held (&s->mutex);
  if (!o)
    return;
  o->export = session->export;
  strcpy (o->peer, session->peer);
  if (session->client)
    strcpy (o->key, session->client->key);
  o->next = s->ousted;
  s->ousted = o;
}

/* => holds s->mutex. NULL: it is not held. */
static struct session_hold *
find_hold_locked (struct sessions *s, const struct export *e)
{
  struct session_hold *hold = s->holds;

  mutex_assert_held (&s->mutex);
  while (hold && hold->export != e)
    hold = hold->next;
  return hold;
}

/* => holds s->mutex, but not while it waits. */
static int
wait_released_locked (struct sessions *s, struct session_hold *hold)
{
  bool gone;

  mutex_assert_held (&s->mutex);
  hold->nwaiting++;
  while (!hold->released)
    mutex_wait (&s->mutex, &s->changed);
  gone = hold->gone;
  hold->nwaiting--;
  pthread_cond_broadcast (&s->changed); /* who released it waits for that */
  return gone ? -ENOENT : 0;
}

/* => holds s->mutex, but not while it waits. 0 when this session may begin, if it does so at once. */
static int
admit_locked (struct sessions *s, const struct session *session, bool exclusive)
{
  struct client *client = session->client;
  uint64_t epoch = session->epoch;
  struct session_hold *hold;
  int ret = 0;

  mutex_assert_held (&s->mutex);
  while (ret == 0) {
    if (s->halted)
      mutex_wait (&s->mutex, &s->changed);
    else if ((hold = find_hold_locked (s, session->export)))
      ret = wait_released_locked (s, hold);
    else if (client && epoch < client->epoch)
      ret = -ESTALE;
    else if (exclusive && is_ousted_locked (s, session))
      ret = -EPERM;
    else if (exclusive && find_rival_locked (s, session))
      ret = -EBUSY;
    else if (client && epoch > client->epoch)
      bar_others_locked (s, client, epoch);
    else if (client && !client->noted && !client->noting)
      ret = note_locked (s, client, epoch);
    else if ((client && client->noting) || must_wait_locked (s, session, exclusive))
      mutex_wait (&s->mutex, &s->changed);
    else
      return 0;
  }
  return ret;
}

/* NULL: nobody knows. */
static void
name_client (const struct session *session, char name[SESSION_CLIENT_BYTES])
{
  const char *peer = session && *session->peer ? session->peer : "an unknown peer";

  if (session && session->client)
    snprintf (name, SESSION_CLIENT_BYTES, "%s (%s)", strrchr (session->client->key, '@') + 1, peer);
  else
    snprintf (name, SESSION_CLIENT_BYTES, "%s", peer);
}

/* => holds s->mutex, but not while it waits. */
static int
begin_session_locked (struct sessions *s, struct session *session, struct session_wish *wish)
{
  char key[KEY_BYTES];
  int ret = 0;

  mutex_assert_held (&s->mutex);
  if (*wish->name->id) {
    if (snprintf (key, sizeof key, "%s@%s", wish->name->export, wish->name->id) >= KEY_BYTES)
      return -ENAMETOOLONG;
    ret = get_client_locked (s, key, session->epoch, &session->client);
    if (ret < 0)
      return ret;
    session->client->nusers++;
  }
  ret = admit_locked (s, session, wish->exclusive);
  if (ret == -EBUSY)
    name_client (find_rival_locked (s, session), wish->holder);
  if (ret == 0) {
    if (wish->exclusive)
      forget_ousted_locked (s, session->export);
    session->next = s->first;
    s->first = session;
  } else if (session->client)
    session->client->nusers--;
  return ret;
}

int
session_open (struct sessions *s, struct session_wish *wish, struct session **ret)
{
  struct session *session = aligned_alloc (CACHE_LINE, sizeof *session);
  int err;

  if (!session)
    return -ENOMEM;
  *session = (struct session){ .sessions = s, .export = wish->export, .epoch = wish->name->epoch };
  snprintf (session->peer, sizeof session->peer, "%s", wish->peer);
  mutex_lock (&s->mutex);
  err = begin_session_locked (s, session, wish);
  mutex_unlock (&s->mutex);
  if (err < 0) {
    free (session);
    return err;
  }
  *ret = session;
  return 0;
}

void
session_close (struct session *session)
{
  struct sessions *s = session->sessions;
  struct session **link = &s->first;

  if (atomic_load (&session->state) & COUNT)
    bug ("a session is closed while its requests are under way");
  mutex_lock (&s->mutex);
  while (*link != session)
    link = &(*link)->next;
  *link = session->next;
  if (session->client)
    session->client->nusers--;
  mutex_unlock (&s->mutex);
  free (session);
}

struct export *
session_export (const struct session *session)
{
  return session->export;
}

const char *
session_peer (const struct session *session)
{
  return session->peer;
}

/* => holds s->mutex. */
static unsigned
count_locked (struct sessions *s, const struct export *e)
{
  unsigned n = 0;

  mutex_assert_held (&s->mutex);
  for (const struct session *session = s->first; session; session = session->next)
    n += session->export == e && !is_barred (session);
  return n;
}

unsigned
sessions_count (struct sessions *s, const struct export *e)
{
  unsigned n;

  mutex_lock (&s->mutex);
  n = count_locked (s, e);
  mutex_unlock (&s->mutex);
  return n;
}

/* => holds s->mutex. Is it the first in the list of its client's that are not barred? */
static bool
is_first_locked (struct sessions *s, const struct session *session)
{
  const struct session *other = s->first;

  mutex_assert_held (&s->mutex);
  while (other->export != session->export || is_barred (other) ||
         !(other == session || is_same_client (other, session)))
    other = other->next;
  return other == session;
}

unsigned
sessions_list (struct sessions *s, const struct export *e, char *names, size_t room)
{
  char name[SESSION_CLIENT_BYTES];
  size_t len = 0;
  unsigned n = 0;

  *names = 0;
  mutex_lock (&s->mutex);
  for (const struct session *session = s->first; session; session = session->next)
    if (session->export == e && !is_barred (session) && is_first_locked (s, session)) {
      name_client (session, name);
      if (len < room)
        len += (size_t) snprintf (names + len, room - len, "%s%s", n ? ", " : "", name);
      n++;
    }
  mutex_unlock (&s->mutex);
  return n;
}

unsigned
sessions_bar (struct sessions *s, const struct export *e)
{
  unsigned n;

  mutex_lock (&s->mutex);
  n = count_locked (s, e);
  forget_ousted_locked (s, e);
  for (struct session *session = s->first; session; session = session->next)
    if (session->export == e && !is_barred (session)) {
      if (!is_ousted_locked (s, session))
        oust_locked (s, session);
      atomic_fetch_or (&session->state, BARRED);
    }
  pthread_cond_broadcast (&s->changed); /* who waits for something else may have to wait no more */
  mutex_unlock (&s->mutex);
  return n;
}

/* => holds s->mutex. One that is not barred, or has a request under way. */
static bool
has_user_locked (struct sessions *s, const struct export *e)
{
  mutex_assert_held (&s->mutex);
  for (const struct session *session = s->first; session; session = session->next)
    if (session->export == e && (!is_barred (session) || is_busy (session)))
      return true;
  return false;
}

int
sessions_hold (struct sessions *s, struct session_hold *hold, const struct export *e)
{
  int ret = -EBUSY;

  mutex_lock (&s->mutex);
  if (!has_user_locked (s, e) && !find_hold_locked (s, e)) {
    *hold = (struct session_hold){ .export = e, .next = s->holds };
    s->holds = hold;
    ret = 0;
  }
  mutex_unlock (&s->mutex);
  return ret;
}

void
sessions_release (struct sessions *s, struct session_hold *hold, bool gone)
{
  struct session_hold **link = &s->holds;

  mutex_lock (&s->mutex);
  while (*link != hold)
    link = &(*link)->next;
  *link = hold->next;
  if (gone)
    forget_ousted_locked (s, hold->export);
  hold->gone = gone;
  hold->released = true;
  pthread_cond_broadcast (&s->changed);
  while (hold->nwaiting > 0)
    mutex_wait (&s->mutex, &s->changed);
  mutex_unlock (&s->mutex);
}

static void
wait_resumed (struct sessions *s)
{
  mutex_lock (&s->mutex);
  while (s->halted)
    mutex_wait (&s->mutex, &s->changed);
  mutex_unlock (&s->mutex);
}

int
session_begin (struct session *session)
{
  uint64_t state = atomic_load_explicit (&session->state, memory_order_relaxed);

  /* Counted only if it may begin: so those that must not keep nobody waiting for the others' end. */
  for (;;) {
    if (state & HALTED) {
      wait_resumed (session->sessions);
      state = atomic_load_explicit (&session->state, memory_order_relaxed);
    } else if (state & BARRED)
      return -ESTALE;
    else if (atomic_compare_exchange_weak (&session->state, &state, state + 1))
      return 0;
  }
}

void
session_end (struct session *session)
{
  struct sessions *s = session->sessions;
  uint64_t before = atomic_fetch_sub (&session->state, 1);

  if (!(before & (BARRED | HALTED)) || (before & COUNT) != 1)
    return;
  mutex_lock (&s->mutex); /* who looks at the state before he waits has it */
  pthread_cond_broadcast (&s->changed);
  mutex_unlock (&s->mutex);
}

/* => holds s->mutex. */
static void
resume_locked (struct sessions *s)
{
  mutex_assert_held (&s->mutex);
  s->halted = false;
  for (struct session *session = s->first; session; session = session->next)
    atomic_fetch_and (&session->state, ~HALTED);
  pthread_cond_broadcast (&s->changed);
}

/* => holds s->mutex, but not while it waits. */
static int
wait_idle_locked (struct sessions *s, unsigned timeout_ms)
{
  uint64_t end_ns = now_ns () + (uint64_t) timeout_ms * NS_PER_MS;
  struct timespec end = { .tv_sec = (time_t) (end_ns / NS_PER_SECOND),
                          .tv_nsec = (long) (end_ns % NS_PER_SECOND) };

  mutex_assert_held (&s->mutex);
  while (is_any_busy_locked (s)) {
    if (now_ns () >= end_ns)
      return -ETIMEDOUT;
    mutex_timedwait (&s->mutex, &s->changed, &end);
  }
  return 0;
}

int
sessions_halt (struct sessions *s, unsigned timeout_ms)
{
  int ret = -EALREADY;

  mutex_lock (&s->mutex);
  if (!s->halted) {
    s->halted = true;
    for (struct session *session = s->first; session; session = session->next)
      atomic_fetch_or (&session->state, HALTED);
    ret = wait_idle_locked (s, timeout_ms);
    if (ret < 0)
      resume_locked (s);
  }
  mutex_unlock (&s->mutex);
  return ret;
}

void
sessions_resume (struct sessions *s)
{
  mutex_lock (&s->mutex);
  resume_locked (s);
  mutex_unlock (&s->mutex);
}
