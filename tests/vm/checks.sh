# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=dash disable=SC2034,SC2154 # variables of lib.sh, and of those who source this
# checks.sh - what the tests in a guest have in common: their arguments, one line a check, and "N passed, N failed".
# Sourced, with $top set, after usage () is there and with the script's arguments; afterwards lib.sh is at hand, a scratch
# folder, and a guest to boot.

name=tests/vm/${0##*/}
limit=1500

bad_usage () {
  echo "$name: $*; see $name --help" >&2
  exit 2
}

while [ $# -gt 0 ]; do
  case $1 in
    -h|--help) usage; exit 0 ;;
    --limit)
      [ $# -ge 2 ] || bad_usage "--limit needs a number of seconds"
      case $2 in
        ''|*[!0-9]*) bad_usage "--limit $2: is not a number of seconds" ;;
      esac
      limit=$2
      shift ;;
    # A function own_option of the test takes those that it has, each with a value.
    *)
      if command -v own_option >/dev/null && own_option "$1" "${2:-}"; then
        shift
      else
        bad_usage "$1: there is no such argument, or not with this value"
      fi ;;
  esac
  shift
done

if [ -z "${PLUGIN:-}" ]; then
  for PLUGIN in plugin "$top/build/release/plugin" "$top/plugin"; do
    PLUGIN=$PLUGIN/.libs/nbdkit-drum-plugin.so
    [ ! -e "$PLUGIN" ] || break
  done
fi
[ -r "$PLUGIN" ] || bad_usage "$PLUGIN: there is no plugin; build it, or say with PLUGIN= where it is"
PLUGIN=$(cd "$(dirname "$PLUGIN")" && pwd)/${PLUGIN##*/}
DRUMCTL=${DRUMCTL:-${PLUGIN%/plugin/*}/ctl/drumctl}
command -v "$DRUMCTL" >/dev/null || bad_usage "$DRUMCTL: there is no drumctl; build it, or say with DRUMCTL= where it is"
GUEST=${GUEST:-$top/build/guest}

passed=0 failed=0

# check STATUS TEXT: one line of the report.
check () {
  if [ "$1" -eq 0 ]; then
    passed=$((passed + 1))
    echo "ok $((passed + failed)) - $2"
  else
    failed=$((failed + 1))
    echo "not ok $((passed + failed)) - $2"
  fi
}

# at_least NUMBER MINIMUM TEXT
at_least () {
  if [ "${1:-0}" -ge "$2" ]; then
    check 0 "$3 ($1)"
  else
    check 1 "$3 (${1:-none}, expected $2 or more)"
  fi
}

# is_zero NUMBER TEXT: an empty number is not zero: nobody has counted.
is_zero () {
  if [ "$1" = 0 ]; then
    check 0 "$2"
  else
    check 1 "$2 (${1:-not counted})"
  fi
}

# is VALUE EXPECTED TEXT
is () {
  if [ "$1" = "$2" ]; then
    check 0 "$3"
  else
    check 1 "$3 (\"$1\", expected \"$2\")"
  fi
}

# The guest is to have drum-swapon and drum-swapoff.
take_swapon () {
  SWAPON=${SWAPON:-${DRUMCTL%/*}/drum-swapon}
  for program in "$SWAPON" "${SWAPON%/*}/drum-swapoff"; do
    [ -x "$program" ] || bad_usage "$program: is not there; build it, or say with SWAPON= where drum-swapon is"
  done
  vm_add_programs "$SWAPON" "${SWAPON%/*}/drum-swapoff"
}

finish () {
  [ "$failed" -eq 0 ] || vm_why
  echo "1..$((passed + failed))"
  echo "$passed passed, $failed failed"
  [ "$failed" -eq 0 ]
  exit
}

"$top/ci/guest" "$GUEST"
GUEST=$(cd "$GUEST" && pwd)
# shellcheck source=tests/vm/lib.sh
. "$top/tests/vm/lib.sh"
vm_begin
vm_accel "# "
