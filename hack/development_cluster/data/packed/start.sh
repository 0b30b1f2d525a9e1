#!/bin/bash
# Puts the pieces of `hack/cluster pack` together on a machine without a network, and brings the cluster up in them.
# Usage, as root, in a checkout: start.sh PIECES OUT [WORD OF hack/cluster up]...
# PIECES: folder with the pieces. OUT: folder for logs. $DRIVER: folders with the driver's libraries.
# $ALONE: any text keeps the cluster in a network namespace of its own, as a rehearsal on a machine that has a cluster needs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
pieces=$1 out=$2; shift 2
place=${PLACE:-/tmp/packed-cluster} machine=${PLACE:-/tmp/packed-cluster}/machine
cluster=$machine/root/.cache/enginesmith-dev/packed-cache
say() { printf '[%4d s] %s\n' "$SECONDS" "$*"; }
unpack() { LD_LIBRARY_PATH=$here/zstd "$here/zstd/zstd" -q -d --long=27 "$@"; }
mkdir -p "$out" "$machine" "$cluster/registry" "$place/parts"

if [ ! -e "$place/unpacked" ]; then
  cat "$pieces"/piece-* | tar x -C "$place/parts"
  say "pieces are together"
  unpack -c "$place"/parts/machine-*.tar.zst | tar x -C "$machine" &
  for layer in "$place"/parts/sha256-*.zst; do
    digest=$(basename "$layer" .zst); digest=${digest#sha256-}
    blob=$cluster/registry/docker/registry/v2/blobs/sha256/${digest:0:2}/$digest
    mkdir -p "$blob"; unpack -f "$layer" -o "$blob/data" &
  done
  wait
  tar x -C "$cluster" -f "$place/parts/registry.tar"
  rm -rf "$place/parts"
  touch "$place/unpacked"
  say "unpacked"
fi
mkdir -p "$machine/opt/enginesmith"
# The checkout that this is called in: what it runs needs no other packing.
tar c --exclude=./.git --exclude=./.carry --exclude=./.venv --exclude=./.tools . | tar x -C "$machine/opt/enginesmith"

# Where a package would put the driver: NVIDIA's programs look there.
libraries=$machine/usr/lib/$(uname -m)-linux-gnu
names=(cuda cudadebugger nvidia-ml nvidia-ptxjitcompiler nvidia-nvvm nvidia-gpucomp nvidia-cfg nvidia-allocator nvidia-sandboxutils)
for folder in ${DRIVER:-/usr/local/nvidia /usr/lib/$(uname -m)-linux-gnu /usr/lib64}; do
  [ -d "$folder" ] || continue
  for name in "${names[@]}"; do
    while IFS= read -r file; do
      target=$libraries/${file##*/}
      [ -e "$target" ] || [ -L "$target" ] || cp -a "$file" "$target"
    done < <(find "$folder" -name "lib$name.so*" -not -path '*lib32*' -not -path '*i386*' 2>/dev/null | sort)
  done
done
smi=$(command -v nvidia-smi || find /usr/local/nvidia -name nvidia-smi -type f 2>/dev/null | head -1 || true)
[ -z "$smi" ] || cp -L "$smi" "$machine/usr/bin/nvidia-smi"

rm -f "$here/machine.pid"
setsid unshare --mount ${ALONE:+--net} --propagation=private bash "$here/init.sh" "$machine" "$here" > "$out/machine.log" 2>&1 &
for _ in $(seq 100); do [ -s "$here/machine.pid" ] && break; sleep 0.1; done
[ -s "$here/machine.pid" ] || { cat "$out/machine.log"; exit 1; }
sleep 0.3
say "the machine's first process is $(cat "$here/machine.pid")"
enter=$here/enter.sh
"$enter" ldconfig
"$enter" bash -c 'ls -l /dev/nvidia* /usr/lib/*/libcuda.so* /usr/lib/*/libnvidia-ml.so*; nvidia-smi -L; stat -fc %T /sys/fs/cgroup' \
  > "$out/driver.log" 2>&1 || true
cat "$out/driver.log"
if ! "$enter" hack/cluster up "$@"; then
  "$enter" bash -c 'cd "$ENGINESMITH_CLUSTER_DIR/logs" && tail -n 40 *.log' > "$out/cluster-logs.txt" 2>&1 || true
  tail -c 6000 "$out/cluster-logs.txt"
  exit 1
fi
say "the cluster is up"
"$enter" hack/cluster load --images /root/.cache/enginesmith-dev/packed-cache/images.json
say "images are on the nodes"
"$enter" hack/cluster status
