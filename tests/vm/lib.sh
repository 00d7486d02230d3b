# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=dash disable=SC2034 # most of these variables are for those who source this
# lib.sh - a drum, a guest that swaps on it, and what the two say. Sourced by tests/vm/run, ci/quickstart and whatever
# else wants to do things to a server while a real kernel swaps on it.
#
# Each process runs in a session of its own, and whatever one prints comes as lines into one queue (a fifo), which
# vm_next reads. So there is one place that waits, for everything at once, and nothing is polled: not the server's
# start, not the guest's steps, not the end of either, not the time limit. A test reads like this:
#
#   top=...; . "$top/tests/vm/lib.sh"
#   vm_begin                            # scratch folder $vm_dir; from here on nothing stays behind, however we end
#   vm_accel "# "                       # KVM if it boots a guest, else TCG
#   vm_limit 300                        # vm_next fails once this many seconds are over
#   vm_serve "$vm_dir/a,size=64M" ...   # nbdkit; sets vm_port
#   vm_boot pages=50000                 # the guest, with parameters of tests/vm/init
#   vm_wait guest 'swap:*'              # it swaps: do something to the server
#   vm_drumctl remove "$vm_dir/a"
#   vm_wait guest 'result:*'
#   vm_stop_server
#
# More guests than one have names that begin with "guest": vm_guest=guest_a before vm_boot, vm_tell and the like says which is
# meant; what they say comes as lines of "guest_a", and their numbers and results are vm_a_swap_in, vm_a_result and so on.
#
# From outside: PLUGIN (path of the plugin), DRUMCTL (drumctl), GUEST (folder made by ci/guest), NBDKIT (nbdkit).

# => after vm_next: who said something (server, guest, ready, end), and what
vm_who='' vm_line=''
# => what was said last: the guest's step (any guest's), its result; what vm_drumctl's drumctl said, a line each. And all that
# should not have been said: lines of a guest's dmesg, wrong pages
vm_step='' vm_result='' vm_said='' vm_problems=''
# => which of guest and server has ended, and in which step of the guest; that the time limit is over
vm_over='' vm_late=''
# => the drum's devices, as vm_look has seen them, or as the guest's own drumctl says: a line "PATH USED PRIO STATE ERRORS"
# each; vm_device finds one
vm_devices='' vm_used='' vm_prio='' vm_state='' vm_errors=''
# => numbers of the guest's "swap:" and "memload:" lines, as vm_swap_used (KiB), vm_memload_checked and so on
vm_swap_seconds=0 vm_swap_used=0 vm_swap_size=0 vm_swap_in=0 vm_swap_out=0
vm_memload_seconds=0 vm_memload_checked=0 vm_memload_rewritten=0 vm_memload_wrong=0 vm_memload_in=0 vm_memload_out=0
# => milliseconds of what memload did, when it has done it: vm_took_fill, vm_took_touch, vm_took_check, vm_took_command
vm_took_fill='' vm_took_touch='' vm_took_check='' vm_took_command=''
# => of the result: vm_result_in, vm_result_out, vm_result_wrong, vm_result_ioerrors; empty if the guest did not get there
vm_result_in='' vm_result_out='' vm_result_wrong='' vm_result_ioerrors=''

vm_dir='' vm_scratch='' vm_pids='' vm_build='' vm_newest='' vm_gone='' vm_clocks=0 vm_port=0 vm_accel='' vm_status=0
vm_stdin=/dev/null vm_ram=320 vm_cpus=2 vm_guest=guest vm_disks='' vm_disk_options='' vm_initramfs='' vm_kernel='' vm_qmp=no

# Make the scratch folder and the queue, and see to it that nothing stays behind.
vm_begin () {
  trap 'vm_status=$?; vm_end; exit $vm_status' EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
  vm_make_scratch "${TMPDIR:-/tmp}" || {
    echo "${TMPDIR:-/tmp}: cannot make a folder there; set TMPDIR to one that can be written to" >&2
    exit 1
  }
  vm_dir=$vm_new_scratch
  : >"$vm_dir/devices.log"
  mkfifo "$vm_dir/queue"
  exec 9<>"$vm_dir/queue"
  DRUM_CONTROL=$vm_dir/control
  export DRUM_CONTROL
}

# vm_make_scratch PARENT: a folder that goes when we go; sets vm_new_scratch.
vm_make_scratch () {
  vm_new_scratch=$(mktemp -d "$1/drum-XXXXXX" 2>/dev/null) || return 1
  vm_scratch="$vm_scratch$vm_new_scratch
"
}

# What is left at the end has nothing to save: a clean end was vm_stop_server's work. Only a build is asked to stop, so
# that make removes what it had half written.
vm_end () {
  trap '' HUP INT TERM
  # With bash it may be empty here: that of a read that was interrupted.
  IFS=' '
  # A signal may have come just after a process was started and before its id was noted.
  [ "${!:-}" = "$vm_newest" ] || vm_pids="$! $vm_pids"
  if [ -n "$vm_build" ]; then
    kill -s TERM "$vm_build" 2>/dev/null || :
    kill -s TERM -- "-$vm_build" 2>/dev/null || :
  fi
  for vm_pid in $vm_pids; do
    kill -s KILL "$vm_pid" 2>/dev/null || :
    kill -s KILL -- "-$vm_pid" 2>/dev/null || :
  done
  wait 2>/dev/null || :
  printf %s "$vm_scratch" | while IFS= read -r vm_folder; do rm -rf "$vm_folder"; done
  vm_pids='' vm_build='' vm_scratch=''
}

# vm_spawn NAME COMMAND...: run it; its lines come into the queue as "NAME LINE", and at last "end NAME". It dies with
# this shell, even if that is killed.
vm_spawn () {
  vm_name=$1
  shift
  # Both ends are open before either process starts, so that neither can miss the other.
  mkfifo "$vm_dir/$vm_name.out"
  exec 8<>"$vm_dir/$vm_name.out"
  # shellcheck disable=SC2094 # a fifo
  exec 7<"$vm_dir/$vm_name.out" 6>"$vm_dir/$vm_name.out" 8>&-
  rm "$vm_dir/$vm_name.out"
  { sed -u "s/\r\$//; s/^/$vm_name /"; echo "end $vm_name"; } <&7 >&9 6>&- 7<&- &
  setpriv --pdeathsig KILL setsid "$@" <>"$vm_stdin" >&6 2>&1 6>&- 7<&- 9<&- &
  vm_pids="$! $vm_pids"
  vm_newest=$!
  eval "vm_pid_$vm_name=\$!"
  exec 6>&- 7<&-
}

# vm_long COMMAND...: run it and wait, in such a way that a signal to this shell ends both at once. => its exit status
vm_long () {
  setpriv --pdeathsig TERM setsid "$@" </dev/null 9<&- &
  vm_build=$!
  vm_newest=$!
  vm_status=0
  wait "$vm_build" || vm_status=$?
  vm_build=''
  return "$vm_status"
}

# vm_limit SECONDS: from now on; a new limit takes the place of the old one.
vm_limit () {
  vm_late=
  vm_signal TERM "clock$vm_clocks"
  vm_clocks=$((vm_clocks + 1))
  vm_spawn "clock$vm_clocks" sleep "$1"
}

# vm_forget NAME: its process has ended, and its id may soon be somebody else's.
vm_forget () {
  eval "vm_gone=\$vm_pid_$1"
  vm_left=''
  for vm_pid in $vm_pids; do
    [ "$vm_pid" = "$vm_gone" ] || vm_left="$vm_left$vm_pid "
  done
  vm_pids=$vm_left
}

# vm_runs NAME: does its process still run, as far as we know? => sets vm_gone to its id
vm_runs () {
  eval "vm_gone=\${vm_pid_$1:-none}"
  case " $vm_pids " in
    *" $vm_gone "*) return 0 ;;
  esac
  return 1
}

# vm_signal SIGNAL NAME: if it still runs.
vm_signal () {
  if vm_runs "$2"; then
    kill -s "$1" "$vm_gone" 2>/dev/null || :
  fi
}

# vm_numbers PREFIX WORD...: sets PREFIX_KEY for each word KEY=NUMBER.
vm_numbers () {
  vm_prefix=$1
  shift
  for vm_word; do
    case $vm_word in
      *=*[!0-9]*|*=|*[!a-z]*=*) ;;
      *=*) eval "${vm_prefix}_${vm_word%%=*}=\${vm_word#*=}" ;;
    esac
  done
}

# Wait for the next line of anybody, keep the books, and set vm_who and vm_line.
# => 1 when the time limit is over (vm_late says in which step), and from then on
# "ready" is the server, once clients can connect, and vm_line its process; "end" tells in vm_line who has ended.
vm_next () {
  [ -z "$vm_late" ] || return 1
  while IFS= read -r vm_line <&9; do
    vm_who=${vm_line%% *}
    vm_line=${vm_line#"$vm_who"}
    vm_line=${vm_line# }
    case $vm_who in
      end)
        vm_forget "$vm_line"
        case $vm_line in
          "clock$vm_clocks")
            vm_late="the time limit was over in step: $vm_step"
            return 1 ;;
          clock*) continue ;;
          server|guest*) vm_over="${vm_over:-the $vm_line ended in step: $vm_step}" ;;
        esac ;;
      server) printf '%s\n' "$vm_line" >>"$vm_dir/server.log" ;;
      drumctl) vm_said="$vm_said$vm_line
" ;;
      guest*)
        printf '%s\n' "$vm_line" >>"$vm_dir/$vm_who.log"
        vm_line=${vm_line#guest: }
        vm_books=vm${vm_who#guest}
        # shellcheck disable=SC2086 # words are what is wanted
        case $vm_line in
          'step: '*) vm_step=${vm_line#step: } ;;
          'swap: '*)
            vm_numbers "${vm_books}_swap" ${vm_line#swap: }
            [ -n "$vm_disks" ] || vm_look || : ;;
          'devices: '*) vm_devices=$(printf %s "${vm_line#devices: }" | tr ';' '\n' | tee -a "$vm_dir/devices.log") ;;
          'memload: seconds='*) vm_numbers "${vm_books}_memload" ${vm_line#memload: } ;;
          'memload: took '*) vm_numbers "${vm_books}_took" ${vm_line#memload: took } ;;
          'dmesg: '*|'memload: page '*) vm_problems="$vm_problems$vm_line
" ;;
          'result: '*)
            eval "${vm_books}_result=\${vm_line#result: }"
            vm_numbers "${vm_books}_result" ${vm_line#result: } ;;
        esac ;;
      *[!0-9]*) ;;
      # nbdkit's pid file is the queue itself: a line of digits.
      ?*) vm_line=$vm_who vm_who=ready ;;
    esac
    return 0
  done
  return 1
}

# vm_wait WHO PATTERN: read on until WHO has said a line like this shell pattern.
# => 0 then; 1 when the time limit is over; 2 when the guest or the server has ended (vm_over says which)
vm_wait () {
  while vm_next; do
    if [ "$vm_who" = "$1" ]; then
      # shellcheck disable=SC2254 # a pattern is what is wanted
      case $vm_line in
        $2) return 0 ;;
      esac
    fi
    [ -z "$vm_over" ] || return 2
  done
  return 1
}

# vm_start_server ARGUMENT...: nbdkit with these arguments, on $vm_port of the loopback address; wait until clients can connect.
# => 1 if it does not start ($vm_dir/server.log says why)
vm_start_server () {
  vm_spawn server "${NBDKIT:-nbdkit}" -f -i 127.0.0.1 -p "$vm_port" -t 1 -P "$vm_dir/queue" "$@"
  vm_over=
  while vm_next; do
    case "$vm_who $vm_line" in
      ready*) return 0 ;;
      'end server') return 1 ;;
    esac
  done
  return 1
}

# vm_start_anywhere ARGUMENT...: the same on a free port; sets vm_port.
vm_start_anywhere () {
  vm_tries=0
  while [ "$vm_tries" -lt 20 ]; do
    vm_tries=$((vm_tries + 1))
    # Below the ports that the kernel gives to outgoing connections, so that only another server can be in the way.
    vm_port=$((20000 + $(od -An -N2 -tu2 /dev/urandom) % 12000))
    : >"$vm_dir/server.log"
    vm_start_server "$@" && return 0
    grep -q 'Address already in use' "$vm_dir/server.log" || return 1
  done
  return 1
}

# vm_serve ARGUMENT...: start nbdkit with the plugin and these arguments on a free port of the loopback address.
# Sets vm_port. => 1 if it does not start ($vm_dir/server.log says why)
vm_serve () {
  vm_start_anywhere "$PLUGIN" "control=$vm_dir/control" "$@"
}

# vm_drumctl VERB ARGUMENT...: what drumctl has to say comes as lines of "drumctl"; wait until it has ended.
# => its exit status, and vm_said; 1 when the time limit is over
vm_drumctl () {
  vm_said=
  vm_spawn drumctl "$DRUMCTL" "$@"
  while vm_runs drumctl; do
    vm_next || return 1
  done
  # shellcheck disable=SC2154 # set by vm_spawn
  wait "$vm_pid_drumctl"
}

# What is on the devices now? vm_next asks once a second while the guest swaps.
# => sets vm_devices; 1 if the server does not say
vm_look () {
  vm_seen=$("$DRUMCTL" --timeout 10 list -bnr -o NAME,USED,PRIO,STATE,ERRORS 2>>"$vm_dir/look.log" 9<&-) || return 1
  vm_devices=$vm_seen
  printf '%s\n' "$vm_devices" >>"$vm_dir/devices.log"
}

# vm_device NAME: the device whose file has this name (or all, with "*"), when vm_look last saw it.
# Sets vm_used (pages), vm_prio, vm_state, vm_errors; they are 0 and empty if there is none.
vm_device () {
  vm_used=0 vm_prio='' vm_state='' vm_errors=0
  while read -r vm_path vm_bytes vm_1 vm_2 vm_3 && [ -n "$vm_path" ]; do
    # shellcheck disable=SC2254 # a pattern is what is wanted
    case ${vm_path##*/} in
      $1) vm_used=$((vm_used + vm_bytes / 4096)) vm_prio=$vm_1 vm_state=$vm_2 vm_errors=$((vm_errors + ${vm_3:-0})) ;;
    esac
  done <<END
$vm_devices
END
}

# Stop the server as an administrator would. => its exit status; 1 if it has not ended after 30 seconds
vm_stop_server () {
  vm_limit 30
  vm_signal TERM server
  while vm_runs server; do
    vm_next || return 1
  done
  # shellcheck disable=SC2154 # set by vm_spawn
  wait "$vm_pid_server"
}

# vm_disk NAME [SIZE]: one more disk for the guest, in the order of vda, vdb, ...: the file $vm_dir/NAME, made with this size.
# vm_disk_options: how QEMU is to open them, as "cache.direct=on,aio=native,discard=unmap".
vm_disk () {
  [ $# -eq 1 ] || truncate -s "$2" "$vm_dir/$1"
  vm_disks="$vm_disks $1"
}

# vm_add_programs FILE...: the guest has them in /usr/sbin, with their libraries.
vm_add_programs () {
  vm_root=$vm_dir/programs
  mkdir -p "$vm_root/usr/sbin"
  for vm_program; do
    # What libtool has not installed yet is elsewhere.
    vm_real=${vm_program%/*}/.libs/${vm_program##*/}
    [ -e "$vm_real" ] || vm_real=$vm_program
    cp "$vm_real" "$vm_root/usr/sbin/"
    ldd "$vm_real" | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// { print $1 }'
  done | sort -u | while read -r vm_library; do
    mkdir -p "$vm_root${vm_library%/*}"
    cp -L "$vm_library" "$vm_root$vm_library"
  done
  # The kernel unpacks one archive after the other.
  vm_initramfs=$vm_dir/initramfs
  {
    cat "$GUEST/initramfs"
    (cd "$vm_root" && find . | sort | cpio --quiet -o -H newc -R 0:0)
  } >"$vm_initramfs"
}

# vm_qemu ACCEL WORD...: boot the guest with these words on its command line, $vm_cpus CPUs, $vm_ram MiB of memory, and its disks.
# Two serial ports: the kernel's console, which goes to a file, and the guest's own lines, which go to the queue; what
# vm_tell says comes to the latter. What QEMU itself says comes as lines of "qemu", and vm_ask_qemu speaks to it.
vm_qemu () {
  vm_qemu_accel=$1
  vm_append="console=ttyS0 quiet panic=-1 mitigations=off no_timer_check random.trust_cpu=on"
  shift
  vm_append="$vm_append $vm_kernel $*"
  vm_books=vm${vm_guest#guest}
  vm_numbers "${vm_books}_swap" seconds=0 used=0 size=0 in=0 out=0
  vm_numbers "${vm_books}_memload" seconds=0 checked=0 rewritten=0 wrong=0 in=0 out=0
  eval "${vm_books}_result=''"
  set -- -nodefaults -no-user-config -no-reboot -display none -monitor none \
    -accel "$vm_qemu_accel" -cpu max -smp "$vm_cpus" -m "$vm_ram" -kernel "$GUEST/vmlinuz" -initrd "${vm_initramfs:-$GUEST/initramfs}" \
    -append "$vm_append" -netdev user,id=net0 -device virtio-net-pci,netdev=net0,romfile= \
    -serial "file:$vm_dir/$vm_guest.console.log" -serial stdio
  for vm_name in $vm_disks; do
    set -- "$@" -blockdev "file,node-name=$vm_name-file,filename=$vm_name${vm_disk_options:+,$vm_disk_options}" \
      -blockdev "raw,node-name=$vm_name,discard=unmap,file=$vm_name-file" -device "virtio-blk-pci,drive=$vm_name"
  done
  if [ "$vm_qmp" = yes ] || [ -n "$vm_disks" ]; then
    [ -e "$vm_dir/qmp.in" ] || mkfifo "$vm_dir/qmp.in" "$vm_dir/qmp.out"
    vm_spawn qemu cat "$vm_dir/qmp.out"
    set -- "$@" -qmp pipe:qmp
  fi
  vm_stdin=$vm_dir/$vm_guest.told
  [ -e "$vm_stdin" ] || mkfifo "$vm_stdin"
  vm_spawn "$vm_guest" env -C "$vm_dir" qemu-system-x86_64 "$@"
  vm_stdin=/dev/null
}

# vm_ask_qemu COMMAND...: of QMP, the last one with "id": "last"; a guest with disks, or booted with vm_qmp=yes, can be asked.
# => 1 if QEMU does not do it (vm_line says why), or the time limit is over
vm_ask_qemu () {
  printf '%s\n' '{ "execute": "qmp_capabilities" }' "$@" >"$vm_dir/qmp.in"
  vm_wait qemu '*"last"*' || return 1
  case $vm_line in
    *'"error"'*) return 1 ;;
  esac
}

# vm_break_disk NAME KIND: from now on each I/O of this kind (read, write) on the disk fails with EIO.
vm_break_disk () {
  vm_ask_qemu '{ "execute": "blockdev-add", "arguments": {
      "driver": "blkdebug", "node-name": "'"$1"'-bad", "image": "'"$1"'-file",
      "inject-error": [{ "event": "none", "iotype": "'"$2"'", "errno": 5, "once": false }] } }' \
    '{ "execute": "blockdev-reopen", "arguments": {
      "options": [{ "driver": "raw", "node-name": "'"$1"'", "file": "'"$1"'-bad" }] }, "id": "last" }'
}

# vm_link true|false: plug the guest's network cable in, or pull it.
vm_link () {
  vm_ask_qemu '{ "execute": "set_link", "arguments": { "name": "net0", "up": '"$1"' }, "id": "last" }'
}

# vm_accel [PREFIX]: choose between KVM and TCG; sets vm_accel. That /dev/kvm is there does not say that a guest boots
# with it, so one is booted, with a short limit; the verdict is kept in $GUEST until the machine restarts.
vm_accel () {
  vm_accel=tcg,thread=multi
  [ -r /dev/kvm ] && [ -w /dev/kvm ] || return 0
  vm_boot_id=$(cat /proc/sys/kernel/random/boot_id)
  if [ -r "$GUEST/accel" ]; then
    read -r vm_known_id vm_known <"$GUEST/accel" || :
    if [ "$vm_known_id" = "$vm_boot_id" ]; then
      vm_accel=$vm_known
      return 0
    fi
  fi
  echo "${1:-}trying whether KVM boots a guest (10 seconds at most)"
  vm_limit 10
  vm_qemu kvm drum.probe=1
  if vm_wait guest 'result: ok*'; then
    vm_accel=kvm
  fi
  vm_kill_guest
  vm_result='' vm_step='' vm_over=''
  echo "$vm_boot_id $vm_accel" >"$GUEST/accel"
}

# Pull the guest's plug, if it still has one, and read what it had said.
vm_kill_guest () {
  vm_signal KILL "$vm_guest"
  vm_limit 10
  while vm_runs "$vm_guest"; do
    vm_next || break
  done
}

# vm_boot KEY=VALUE...: boot the guest and have it swap on the drum; the keys are those of tests/vm/init, less "drum.".
vm_boot () {
  vm_words="drum.port=$vm_port"
  for vm_word; do vm_words="$vm_words drum.$vm_word"; done
  # shellcheck disable=SC2086 # words are what is wanted
  vm_qemu "$vm_accel" $vm_words
}

# vm_tell WORD...: to a guest that was booted with wait=1; see tests/vm/init. One that has gone does not mind.
vm_tell () {
  echo "$*" 1<>"$vm_dir/$vm_guest.told"
}

# It has done enough.
vm_enough () {
  vm_tell enough
}

# vm_peak NAME: the most pages that the device whose file has this name was ever seen with.
vm_peak () {
  awk -v name="/$1" '
    substr($1, length($1) - length(name) + 1) == name && $2 / 4096 > peak { peak = $2 / 4096 }
    END { print peak + 0 }' "$vm_dir/devices.log"
}

# vm_why: what the guest's console (which has the guest's own lines, too) and the server said last, as comments, for
# somebody who looks for the fault.
vm_why () {
  for vm_log in "$vm_dir"/guest*.told; do
    vm_log=${vm_log%.told}
    if [ -s "$vm_log.console.log" ]; then
      echo "# the console of ${vm_log##*/}, the last 40 lines:"
      tail -n 40 "$vm_log.console.log" | tr -d '\r' | sed 's/^/#   /'
    elif [ -s "$vm_log.log" ]; then
      echo "# nothing came on the console of ${vm_log##*/}; qemu said:"
      tail -n 40 "$vm_log.log" | sed 's/^/#   /'
    fi
  done
  if [ -s "$vm_dir/look.log" ]; then
    echo "# drumctl list, the last 5 lines of what it complained about:"
    tail -n 5 "$vm_dir/look.log" | sed 's/^/#   /'
  fi
  if [ -s "$vm_dir/server.log" ]; then
    echo "# the server, the last 10 lines:"
    tail -n 10 "$vm_dir/server.log" | sed 's/^/#   /'
  fi
}
