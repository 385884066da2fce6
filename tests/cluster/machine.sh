#!/bin/sh
# The machine of the test node. `start` goes into the node's cgroups and into new namespaces; `boot`
# gives these a root, devices and a network of their own and stays as PID 1. The host's file system is
# not in sight afterwards, so nothing inside can touch it. `inside COMMAND` runs a program on the node,
# `beside COMMAND` one that has only the node's network.
#
# MACHINE    the node's folder: etc/ is its configuration, disk/ what outlives a reboot
# LAYERS     the folders that the root is made of, highest first
# PROGRAMS   Kubernetes' programs
# CGROUPS    the node's cgroup in each hierarchy
# INIT       the PID 1 of the node, for `inside` and `beside`
# NODE ADDRESS SERVICE_ADDRESS    its name, its address, that of the service "kubernetes"
set -eu

join() {
    for group in $CGROUPS; do
        [ ! -d "$group/system" ] || group=$group/system
        echo 0 >"$group/cgroup.procs"
    done
}

start() {
    join
    exec setpriv --pdeathsig KILL -- unshare --mount --propagation private --net --pid --ipc --uts \
        --cgroup --fork --kill-child -- "$0" boot
}

disks() { # an overlay cannot carry another one, so what holds images and volumes is bound in
    mkdir -p "$MACHINE/root" "$MACHINE/disk/upper" "$MACHINE/disk/work"
    mount -t overlay node "$MACHINE/root" \
        -o "lowerdir=$LAYERS,upperdir=$MACHINE/disk/upper,workdir=$MACHINE/disk/work"
    cd "$MACHINE/root"
    for name in containerd etcd kubelet; do
        mkdir -p "$MACHINE/disk/$name" "var/lib/$name"
        mount --bind "$MACHINE/disk/$name" "var/lib/$name"
    done
    mkdir -p etc/kubernetes
    mount --bind "$MACHINE/etc" etc/kubernetes
    mount --bind "$PROGRAMS" usr/local/bin
    mount -o remount,bind,ro usr/local/bin # they are kept for the next node
    mount -t tmpfs -o mode=755 tmpfs run
    mount -t tmpfs -o mode=1777 tmpfs tmp
}

devices() {
    mount -t proc proc proc
    mount -t sysfs sysfs sys
    mount -t tmpfs -o mode=755 tmpfs dev
    for name in null zero full random urandom tty fuse kmsg; do
        [ ! -e "/dev/$name" ] || cp -a "/dev/$name" dev/
    done
    mkdir dev/pts dev/shm dev/mqueue
    mount -t devpts -o newinstance,gid=5,mode=620,ptmxmode=666 devpts dev/pts
    mount -t tmpfs -o mode=1777 tmpfs dev/shm
    mount -t mqueue mqueue dev/mqueue
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    ln -s /proc/self/fd/0 dev/stdin
    ln -s /proc/self/fd/1 dev/stdout
    ln -s /proc/self/fd/2 dev/stderr
}

cgroups() { # as on the host: version 1, version 2, or version 1 with an empty version 2 beside it
    if [ "$(cat proc/self/cgroup)" = 0::/ ]; then
        mount -t cgroup2 cgroup2 sys/fs/cgroup
        mkdir sys/fs/cgroup/system # a cgroup has either processes or children with controllers
        echo 0 >sys/fs/cgroup/system/cgroup.procs
        sed 's/[^ ][^ ]*/+&/g' sys/fs/cgroup/cgroup.controllers >sys/fs/cgroup/cgroup.subtree_control
        return
    fi
    mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
    while IFS=: read -r _ controllers _; do
        directory=sys/fs/cgroup/${controllers#name=}
        mkdir -p "$directory"
        case $controllers in
            "") mkdir -p sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 sys/fs/cgroup/unified ;;
            *) mount -t cgroup -o "$controllers" cgroup "$directory" ;;
        esac
    done <proc/self/cgroup
}

kernel_settings() { # kubelet writes what it does not find so, for the whole machine; show it this
    mkdir -p run/kernel
    while read -r name value; do
        echo "$value" >"run/kernel/${name##*/}"
        mount --bind "run/kernel/${name##*/}" "proc/sys/$name"
    done <<END
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
kernel/random/boot_id $(cat /proc/sys/kernel/random/uuid)
END
}

enter() { # leave the host's file system
    mkdir -p mnt
    pivot_root . mnt
    cd /
    umount -l /mnt
    mount --make-rshared /
}

identity() {
    echo "$NODE" >/proc/sys/kernel/hostname
    echo "$NODE" >/etc/hostname
    printf '127.0.0.1 localhost\n%s %s\n' "$ADDRESS" "$NODE" >/etc/hosts
    : >/etc/resolv.conf # there is nobody to ask, so asking fails at once
    [ -s /etc/machine-id ] || tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
    ip link set lo up
    ip address add "$SERVICE_ADDRESS/32" dev lo # in place of kube-proxy, for this one service
    ip link add eth0 type veth peer name wire
    ip address add "$ADDRESS/24" dev eth0
    ip link set eth0 up
    ip link set wire up
}

boot() {
    disks
    devices
    cgroups
    kernel_settings
    enter
    identity
    echo ready
    exec env --ignore-signal=CHLD sleep infinity # orphans that end are reaped by the kernel
}

inside() {
    join
    exec nsenter --target "$INIT" --mount --net --pid --ipc --uts --cgroup -- \
        setpriv --pdeathsig KILL -- "$@"
}

beside() {
    exec setpriv --pdeathsig KILL -- nsenter --target "$INIT" --net -- "$@"
}

"$@"
