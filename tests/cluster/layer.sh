#!/bin/sh
# Installs Debian packages into a layer above a root: `layer.sh BASE ENTRY PACKAGES` makes ENTRY/layer.
# It wants mount and process namespaces of its own; what it mounts and starts ends with them.
set -eu
base=$1 entry=$2
shift 2

mount -t tmpfs tmpfs /mnt
mkdir "$entry/layer" "$entry/work" /mnt/root
mount -t overlay layer /mnt/root -o "lowerdir=$base,upperdir=$entry/layer,workdir=$entry/work"
cd /mnt/root
mount -t proc proc proc
mount --rbind /dev dev
cp -L /etc/resolv.conf /etc/hosts etc/
printf '#!/bin/sh\nexit 101\n' >usr/sbin/policy-rc.d # no service starts in here
chmod 755 usr/sbin/policy-rc.d
export DEBIAN_FRONTEND=noninteractive
chroot . apt-get -qq update
chroot . apt-get -qq install --yes --no-install-recommends "$@"
chroot . apt-get clean
rm -rf var/lib/apt/lists/* etc/resolv.conf etc/hosts
cd /
umount -R /mnt/root
rm -rf "$entry/work"
