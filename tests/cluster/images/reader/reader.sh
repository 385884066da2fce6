#!/bin/sh
# The reader of reader.py in shell; the clock that a shell has is exact to 10 ms.
now_ms() {
    read -r up _ </proc/uptime
    now=${up%.*}${up#*.}0
}

now_ms
last_good=$now window=$now attempts=0 errors=0 longest=0 message=-
while :; do
    for path; do
        content=
        if { read -r content || [ -n "$content" ]; } 2>/dev/null <"$path"; then
            now_ms
            [ $((now - last_good)) -le "$longest" ] || longest=$((now - last_good))
            last_good=$now
        else
            now_ms
            errors=$((errors + 1))
            message="$path: not to be read"
        fi
        attempts=$((attempts + 1))
        if [ $((now - window)) -ge 100 ]; then
            echo "$now $attempts $errors $longest $message"
            window=$now attempts=0 errors=0 longest=0 message=-
        fi
        sleep 0.003 # as long again to start it
    done
done
