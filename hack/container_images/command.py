"""What `hack/images` does with its arguments."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from development_cluster.errors import ClusterError
from development_cluster.images import buildah
from development_cluster.layout import ROOT, Layout, default_folder

from container_images.bases import choose_base
from container_images.builders import PROGRAMS, Builder, find_program
from container_images.product import OPERATOR, RUNTIME, ProductImage, with_toolchain
from container_images.toolchains import ToolchainRow, read_toolchains
from container_images.values import print_values

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Build the images and print the values that name them; return the exit code."""
    rows = read_toolchains()
    parser = _parser(rows)
    options = parser.parse_args(arguments)
    if unknown := set(options.toolchains) - set(rows):
        parser.error(f"no toolchain {', '.join(sorted(unknown))}; there are {', '.join(rows)}")
    output: Path = options.output
    output.mkdir(parents=True, exist_ok=True)
    try:
        builder = _builder(find_program(options.builder), output / "build.log", plain_http=options.plain_http)
        values = _make([rows[name] for name in options.toolchains], builder, options)
    except ClusterError as error:
        print(f"hack/images: {error.explain()}", file=sys.stderr)
        return 1
    (output / "values.yaml").write_text(values)
    print(values, end="")
    return 0


def _parser(rows: dict[str, ToolchainRow]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hack/images",
        description="Builds the operator's image, the runtime's, and the runtime's with each of the toolchains; prints "
        "the chart's values for them.",
    )
    parser.add_argument("toolchains", nargs="*", metavar="TOOLCHAIN", help=f"any of {', '.join(rows)}")
    parser.add_argument("--push", metavar="REGISTRY", help="push there; else archives are written")
    parser.add_argument("--plain-http", action="store_true", help="the registry speaks HTTP without TLS")
    parser.add_argument("--base", help="an image with Python 3.11 or later to build on")
    parser.add_argument("--builder", choices=PROGRAMS, help="default: the first one that works")
    parser.add_argument(
        "--output", type=Path, default=ROOT / ".work/images", help="a folder for values.yaml, archives and the log"
    )
    return parser


def _builder(program: str, log: Path, *, plain_http: bool) -> Builder:
    if program == "buildah":
        # In one place with the development cluster's, whose layers are the same.
        layout = Layout(default_folder())
        layout.make()
        return buildah(layout, log=log, plain_http=plain_http)
    return Builder(program=program, log=log, plain_http=plain_http, environment={"DOCKER_BUILDKIT": "1"})


def _make(rows: Sequence[ToolchainRow], builder: Builder, options: argparse.Namespace) -> str:
    base = choose_base(builder, options.base)
    _say(f"with {builder.program} on {base}")
    operator = _finish(OPERATOR, base, builder, options)
    runtime = _finish(RUNTIME, base, builder, options)
    toolchains = {row.name: (row, _finish(with_toolchain(row), row.base or base, builder, options)) for row in rows}
    return print_values(operator, runtime, toolchains)


def _finish(image: ProductImage, base: str, builder: Builder, options: argparse.Namespace) -> str:
    """Build one image and bring it where a cluster can have it; return its reference by digest."""
    with image.snapshot(base) as snapshot:
        reference = f"{options.push or 'localhost'}/{image.name}:{snapshot.tag}"
        _say(f"building {reference}")
        snapshot.build(builder, reference)
    if options.push:
        _say(f"pushing {reference}")
        return builder.push(reference)
    file = options.output / f"{image.name.rpartition('/')[2]}.tar"
    _say(f"writing {os.path.relpath(file)}")
    by_digest = builder.archive(reference, file)
    base = by_digest.partition("@")[0]
    _say(f"on each node: ctr --namespace k8s.io images import --base-name {base} --digests {file.name}")
    return by_digest


def _say(line: str) -> None:
    print(f"hack/images: {line}", file=sys.stderr, flush=True)
