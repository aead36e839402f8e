#!/bin/sh
# Makes a Debian root for the machines of these tests: CACHE_DIR ROOT_DIR.
# systemd-nspawn and debootstrap are taken from the host, or else unpacked into the cache.
set -e
cache=$1
root=$2
tools=$cache/tools
PATH=$PATH:$tools/usr/sbin:$tools/usr/bin

fetch() { # PROGRAM PACKAGE
    command -v "$1" > /dev/null && return
    mkdir -p "$tools"
    (cd "$tools" && apt-get download -o APT::Sandbox::User=root "$2" && dpkg-deb --extract "$2"_*.deb . && rm "$2"_*.deb)
}
fetch systemd-nspawn systemd-container
fetch debootstrap debootstrap
if [ "$(command -v debootstrap)" = "$tools/usr/sbin/debootstrap" ]; then
    export DEBOOTSTRAP_DIR="$tools/usr/share/debootstrap"
fi

rm -rf "$root.new"
debootstrap --variant=minbase --include=systemd-sysv,dbus,libpam-systemd,systemd-resolved,network-manager,\
nftables,iproute2,iputils-ping,curl,bind9-dnsutils,e2fsprogs,procps bookworm "$root.new"

# each has files that another one of these packages has too: tests unpack the one they want
apt() { apt-get -o Dir="$root.new" -o Dir::State::status="$root.new/var/lib/dpkg/status" -o APT::Sandbox::User=root "$@"; }
apt update
(cd "$root.new/opt" && apt download openresolv resolvconf)
rm -rf "$root.new"/var/cache/apt/*.bin "$root.new"/var/cache/apt/archives/*.deb "$root.new"/var/lib/apt/lists/*

# not the first boot, at which systemd starts whatever is there
echo 7c1d0c1bb40a4be2a1a4a6d2b5c0ff01 > "$root.new/etc/machine-id"
mv "$root.new" "$root"
