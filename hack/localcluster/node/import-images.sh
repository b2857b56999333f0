#!/bin/sh
# Imports an image archive into the containerd of a root file system that is not running,
# with that root file system's own containerd, so that both agree on the store's format.
# Runs in namespaces of its own (unshare): mounts and processes end with it.
set -eu

root=$1
archive=$2 # as seen from within the root file system

mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
printf 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n' >"$root/run/containerd.toml"
chroot "$root" containerd --config /run/containerd.toml &
containerd=$!

tries=0
until chroot "$root" ctr version >/dev/null 2>&1; do
    tries=$((tries + 1))
    if [ "$tries" -gt 100 ]; then
        echo "containerd did not start" >&2
        exit 1
    fi
    sleep 0.1
done

chroot "$root" ctr --namespace=k8s.io images import \
    --label=io.cri-containerd.pinned=pinned --no-unpack "$archive"
chroot "$root" ctr --namespace=k8s.io images list --quiet
kill "$containerd"
wait "$containerd" || true
