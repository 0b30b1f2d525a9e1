#!/bin/bash
# Writes a Debian with Python and nothing else to read: no manuals, no translations.
# Usage: make-base.sh SUITE FILE.tar
set -euo pipefail
exec mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/info/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --aptopt='Acquire::Languages "none"' "$1" "$2"
