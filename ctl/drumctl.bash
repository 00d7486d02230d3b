# SPDX-License-Identifier: BSD-3-Clause
# bash completion for drumctl(8): verbs, options, columns, and the devices, exports and jobs of the running server.

# What the server at hand says, one word a line: list, exports or jobs, and the column.
_drumctl_ask() {
  local -a server=()
  [[ -n $socket ]] && server=(-s "$socket")
  "${COMP_WORDS[0]}" -t 2 "${server[@]}" "$1" --raw --noheadings -o "$2" 2>/dev/null
}

# Those of the words on standard input, \xNN in them undone, that begin with $cur.
_drumctl_match() {
  local word
  while read -r word; do
    printf -v word '%b' "$word"
    [[ $word == "$cur"* ]] && COMPREPLY+=("$(printf '%q' "$word")")
  done
}

_drumctl_files() {
  compopt -o filenames 2>/dev/null
  mapfile -t COMPREPLY < <(compgen -f -- "$cur")
}

# The last of some columns, the ones before it in front.
_drumctl_columns() {
  local before=
  [[ $cur == +* ]] && before=+
  [[ $cur == *,* ]] && before=${cur%,*},
  compopt -o nospace 2>/dev/null
  mapfile -t COMPREPLY < <(compgen -P "$before" -W "$1" -- "${cur#"$before"}")
}

_drumctl() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
  local verbs="list status watch map metrics add remove cancel rebalance scrub priority maxio jobs wait shutdown
    exports export-add export-set export-resize export-move export-fill export-takeover export-remove"
  local terms="--reserve --limit --weight --iops --bandwidth --exclusive"
  local table="--bytes --json --noheadings --output --raw" common="--socket --timeout --help"
  local verb= socket= options i

  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      -s | --socket) socket=${COMP_WORDS[++i]} ;;
      -t | --timeout) ((i++)) ;;
      -*) ;;
      *) [[ -z $verb ]] && verb=${COMP_WORDS[i]} ;;
    esac
  done

  case $prev in
    -s | --socket | --svg) _drumctl_files; return ;;
    -t | --timeout | -i | --interval | -c | --count | --cells | --rate | -p | --prio | --size | --reserve | --limit | --weight | --iops | \
      --bandwidth | --offset | --length) return ;;
  esac
  case $verb:$prev in
    metrics:-o | metrics:--output) _drumctl_files; return ;;
    remove:-r | rebalance:-r | scrub:-r) return ;;
    list:-o | list:--output)
      _drumctl_columns "NAME TYPE SIZE USED AVAIL USE% PRIO STATE BAD SUSPECT READ WRITTEN READS WRITES ERRORS RERRORS WERRORS MISMATCHES INFLIGHT UUID"
      return ;;
    exports:-o | exports:--output)
      _drumctl_columns "NAME SIZE USED USE% RESERVE LIMIT CLIENTS READ WRITTEN LAST-IO WEIGHT IOPS BANDWIDTH EXCLUSIVE TEMPLATE ZERO
        TRIMMED ZEROED READS WRITES TRIMS ZEROES ERRORS RERRORS WERRORS INFLIGHT"
      return ;;
    export-set:--exclusive)
      mapfile -t COMPREPLY < <(compgen -W "yes no" -- "$cur")
      return ;;
    jobs:-o | jobs:--output)
      _drumctl_columns "ID KIND DEVICE STATE DONE TOTAL DONE% RATE LIMIT TIME UNREADABLE LOST ERROR"
      return ;;
  esac

  case $verb in
    '') options="--version" ;;
    list | jobs | exports) options=$table ;;
    status) options="--json" ;;
    watch) options="--interval --count --json" ;;
    map) options="--cells --svg" ;;
    metrics) options="--output" ;;
    add) options="--prio --size --force --no-wait" ;;
    remove) options="--rate --force --no-wait" ;;
    rebalance | scrub) options="--rate --no-wait" ;;
    shutdown) options="--force" ;;
    export-add) options="--size $terms" ;;
    export-set) options=$terms ;;
    export-fill) options="--offset --length" ;;
    export-remove | export-resize | export-move) options="--no-wait" ;;
    *) options= ;;
  esac
  if [[ $cur == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$options $common" -- "$cur")
    return
  fi
  case $verb in
    '') mapfile -t COMPREPLY < <(compgen -W "$verbs" -- "$cur") ;;
    add) _drumctl_files ;;
    remove | scrub | priority | maxio) _drumctl_match < <(_drumctl_ask list NAME) ;;
    export-add) ;;
    exports | export-*) _drumctl_match < <(_drumctl_ask exports NAME) ;;
    wait | cancel) _drumctl_match < <(_drumctl_ask jobs ID) ;;
  esac
}

complete -F _drumctl drumctl
