/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "bootid.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

void
bootid_read (uuid_t id)
{
  char text[UUID_STR_LEN] = "";
  int fd = open ("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

  if (fd >= 0) {
    ssize_t n = read (fd, text, sizeof text - 1);

    text[n > 0 ? n : 0] = '\0';
    close (fd);
  }
  if (uuid_parse (text, id) < 0)
    uuid_clear (id);
}
