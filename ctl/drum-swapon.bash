# SPDX-License-Identifier: BSD-3-Clause
# bash completion for drum-swapon(8) and drum-swapoff(8): options, and the devices that are attached.

_drum_swapon() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
  local columns="NAME URI SIZE USED PRIO STATE SINCE OUTAGES LONGEST CONNECTIONS EPOCH PID STANDBY" before=

  COMPREPLY=()
  case $prev in
    -o | --output)
      [[ $cur == +* ]] && before=+
      [[ $cur == *,* ]] && before=${cur%,*},
      compopt -o nospace 2>/dev/null
      mapfile -t COMPREPLY < <(compgen -P "$before" -W "$columns" -- "${cur#"$before"}")
      return ;;
    --device)
      mapfile -t COMPREPLY < <(compgen -G '/dev/nbd*' | grep -E '^/dev/nbd[0-9]+$' | grep -F -- "$cur")
      return ;;
    -p | --priority | -C | --connections | -w | --wait) return ;;
  esac
  [[ $cur == -* ]] &&
    mapfile -t COMPREPLY < <(compgen -W "--priority --connections --wait --discard --mkswap --force --tune --no-fence --device
      --foreground --status --bytes --json --noheadings --output --raw --version --help" -- "$cur")
}

_drum_swapoff() {
  local cur=${COMP_WORDS[COMP_CWORD]}

  COMPREPLY=()
  if [[ $cur == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "--version --help" -- "$cur")
  else
    mapfile -t COMPREPLY < <(compgen -W "$(drum-swapon --status -nr -o NAME 2>/dev/null)" -- "$cur")
  fi
}

complete -F _drum_swapon drum-swapon
complete -F _drum_swapoff drum-swapoff
