"""`enginesmith cache`: the timing caches of a store, which make TensorRT's builds short: list, carry, fill."""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from enginesmith_cli.options import add_home_options
from enginesmith_contract.errors import SpecError
from enginesmith_contract.exit_codes import ExitCode

if TYPE_CHECKING:
    from enginesmith_cli.timing_caches import Cache
    from enginesmith_contract.manifest import Timings
    from enginesmith_operator.api.inference_engine import InferenceEngine
    from enginesmith_runtime.store.interface import Store

__all__ = ["add_arguments", "run"]

_EXAMPLES = """examples:
  enginesmith cache list --store s3://engines/vision
  enginesmith cache export caches.tar --store s3://engines/vision --gpu NVIDIA-H200
  enginesmith cache import caches.tar
  enginesmith cache import trtexec.cache --gpu NVIDIA-H200 --tensorrt 10.6.0
  enginesmith cache prewarm variants.yaml            on a machine with the GPU: measures, and stores no engine

A cache is for one GPU model and one TensorRT version. The next build merges several caches for the same pair.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list the caches of the store, with GPU and TensorRT version")
    exporting = actions.add_parser("export", help="write the store's caches to a file")
    importing = actions.add_parser("import", help="add the caches of a file to the store")
    warming = actions.add_parser("prewarm", help="build documents only to measure timings")
    listing.add_argument("--output", "-o", choices=("text", "json"), default="text", help="default: text")
    exporting.add_argument("file", metavar="FILE", type=Path, help="tar to write")
    importing.add_argument(
        "file", metavar="FILE", type=Path, help="file from `cache export`, or from `trtexec --timingCacheFile`"
    )
    warming.add_argument(
        "file", metavar="FILE", type=Path, help="documents of kind InferenceEngine, one for each variant"
    )
    for action in (listing, exporting, importing):
        action.add_argument("--gpu", default="", metavar="PRODUCT", help="only caches for this GPU product")
        action.add_argument("--tensorrt", default="", metavar="VERSION", help="only caches for this full version")
    for action in (listing, exporting, importing, warming):
        add_home_options(action)


def run(arguments: argparse.Namespace) -> int:
    """List, export, import or fill timing caches."""
    if arguments.action == "prewarm":
        return _prewarm(arguments)
    from enginesmith_cli.home import default_store_uri, state_folder
    from enginesmith_runtime.store.open import open_store

    store = open_store(arguments.store or default_store_uri(state_folder(arguments.home)))
    match arguments.action:
        case "list":
            return _list(store, arguments)
        case "export":
            return _export(store, arguments)
        case _:
            return _import(store, arguments)


def _list(store: "Store", arguments: argparse.Namespace) -> int:
    from enginesmith_cli.timing_caches import stored_caches

    found = sorted(
        stored_caches(store, gpu=arguments.gpu, version=arguments.tensorrt),
        key=lambda one: (one.gpu, one.version, one.written_at),
    )
    if arguments.output == "json":
        print(json.dumps([_facts(one) for one in found], indent=2))
    else:
        print("\n".join([*map(_row, found), f"{store.uri}: {len(found)} timing cache(s)"]))
    return ExitCode.OK


def _facts(cache: "Cache") -> dict[str, object]:
    return {
        "gpu": cache.gpu,
        "tensorrt": cache.version,
        "entries": cache.entries,
        "sizeBytes": cache.size_bytes,
        "writtenAt": _time(cache.written_at),
    }


def _row(cache: "Cache") -> str:
    from enginesmith_runtime.local_files.space import say_bytes

    entries = "entries not counted" if cache.entries is None else f"{cache.entries} entries"
    size = say_bytes(cache.size_bytes)
    return f"{cache.gpu}  tensorrt {cache.version}  {entries}  {size}  {_time(cache.written_at)}"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _export(store: "Store", arguments: argparse.Namespace) -> int:
    from enginesmith_cli.timing_caches import stored_caches, write_archive

    found = tuple(stored_caches(store, gpu=arguments.gpu, version=arguments.tensorrt, read=True))
    if not found:
        raise SpecError(
            "the store has no such timing cache",
            where=store.uri,
            remedy="enginesmith cache list shows the caches of the store",
            reason="NoTimingCache",
        )
    write_archive(arguments.file, found)
    print(f"{arguments.file}: {len(found)} timing cache(s)")
    return ExitCode.OK


def _import(store: "Store", arguments: argparse.Namespace) -> int:
    from tempfile import TemporaryDirectory

    from enginesmith_runtime.build.timing_caches import StoredTimingCache

    caches = _to_import(arguments)
    with TemporaryDirectory(prefix="timing-") as work:
        for one in caches:
            StoredTimingCache(store, one.folder, Path(work)).replace((), one.data, one.entries)
    places = ", ".join(sorted({f"{one.gpu} with tensorrt {one.version}" for one in caches}))
    print(f"{store.uri}: added {len(caches)} timing cache(s), for {places}; the next build there starts from them")
    return ExitCode.OK


def _to_import(arguments: argparse.Namespace) -> "tuple[Cache, ...]":
    from enginesmith_cli.timing_caches import Cache, read_archive
    from enginesmith_contract.store_layout import timing_cache_folder

    if not arguments.file.is_file():
        raise SpecError("there is no such file", where=str(arguments.file), reason="Usage")
    if not arguments.gpu and not arguments.tensorrt:
        return read_archive(arguments.file)
    if not arguments.gpu or not arguments.tensorrt:
        raise SpecError(
            "a timing cache is for one GPU product and one TensorRT version",
            where="--gpu and --tensorrt",
            remedy="give both for a file from trtexec, and neither for a file from `enginesmith cache export`",
            reason="Usage",
        )
    data = arguments.file.read_bytes()
    folder = timing_cache_folder(arguments.gpu, arguments.tensorrt)
    return (Cache(folder=folder, data=data, size_bytes=len(data)),)


def _prewarm(arguments: argparse.Namespace) -> int:
    from enginesmith_cli.documents import Failures, name_of
    from enginesmith_cli.local import open_machine
    from enginesmith_operator.api.load import read_file
    from enginesmith_operator.planning.plan_records import TargetState
    from enginesmith_operator.planning.refusal_error import refusal_error

    failures = Failures(raise_at_once=arguments.debug)
    engines: list[InferenceEngine] = []
    for engine in read_file(arguments.file):
        with failures.of(name_of(engine)):
            engines.append(_with_measuring_targets(engine))
    with open_machine(arguments) as machine:
        for document in machine.prepare_documents(engines, failures):
            for target in document.plan.targets:
                with failures.of(f"{document.plan.name}/{target.name}"):
                    if target.state is TargetState.REFUSED:
                        raise refusal_error(document.plan.model_copy(update={"targets": (target,)}))
                    for timings in machine.measure_target(document, target):
                        print(f"{document.plan.name}/{target.name}  {_measured(timings)}", flush=True)
    return failures.exit_code


def _with_measuring_targets(engine: "InferenceEngine") -> "InferenceEngine":
    """Return the document without the targets that have no timing cache; its preparation is unchanged."""
    from enginesmith_contract.backend_traits import traits

    targets = tuple(one for one in engine.spec.targets if traits(one.backend).timing_cache)
    if not targets:
        raise SpecError(
            "no target has a timing cache",
            where="spec.targets",
            why="the backends tensorrt-rtx and onnxruntime measure nothing while they build",
            remedy="add a target with the backend tensorrt",
            reason="NoTimingCache",
        )
    return engine.model_copy(update={"spec": engine.spec.model_copy(update={"targets": targets})})


def _measured(timings: "Timings") -> str:
    use = timings.timing_cache
    return f"built in {timings.build_seconds:.1f} s  {use.text() if use else 'the library counts no entries'}"
