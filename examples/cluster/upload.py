#!/usr/bin/env python3
"""Puts a file into a bucket, made if need be: upload.py FILE s3://BUCKET/PATH, the account in the environment."""

import sys

import s3fs


def main(file: str, uri: str) -> None:
    """Upload one file."""
    target = uri.removeprefix("s3://")
    files = s3fs.S3FileSystem()
    bucket = target.partition("/")[0]
    if not files.exists(bucket):
        files.mkdir(bucket)
    files.put_file(file, target)
    print(f"s3://{target}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
