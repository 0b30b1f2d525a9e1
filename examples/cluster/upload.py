#!/usr/bin/env python3
"""Puts a file into a bucket of the development cluster, made if need be: upload.py FILE s3://BUCKET/PATH."""

import os
import sys
from contextlib import suppress
from pathlib import Path

import s3fs


def account() -> dict[str, str]:
    """Return the cluster's S3 account."""
    named = os.environ.get("ENGINESMITH_S3_ACCOUNT")
    if not named:
        sys.exit('the cluster\'s variables are not set: eval "$(hack/cluster env)"')
    return dict(line.split("=", 1) for line in Path(named).read_text(encoding="utf-8").splitlines())


def main(file: str, uri: str) -> None:
    """Upload one file."""
    target = uri.removeprefix("s3://")
    known = account()
    files = s3fs.S3FileSystem(
        key=known["AWS_ACCESS_KEY_ID"],
        secret=known["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=known["AWS_ENDPOINT_URL"],
    )
    bucket = target.partition("/")[0]
    if not files.exists(bucket):
        with suppress(FileExistsError):  # another upload has made it meanwhile
            files.mkdir(bucket)
    files.put_file(file, target)
    print(f"s3://{target}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
