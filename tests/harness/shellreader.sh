#!/usr/bin/env bash
# The reader of reader.py as a shell script: a process for each read, forked with the file open.
#
# shellreader.sh PATH SHARED REPORT OFFSET_US, where OFFSET_US turns the time of day into the
# monotonic clock.
set -uo pipefail

readonly path=$1 shared=$2 report=$3 offset_us=$4
export LC_ALL=C
begun=() ended=() example=
errors=0 torn=0 stale=0

judge() { # judge DATA AT_LEAST
  local data=$1 record=${1:0:14} generation
  [[ $record =~ ^....-([0-9]{8})\;$ ]] && generation=$((10#${BASH_REMATCH[1]})) || generation=-1
  if ((generation < 0 || ${#data} != 14 * (1 + generation * 7919 % 900))) ||
    [[ -n ${data//"$record"/} ]]; then
    ((torn += 1))
    example="torn: ${#data} bytes, starts $record"
  elif ((generation < $2)); then
    ((stale += 1))
    example="stale: $generation after $2"
  fi
}

seconds() { # seconds MICROSECONDS...
  printf '%s\n' "$@" | sed 's/......$/.&/' | paste -sd ,
}

while read -r at_least stop < <(od -An -tu8 -N16 "$shared") && ((stop == 0)); do
  begun+=($((${EPOCHREALTIME/./} + offset_us)))
  if { data=$(cat <&3); } 3<"$path"; then
    ended+=($((${EPOCHREALTIME/./} + offset_us)))
    judge "$data" "$at_least"
  else
    ended+=($((${EPOCHREALTIME/./} + offset_us)))
    ((errors += 1))
  fi
done

failed=
((errors == 0)) || failed="\"cat\": $errors"
cat >"$report" <<JSON
{"begun": [$(seconds "${begun[@]}")], "ended": [$(seconds "${ended[@]}")], "errors": {$failed},
 "torn": $torn, "stale": $stale, "size_wrong": 0, "examples": [${example:+"\"$example\""}]}
JSON
