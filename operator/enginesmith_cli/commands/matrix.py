"""`enginesmith matrix`: which TensorRT releases fit a driver, a GPU, a CUDA version, and why the others do not."""

import argparse
import re
from typing import TYPE_CHECKING

from enginesmith_cli.tables import table_lines
from enginesmith_contract.backends import Precision
from enginesmith_contract.errors import SpecError
from enginesmith_contract.exit_codes import ExitCode

if TYPE_CHECKING:
    from enginesmith_cli.matrix_rows import MatrixRow
    from enginesmith_contract.backends import Hardware
    from enginesmith_contract.matrix.model import Matrix, Source

__all__ = ["add_arguments", "run"]

_EXAMPLES = """examples:
  enginesmith matrix --gpu NVIDIA-H100-80GB-HBM3 --driver 535.183.01
  enginesmith matrix --tensorrt 10.13 --compute-capability 7.0
  enginesmith matrix --cuda 12 --arch arm64 --output json

Options that are not given are not checked. The exit code is 11 if nothing fits.
"""
_DRIVER_HELP = (
    'the node\'s NVIDIA driver: nvidia-smi prints it as "Driver Version", newer ones as "KMD Version" '
    '("CUDA Version" or "CUDA UMD Version" is the newest CUDA that it runs)'
)
_MOST_SOURCES = 12
_CAPABILITY = re.compile(r"\d+\.\d+")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.add_argument(
        "--tensorrt", metavar="VERSION", help="TensorRT version, or the beginning of one: 11, 10.13, 10.13.3.9"
    )
    parser.add_argument("--cuda", metavar="VERSION", help="CUDA version that TensorRT is built for: 12 or 12.9")
    parser.add_argument("--driver", metavar="VERSION", help=_DRIVER_HELP)
    parser.add_argument("--gpu", metavar="PRODUCT", help="value of the node's nvidia.com/gpu.product label")
    parser.add_argument(
        "--compute-capability", metavar="X.Y", help="compute capability, instead of --gpu or for an unknown GPU"
    )
    parser.add_argument("--precision", choices=[str(precision) for precision in Precision], help="of the model")
    parser.add_argument(
        "--arch", choices=["amd64", "arm64"], default="amd64", help="CPU architecture of the node (default %(default)s)"
    )
    parser.add_argument("--output", choices=["table", "json", "yaml"], default="table", help="default %(default)s")


def run(arguments: argparse.Namespace) -> int:
    """Judge every build that matches, and print the answers."""
    from enginesmith_cli.matrix_rows import list_rows, used_sources
    from enginesmith_contract.matrix.load import load_matrix
    from enginesmith_contract.verdicts import Verdict

    matrix = load_matrix()
    hardware = _hardware(matrix, arguments)
    precision = Precision(arguments.precision) if arguments.precision else None
    rows = list_rows(matrix, hardware, precision, tensorrt=arguments.tensorrt, cuda=arguments.cuda)
    sources = used_sources(matrix, rows)
    if arguments.output == "table":
        _print_table(rows, sources)
    else:
        _print_document(rows, sources, arguments.output)
    return ExitCode.OK if any(row.verdict is not Verdict.NO for row in rows) else ExitCode.PLAN_REFUSED


def _hardware(matrix: "Matrix", arguments: argparse.Namespace) -> "Hardware":
    from enginesmith_contract.backends import Hardware
    from enginesmith_contract.matrix.products import did_you_mean_product
    from enginesmith_contract.matrix.query import find_product
    from enginesmith_contract.matrix.versions import version_numbers

    for option, value in (
        ("--driver", arguments.driver),
        ("--tensorrt", arguments.tensorrt),
        ("--cuda", arguments.cuda),
    ):
        if value is not None and version_numbers(value) is None:
            what = f"{value!r} is no version"
            raise SpecError(what, where=option, remedy="give numbers and dots", reason="VersionInvalid")
    capability = arguments.compute_capability
    if capability is not None and not _CAPABILITY.fullmatch(capability):
        what, remedy = f"{capability!r} is not a compute capability", "give it as in 8.9"
        raise SpecError(what, where="--compute-capability", remedy=remedy, reason="ComputeCapabilityInvalid")
    row = find_product(matrix, arguments.gpu)
    if arguments.gpu is not None and row is None and capability is None:
        meant = did_you_mean_product(matrix, arguments.gpu)
        raise SpecError(
            "the matrix has no GPU with this name",
            where=f"--gpu {arguments.gpu}",
            why="names are those of the nvidia.com/gpu.product label",
            remedy=f"use {meant}, or add --compute-capability" if meant else "add --compute-capability",
            reason="UnknownProduct",
        )
    return Hardware(
        product=row.product if row else arguments.gpu,
        compute_capability=capability or (row.capability if row else None),
        driver=arguments.driver,
        arch=arguments.arch,
    )


def _print_table(rows: "tuple[MatrixRow, ...]", sources: "tuple[Source, ...]") -> None:
    head = ("TENSORRT", "CUDA", "DRIVER", "FITS", "WHY")
    print("\n".join(table_lines(head, _merged(rows))))
    print()
    if len(sources) > _MOST_SOURCES:
        print(f"{len(sources)} sources; --output json lists them")
        return
    for source in sources:
        print(f"{source.id}: {source.title}" + (f" {source.url}" if source.url else ""))


def _merged(rows: "tuple[MatrixRow, ...]") -> list[tuple[str, str, str, str, str]]:
    """Return the table's lines; builds of one release that get the same answer share one."""
    cudas: dict[tuple[str, str, str, str], list[str]] = {}
    for row in rows:
        floor = f">= {row.minimum_driver}" if row.minimum_driver else "?"
        cudas.setdefault((row.release, floor, row.verdict, row.why()), []).append(row.cuda or "")
    return [
        (release, built[0] if len(built) == 1 else f"{built[-1]} to {built[0]}", floor, verdict, why)
        for (release, floor, verdict, why), built in cudas.items()
    ]


def _print_document(rows: "tuple[MatrixRow, ...]", sources: "tuple[Source, ...]", output: str) -> None:
    document = {
        "rows": [row.model_dump(mode="json", by_alias=True, exclude_none=True) for row in rows],
        "sources": [source.model_dump(mode="json", by_alias=True, exclude_none=True) for source in sources],
    }
    if output == "json":
        import json

        print(json.dumps(document, indent=2, ensure_ascii=False))
        return
    import yaml

    print(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), end="")
