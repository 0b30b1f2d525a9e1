#!/bin/bash
# The first process of a node, in a mount and a process namespace of its own: gives the node its own folders under the
# paths that kubelet, containerd and the CNI plugins use, then waits and reaps.
# Usage: node-init.sh NAME FOLDER
set -euo pipefail
name=$1 folder=$2
hostname "$name"
mount -t proc proc /proc
while read -r own path; do
  mount --bind "$folder/$own" "$path"
done < "$folder/mounts"
# kubelet wants what it mounts to be seen in containers.
mount --make-rshared /
touch "$folder/ready"
while :; do
  sleep 3600 &
  wait || true
done
