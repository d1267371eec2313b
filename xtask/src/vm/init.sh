#!/bin/busybox sh
# First process of the machine that `cargo xtask vm` starts: runs /tests/list and turns it off.

/bin/busybox mkdir -p /applets /dev
/bin/busybox --install -s /applets
export PATH=/usr/sbin:/usr/bin:/applets HOME=/
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
ln -s /proc/self/fd /dev/fd
exec </dev/null >/dev/ttyS0 2>&1

uname -r
ip link set lo up
# What the kernel asks for by itself is not all that namespaces need.
modprobe -a veth tun 8021q bridge nf_conntrack_netlink nft_chain_nat nft_compat xt_MASQUERADE xt_mark \
    sch_ingress cls_bpf cls_u32 dummy

# Emulated, the kernel takes ten seconds to verify the packet programs.
export MULTIWANS_BIN=/tests/multiwans MULTIWANS_TEST_PATIENCE=5
cd /tests
while read -r name arguments; do
    echo "=== $name $arguments"
    # shellcheck disable=SC2086 # arguments are words
    ./deps/"$name" --test-threads=1 $arguments
    echo "=== result of $name $arguments: $?"
done <list
echo "=== end"
poweroff -f
