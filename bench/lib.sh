# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
#
# What the benchmarks have in common that steer a server of their own: nbdkit with the drum, beside fio. A script sources
# this behind its own die.

number ()
{
  [[ $2 =~ ^[1-9][0-9]{0,6}$ ]] || die "$1: \"$2\" is not a number of 1 or more"
}

# find_build: from $plugin, or the newest; $build, $drumctl, $libfaults and $slowdisk are of the same.
find_build ()
{
  for tool in nbdkit fio jq findmnt; do
    command -v "$tool" >/dev/null || die "$tool is missing (Debian: apt-get install nbdkit fio jq util-linux)"
  done
  fio --enghelp 2>/dev/null | grep -qw nbd || die "this fio has no nbd engine (Debian's has)"
  local top
  top=$(cd "$(dirname "$0")/.." && pwd)
  if [ -z "$plugin" ]; then
    plugin=$(ls -t "$top"/plugin/.libs/nbdkit-drum-plugin.so "$top"/build/*/plugin/.libs/nbdkit-drum-plugin.so \
      plugin/.libs/nbdkit-drum-plugin.so 2>/dev/null | head -n1 || true)
    [ -n "$plugin" ] || die "no plugin is built in $top: build it first, or give --plugin PATH"
  fi
  [ -f "$plugin" ] || die "$plugin: no such plugin"
  plugin=$(realpath "$plugin")
  build=${plugin%/plugin/.libs/*}
  drumctl=${DRUMCTL:-$build/ctl/drumctl}
  [ -x "$drumctl" ] || die "$drumctl is missing: build it first"
  libfaults=$build/tests/faults/.libs/libfaults.so
  slowdisk=$build/tests/faults/slowdisk
}

# machine DIR: what figures depend on beside the code: the machine, the disk that this folder is on, and what runs.
machine ()
{
  local disk fs top commit
  top=$(cd "$(dirname "$0")/.." && pwd)
  if commit=$(git -C "$top" describe --always --tags 2>/dev/null); then
    # What another one of these wrote into docs/ is no other Drum.
    git -C "$top" diff --quiet HEAD -- ':/' ':!/docs' || commit=$commit-dirty
  else
    commit="of an unknown commit"
  fi
  # In a chroot there may be nobody who knows.
  disk=$(findmnt -no SOURCE -T "$1" | head -n1) || disk='an unknown disk'
  fs=$(findmnt -no FSTYPE -T "$1" | head -n1) || fs='a file system'
  echo "$(awk -F ': *' '/^model name/ { print $2; exit }' /proc/cpuinfo), $(nproc) CPUs," \
    "$(awk '/^MemTotal/ { printf "%.0f", $2 / 1048576 }' /proc/meminfo) GiB of memory$(! grep -qw hypervisor /proc/cpuinfo || echo ', a virtual machine')"
  echo "$(uname -srm), $fs on $disk $(lsblk -ndo SIZE,TRAN,MODEL "$disk" 2>/dev/null || true)" | sed 's, *$,,; s,  *, ,g'
  echo "drum $commit, $(nbdkit --version), $(fio --version)"
}

# need DIR MIB
need ()
{
  local free_mib
  free_mib=$(df --output=avail -BM "$1" | tail -n1 | tr -dc 0-9)
  [ "$free_mib" -gt $(($2 + 64)) ] || die "$1: $free_mib MiB are free, and $2 are needed; see --help"
}

# need_faults: built from what is there now, since an old one makes other disks than it says.
need_faults ()
{
  local log
  log=$(MAKEFLAGS='' make -C "$build/tests/faults" check TESTS= 2>&1) ||
    die "$libfaults can't be built: make -C $build/tests/faults check TESTS= says: $(tail -n3 <<<"$log")"
  [ -f "$libfaults" ] && [ -x "$slowdisk" ] || die "$libfaults is missing: make -C $build/tests/faults check TESTS="
}

# begin NAME DIR: $scratch is in it, and $slow in /dev/shm, whose disk is memory; both go in the end, and so do the processes in $pids.
begin ()
{
  scratch=$(mktemp -d "$2/drum-$1-XXXXXX")
  slow=$(mktemp -d "/dev/shm/drum-$1-XXXXXX")
  own=("$scratch" "$slow") # a script may have other servers below it
  pids=()
  trap cleanup EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

cleanup ()
{
  trap - EXIT
  trap '' INT TERM
  [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "${own[@]}"
}

# on NAME COMMAND...: with the server, and all else, in $scratch/NAME.
on ()
{
  local scratch=$scratch/$1
  shift
  "$@"
}

# --- a server

# serve COMMAND...: in the background; $server is its process. await says when it is up.
serve ()
{
  "$@" 2>"$scratch/server.log" &
  server=$!
  pids+=("$server")
}

# await COMMAND...: until that succeeds, if the server does not end before.
await ()
{
  until "$@" >/dev/null 2>&1; do
    kill -0 "$server" 2>/dev/null || die "$(basename "$scratch") does not start: $(cat "$scratch/server.log")"
    sleep 0.05
  done
}

# start_nbdkit ARGUMENT...: on $scratch/sock; with $preload, $threads and $options, if they are set.
start_nbdkit ()
{
  rm -f "$scratch/pid" "$scratch/sock"
  DRUM_FAULTS=$scratch/faults LD_PRELOAD=${preload:-} serve nbdkit -f --exit-with-parent -U "$scratch/sock" -P "$scratch/pid" \
    ${threads:+-t "$threads"} ${options:-} "$@"
  await test -s "$scratch/pid"
}

# start_server SIZE DEVICE...: the drum, steered by $scratch/control; with $params, if they are set.
start_server ()
{
  local size=$1
  shift
  start_nbdkit "$plugin" "$@" ${params:-} size="$size" control="$scratch/control"
}

stop_server ()
{
  kill "$server"
  wait "$server" || die "nbdkit ends with status $?: $(cat "$scratch/server.log")"
  pids=()
  rm -f "$scratch"/disk.* "$slow"/disk.*
}

ctl ()
{
  "$drumctl" -s "$scratch/control" "$@" >"$scratch/ctl.log" 2>&1 || die "drumctl $*: $(cat "$scratch/ctl.log")"
}

# fio_run NAME RW OPTION...: its result is in $scratch/NAME.json. With $scratch/itself it is the disk there that is asked, and no server.
fio_run ()
{
  local name=$1 rw=$2 whom=(--ioengine=nbd --uri="nbd+unix:///${export:-}?socket=$scratch/sock")
  shift 2
  [ ! -e "$scratch/itself" ] || whom=(--ioengine=libaio --direct=1 --filename="$scratch/disk")
  (cd "$scratch" && exec fio --name="$name" "${whom[@]}" --rw="$rw" \
    --norandommap --randrepeat=0 --unified_rw_reporting=1 --output-format=json --output="$scratch/$name.json" "$@") \
    >"$scratch/fio.log" 2>&1 || die "fio failed: $(cat "$scratch/fio.log" "$scratch/server.log")"
}

# fio_value NAME EXPRESSION
fio_value ()
{
  jq -er ".jobs[0] | if .error != 0 then error(\"fio: errno \\(.error)\") else .mixed | $2 end" "$scratch/$1.json" ||
    die "fio's output can't be read: $(head -c 300 "$scratch/$1.json")"
}

# Every page of the export gets a slot.
fill ()
{
  fio_run fill write --bs=1M --iodepth=16 --size="${1}M"
}

# median and range of the numbers on standard input, one a line
summary ()
{
  sort -g | awk '{ v[NR] = $1 } END { print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2, v[1], v[NR] }'
}

# note FIGURE A B: one round's, of which A/B is the ratio; who made them has said what was wrong if there is none.
note ()
{
  [ -n "$2" ] && [ -n "$3" ] || exit 1
  echo "$2" >>"$scratch/$1.a"
  echo "$3" >>"$scratch/$1.b"
  awk -v a="$2" -v b="$3" 'BEGIN { print a / b }' >>"$scratch/$1.ratio"
}

# report FIGURE TEXT NAME-OF-A NAME-OF-B UNIT
report ()
{
  echo $(summary <"$scratch/$1.ratio") $(summary <"$scratch/$1.a") $(summary <"$scratch/$1.b") |
    awk -v text="$2" -v a="$3" -v b="$4" -v unit="$5" \
      '{ printf "%-34s %.2f (%.2f..%.2f)   %s %.4g %s   %s %.4g %s\n", text, $1, $2, $3, a, $4, unit, b, $7, unit }'
  rm -f "$scratch/$1".{a,b,ratio}
}

# replace_part FILE NAME <TEXT: is then what FILE has between its lines <!-- NAME --> and <!-- /NAME -->.
replace_part ()
{
  local first="^<!-- $2 -->\$" last="^<!-- /$2 -->\$"
  [ "$(grep -nE "$first|$last" "$1" | cut -d: -f2- | xargs -d '\n')" = "<!-- $2 --> <!-- /$2 -->" ] ||
    die "$1: has not one line <!-- $2 --> and then one line <!-- /$2 -->"
  sed -i -e "\\,$first,r /dev/stdin" -e "\\,$first,,\\,$last,{ //!d }" "$1"
}
