/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "nbdlink.h"

#include <errno.h>
#include <linux/genetlink.h>
#include <linux/nbd-netlink.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { MESSAGE_BYTES = 4096, ANSWER_BYTES = 8192, BLOCK_BYTES = 4096, PATIENCE_SECONDS = 10 };

struct message {
  struct nlmsghdr head;
  struct genlmsghdr genl;
  unsigned char attributes[MESSAGE_BYTES];
};

static void
begin (struct message *m, struct nbdlink *link, uint16_t family, uint8_t command)
{
  m->head = (struct nlmsghdr){
    .nlmsg_len = NLMSG_LENGTH (GENL_HDRLEN),
    .nlmsg_type = family,
    .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK,
    .nlmsg_seq = ++link->seq,
  };
  m->genl = (struct genlmsghdr){ .cmd = command, .version = NBD_GENL_VERSION };
}

/* One attribute behind the others; data NULL: a nest, of which the rest is to come. */
static struct nlattr *
add (struct message *m, uint16_t type, const void *data, size_t len)
{
  struct nlattr *a = (void *) ((char *) m + m->head.nlmsg_len);

  a->nla_type = data ? type : type | NLA_F_NESTED;
  a->nla_len = (uint16_t) (NLA_HDRLEN + len);
  memset (a + 1, 0, NLA_ALIGN (len));
  if (data)
    memcpy (a + 1, data, len);
  m->head.nlmsg_len += NLA_ALIGN (a->nla_len);
  return a;
}

static void
end_nest (struct message *m, struct nlattr *nest)
{
  nest->nla_len = (uint16_t) ((char *) m + m->head.nlmsg_len - (char *) nest);
}

static void
add_u32 (struct message *m, uint16_t type, uint32_t value)
{
  add (m, type, &value, sizeof value);
}

static void
add_u64 (struct message *m, uint16_t type, uint64_t value)
{
  add (m, type, &value, sizeof value);
}

static void
add_sockets (struct message *m, const int *fds, unsigned n)
{
  struct nlattr *all = add (m, NBD_ATTR_SOCKETS, NULL, 0);

  for (unsigned i = 0; i < n; i++) {
    struct nlattr *item = add (m, NBD_SOCK_ITEM, NULL, 0);

    add_u32 (m, NBD_SOCK_FD, (uint32_t) fds[i]);
    end_nest (m, item);
  }
  end_nest (m, all);
}

/* => the attribute of an answer, if it has one of at least len bytes */
static const void *
find (const struct nlmsghdr *head, uint16_t type, size_t len)
{
  const char *at = (const char *) NLMSG_DATA (head) + GENL_HDRLEN;
  const char *end = (const char *) head + head->nlmsg_len;

  while (end - at >= NLA_HDRLEN) {
    const struct nlattr *a = (const void *) at;

    if (a->nla_len < NLA_HDRLEN || a->nla_len > end - at)
      break;
    if ((a->nla_type & NLA_TYPE_MASK) == type && a->nla_len >= NLA_HDRLEN + len)
      return a + 1;
    at += NLA_ALIGN (a->nla_len);
  }
  return NULL;
}

/* Look for an attribute in what the kernel sends before it acknowledges. Answers to what a process before us has asked for are
 * passed over. => 0 or the kernel's -errno */
static int
hear (struct nbdlink *link, uint16_t wanted, void *value, size_t len)
{
  for (;;) {
    _Alignas(struct nlmsghdr) char answer[ANSWER_BYTES];
    ssize_t n = recv (link->fd, answer, sizeof answer, 0);
    int left = (int) n;

    if (n == -1 && errno == EINTR)
      continue;
    if (n == -1)
      return errno == EAGAIN ? -ETIMEDOUT : -errno;
    for (const struct nlmsghdr *h = (void *) answer; NLMSG_OK (h, left); h = NLMSG_NEXT (h, left)) {
      const void *found;

      if (h->nlmsg_seq != link->seq)
        continue;
      if (h->nlmsg_type == NLMSG_ERROR)
        return h->nlmsg_len >= NLMSG_LENGTH (sizeof (struct nlmsgerr))
                 ? ((const struct nlmsgerr *) NLMSG_DATA (h))->error
                 : -EPROTO;
      found = value ? find (h, wanted, len) : NULL;
      if (found)
        memcpy (value, found, len);
    }
  }
}

static int
ask (struct nbdlink *link, struct message *m, uint16_t wanted, void *value, size_t len)
{
  if (send (link->fd, m, m->head.nlmsg_len, 0) == -1)
    return -errno;
  return hear (link, wanted, value, len);
}

int
nbdlink_open (struct nbdlink *link)
{
  static const char name[] = NBD_GENL_FAMILY_NAME;
  const struct timeval patience = { .tv_sec = PATIENCE_SECONDS };
  struct sockaddr_nl addr = { .nl_family = AF_NETLINK };
  struct message m;
  int ret;

  *link = (struct nbdlink){ .fd = socket (AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC) };
  if (link->fd == -1)
    return -errno;
  setsockopt (link->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  begin (&m, link, GENL_ID_CTRL, CTRL_CMD_GETFAMILY);
  add (&m, CTRL_ATTR_FAMILY_NAME, name, sizeof name);
  if (bind (link->fd, (struct sockaddr *) &addr, sizeof addr) == -1)
    ret = -errno;
  else
    ret = ask (link, &m, CTRL_ATTR_FAMILY_ID, &link->family, sizeof link->family);
  if (ret < 0)
    close (link->fd);
  return ret;
}

int
nbdlink_connect (struct nbdlink *link, int index, const struct nbdlink_device *device)
{
  struct message m;
  uint32_t found = UINT32_MAX;
  int ret;

  begin (&m, link, link->family, NBD_CMD_CONNECT);
  if (index != NBDLINK_ANY)
    add_u32 (&m, NBD_ATTR_INDEX, (uint32_t) index);
  add_u64 (&m, NBD_ATTR_SIZE_BYTES, device->size_bytes);
  add_u64 (&m, NBD_ATTR_BLOCK_SIZE_BYTES, BLOCK_BYTES);
  add_u64 (&m, NBD_ATTR_TIMEOUT, 0);
  add_u64 (&m, NBD_ATTR_DEAD_CONN_TIMEOUT, device->dead_timeout_seconds);
  add_u64 (&m, NBD_ATTR_SERVER_FLAGS, device->flags);
  add_sockets (&m, device->sockets, device->nsockets);
  ret = ask (link, &m, NBD_ATTR_INDEX, &found, sizeof found);
  if (ret < 0)
    return ret;
  return found <= INT16_MAX ? (int) found : -EPROTO;
}

/* If no socket is dead yet the kernel drops ours and says 0, as it does when it has taken it. So one that is none goes behind it,
 * at which the kernel looks only after it has taken the first: EBADF is what we want to hear. */
int
nbdlink_replace (struct nbdlink *link, int index, int fd)
{
  const int fds[] = { fd, -1 };
  struct message m;
  int ret;

  begin (&m, link, link->family, NBD_CMD_RECONFIGURE);
  add_u32 (&m, NBD_ATTR_INDEX, (uint32_t) index);
  add_sockets (&m, fds, 2);
  ret = ask (link, &m, 0, NULL, 0);
  return ret == -EBADF ? 1 : ret;
}

int
nbdlink_disconnect (struct nbdlink *link, int index)
{
  struct message m;

  begin (&m, link, link->family, NBD_CMD_DISCONNECT);
  add_u32 (&m, NBD_ATTR_INDEX, (uint32_t) index);
  return ask (link, &m, 0, NULL, 0);
}
