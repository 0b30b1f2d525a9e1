"""`enginesmith bench`: settings for a model's server on this machine, found by measuring real servers."""

import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from enginesmith_cli.bench.wanted import DIMENSIONS, Objective
from enginesmith_cli.options import add_document_options, add_home_options, add_trust_option, not_writable
from enginesmith_contract.exit_codes import ExitCode
from enginesmith_contract.serve_request import MAX_QUEUED

if TYPE_CHECKING:
    from enginesmith_cli.bench.search import Found
    from enginesmith_cli.local import BuiltEngine
    from enginesmith_operator.api.inference_engine import InferenceEngine

__all__ = ["add_arguments", "run"]

_EXAMPLES = """examples:
  enginesmith bench engine.yaml
  enginesmith bench engine.yaml --concurrency 32 --duration 10 --plot bench.svg
  enginesmith bench engine.yaml --objective latency --concurrency 1 --vary threads

The engine is built as `enginesmith up` does, or taken from the store. A server process serves each candidate, which is
measured with requests of random data. The file is not changed: the recommendation is YAML to paste into it.
"""
_LEAST_SECONDS = 0.1
_MOST_SECONDS = 3600.0
_LONGEST_WARM_UP = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    add_document_options(parser)
    parser.add_argument(
        "--objective",
        type=Objective,
        choices=tuple(Objective),
        default=Objective.THROUGHPUT,
        help="most requests per second, or lowest p99 latency (default: throughput)",
    )
    parser.add_argument(
        "--vary",
        type=_dimensions,
        default=DIMENSIONS,
        metavar="NAME,...",
        help=f"settings to vary, any of {','.join(DIMENSIONS)} (default: all)",
    )
    parser.add_argument(
        "--duration", type=_seconds, default=3.0, metavar="SECONDS", help="length of each measurement (default: 3)"
    )
    parser.add_argument(
        "--concurrency", type=_count, default=8, metavar="N", help="requests in flight, 1 to 4096 (default: 8)"
    )
    parser.add_argument(
        "--clients", type=_count, metavar="N", help="client processes (default: half the CPUs, at most --concurrency)"
    )
    parser.add_argument(
        "--connections",
        type=_count,
        default=8,
        metavar="N",
        help="connections for the requests, at least one for each client (default: 8, at most --concurrency)",
    )
    parser.add_argument(
        "--input", action="append", default=[], metavar="[NAME=]VALUE", help="data to send, as for `enginesmith infer`"
    )
    parser.add_argument(
        "--shape", action="append", default=[], metavar="NAME=SHAPE", help="shape of `random` data: 1x3x224x224"
    )
    parser.add_argument(
        "--timeout", type=_seconds, default=30.0, metavar="SECONDS", help="time limit of a call (default: 30)"
    )
    parser.add_argument("--plot", type=_picture, metavar="FILE.svg", help="write a picture of the measurements")
    parser.add_argument("--output", "-o", choices=("table", "json"), default="table", help="default: table")
    add_home_options(parser)
    add_trust_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Build the engine, measure the candidates and print what was found."""
    from enginesmith_cli.bench.report import page, report_document
    from enginesmith_cli.documents import one_document
    from enginesmith_cli.infer_inputs import shapes_from_words
    from enginesmith_operator.api.load import read_file

    engine = one_document(read_file(arguments.file), arguments.file, arguments.name)
    shapes_from_words(arguments.shape)
    if arguments.plot:
        _write(arguments.plot, "")
    built = _build(engine, arguments)
    found = _measure(built, arguments)
    about = _about(built, arguments)
    if arguments.plot:
        from enginesmith_cli.bench.plot import plot

        _write(arguments.plot, plot(found.trials, _title(about)))
    if arguments.output == "json":
        print(json.dumps(report_document(found, built.target.name, about), indent=2, ensure_ascii=False))
    else:
        print(f"{_title(about)}\n")
        print("\n".join(page(found, built.target.name, arguments.objective)))
    return ExitCode.OK


def _build(engine: "InferenceEngine", arguments: argparse.Namespace) -> "BuiltEngine":
    from enginesmith_cli.documents import Failures
    from enginesmith_cli.local import open_machine
    from enginesmith_cli.server_process import largest_message

    with open_machine(arguments, max_message_bytes=largest_message([engine])) as machine:
        (document,) = machine.prepare_documents([engine], Failures(raise_at_once=True))
        return machine.build_served(document)[0]


def _measure(built: "BuiltEngine", arguments: argparse.Namespace) -> "Found":
    from enginesmith_cli.bench.candidates import Place
    from enginesmith_cli.bench.measure import Load
    from enginesmith_cli.bench.trials import Trials, stages
    from enginesmith_cli.home import default_store_uri, scratch_folder, state_folder
    from enginesmith_contract.environment import LOG_FORMAT
    from enginesmith_runtime.local_files.cpus import count_usable_cpus
    from enginesmith_runtime.progress_output import open_reporter

    cpus, home = count_usable_cpus(), state_folder(arguments.home)
    engine, backend = built.document.engine, built.manifest.toolchain.backend
    joins = built.manifest.batching.proved
    place = Place(engine=engine, target=built.target.name, backend=backend, joins=joins, cpus=cpus)
    load = Load(
        in_flight=arguments.concurrency,
        clients=min(arguments.clients or max(1, cpus // 2), arguments.concurrency),
        connections=min(arguments.connections, arguments.concurrency),
        warm_up_seconds=min(arguments.duration, _LONGEST_WARM_UP),
        seconds=arguments.duration,
        timeout_seconds=arguments.timeout,
    )
    shares = stages(arguments.vary, place)
    with (
        scratch_folder(home) as work,
        open_reporter(os.environ.get(LOG_FORMAT, "auto"), sys.stderr, shares) as reporter,
    ):
        return Trials(
            place=place,
            engine_key=built.manifest.engine_key,
            store=arguments.store or default_store_uri(home),
            load=load,
            work=work,
            reporter=reporter,
            encode=partial(_encode, arguments, engine.metadata.name),
        ).run(arguments.vary, arguments.objective)


def _encode(arguments: argparse.Namespace, name: str, address: str) -> bytes:
    """Return the request that every client sends, once the server at the address has answered it."""
    from enginesmith_cli.infer_inputs import arrays_from_words, shapes_from_words
    from enginesmith_cli.protocol_client import ProtocolClient, infer_request

    with ProtocolClient(address, timeout_seconds=arguments.timeout) as client:
        model = client.describe(name)
        inputs = arrays_from_words(arguments.input, shapes_from_words(arguments.shape), model.inputs)
        dtypes = {tensor.name: tensor.dtype for tensor in model.inputs}
        client.infer(name, inputs.arrays, dtypes)
    return infer_request(name, inputs.arrays, dtypes).SerializeToString()


def _about(built: "BuiltEngine", arguments: argparse.Namespace) -> dict[str, object]:
    from enginesmith_runtime.local_files.cpus import count_usable_cpus

    toolchain = built.manifest.toolchain
    return {
        "model": built.document.engine.metadata.name,
        "target": built.target.name,
        "engineKey": built.manifest.engine_key,
        "toolchain": f"{toolchain.name} {toolchain.version}",
        "cpus": count_usable_cpus(),
        "objective": arguments.objective.value,
        "concurrency": arguments.concurrency,
        "connections": min(arguments.connections, arguments.concurrency),
        "durationSeconds": arguments.duration,
    }


def _title(about: dict[str, object]) -> str:
    return (
        f"{about['model']} ({about['target']}, {about['toolchain']}, {about['cpus']} CPUs): "
        f"{about['concurrency']} in flight, {about['durationSeconds']:g} s each"
    )


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise not_writable(f"--plot {path}", error, "name a file in a folder that can be written") from error


def _dimensions(text: str) -> tuple[str, ...]:
    names = text.split(",")
    for name in names:
        if name not in DIMENSIONS:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(DIMENSIONS)}")
    return tuple(name for name in DIMENSIONS if name in names)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_QUEUED:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {MAX_QUEUED}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not _LEAST_SECONDS <= seconds <= _MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time from {_LEAST_SECONDS:g} to {_MOST_SECONDS:g} seconds")
    return seconds


def _picture(text: str) -> Path:
    if not text.endswith(".svg"):
        raise argparse.ArgumentTypeError(f"{text!r} does not end with .svg, the only format")
    return Path(text)
