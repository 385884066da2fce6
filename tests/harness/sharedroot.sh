#!/bin/sh
# Starts a keeper in a mount namespace whose `/` is shared, as systemd makes it, and counts the
# mounts of the keeper that this namespace, the "host", sees. Arguments: python, directory.
set -eu
python=$1 directory=$2
mount --make-rshared /
mkdir -p "$directory/kubelet/pods"
seen() { grep -c akvfs-keeper /proc/self/mountinfo || true; }
echo "before: $(seen)"
"$python" -m fusefs --socket "$directory/keeper/keeper.sock" --kubelet-root "$directory/kubelet" &
keeper=$!
tries=0
until [ -S "$directory/keeper/keeper.sock" ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 200 ] || { kill "$keeper"; exit 1; }
    sleep 0.05
done
echo "serving: $(seen)"
kill -KILL "$keeper"
wait "$keeper" || true
echo "after: $(seen)"
