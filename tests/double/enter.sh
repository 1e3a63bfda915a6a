#!/bin/sh
# enter.sh ROOT STORAGE EMULATOR: become the device whose root is ROOT. Runs as root of fresh user, mount and process
# namespaces, changes nothing outside them, and ends as the device's first process, which takes orders on its stdin.
# STORAGE: size of a file system for /data/local/tmp, or nothing. EMULATOR: a static qemu-aarch64, or nothing.
set -eu
root=$1 storage=$2 emulator=$3

mount --bind "$root" "$root"
cd "$root"  # the mount that was made just now
mount -t proc proc proc
mount --bind etc/cpuinfo proc/cpuinfo
mount -t tmpfs -o mode=755 dev dev
for name in null zero full random urandom tty; do
  : >"dev/$name"
  mount --bind "/dev/$name" "dev/$name"
done
mkdir dev/pts
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
[ -z "$storage" ] || mount -t tmpfs -o "mode=771,size=$storage" storage data/local/tmp

if [ -n "$emulator" ]; then  # aarch64 files start as typed, in these namespaces only (Linux 6.7 and later)
  mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
  # 20 bytes of ELF header, the machine last. P keeps argv[0]; F opens the emulator now: the chroot has no copy of it.
  printf '%s' ':aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:'"$emulator:POF" \
    >/proc/sys/fs/binfmt_misc/register
fi

# A second user namespace, in which we are the user shell, and --root without --keep-caps: no capability is left.
exec unshare --user --map-user=2000 --map-group=2000 --root="$root" --wd=/ /system/bin/sh /system/etc/init
