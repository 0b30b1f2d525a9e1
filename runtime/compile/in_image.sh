#!/bin/sh
# Compiles the server's hot modules in a stage of runtime/Dockerfile.
# Usage: in_image.sh tools             a C compiler, Python's headers and mypy; where they cannot be had, says so
#        in_image.sh compile SOURCES   next to the sources, each content once for each cache; without tools, nothing
# A failure to get the tools ends in an image that serves from its sources; a failure to compile ends the build.
set -eu
here=$(dirname "$(readlink -f "$0")")
cache=/var/cache/enginesmith
python=$here/venv/bin/python

has_headers() { python3 -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'; }

get_tools() {
  missing=
  { command -v gcc >/dev/null && [ -e /usr/include/stdio.h ]; } || missing="gcc libc6-dev"
  has_headers || missing="$missing python3-dev"
  if [ -n "$missing" ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -qq --yes --no-install-recommends $missing >/dev/null || return 1
  fi
  python3 -m venv "$here/part" &&
    PIP_CACHE_DIR=$cache/pip "$here/part/bin/pip" install --quiet --require-hashes --requirement "$here/compile.txt" &&
    rm -rf "$here/venv" && mv "$here/part" "$here/venv"
}

case $1 in
tools) get_tools || echo "no tools to compile with" >&2 ;;
compile)
  if ! [ -e "$python" ] && ! get_tools; then
    echo "nothing is compiled: the image's server runs from its sources, which is slower" >&2
    exit 0
  fi
  built=$cache/compiled/$("$python" -B "$here/compile_server.py" --digest "$2")
  if ! [ -e "$built" ]; then
    rm -rf "$built.part"
    "$python" -B "$here/compile_server.py" "$2" "$built.part"
    mv "$built.part" "$built"
  fi
  cp -r "$built/." "$2"
  ;;
esac
