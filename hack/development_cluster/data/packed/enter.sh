#!/bin/bash
# Runs a command in the packed machine, in its checkout. Usage: enter.sh COMMAND [WORD]...
here=$(cd "$(dirname "$0")" && pwd)
pid=$(cat "$here/machine.pid")
folder=/root/.cache/enginesmith-dev/packed
exec nsenter --target="$pid" --mount --net -- /usr/bin/env -i HOME=/root TERM=dumb LANG=C.UTF-8 PYTHONUNBUFFERED=1 \
  PATH=$folder/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  PYTHONPATH=/opt/python:/opt/enginesmith/runtime:/opt/enginesmith/operator \
  ENGINESMITH_CLUSTER_DIR=$folder KUBECONFIG=$folder/kubeconfig \
  bash -c 'cd /opt/enginesmith && exec "$@"' enter "$@"
