"""`enginesmith store`: lists an engine store, and deletes unused engines."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from enginesmith_cli.options import add_home_options
from enginesmith_contract.errors import SpecError
from enginesmith_contract.exit_codes import ExitCode

if TYPE_CHECKING:
    from enginesmith_contract.manifest import Manifest
    from enginesmith_runtime.store.interface import Store
    from enginesmith_runtime.store.sweep import Claims, Retention, SweepReport

__all__ = ["add_arguments", "run"]

_KEY_DIGITS: Final = 20
_MIN_GRACE_SECONDS: Final = 2 * 3600.0

_EXAMPLES = """examples:
  enginesmith store list --store s3://engines/vision
  enginesmith store gc                                   shows what would be deleted from the local store
  kubectl get inferenceengines,enginebuilds -A -o json | \\
    enginesmith store gc --store s3://engines/vision --objects - --delete
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list the engines with their sizes, and the other entries")
    sweeping = actions.add_parser(
        "gc",
        help="delete engines that no object serves, keeps or builds, and files that no entry names",
        description="Lists what it would delete, and deletes it with --delete.",
    )
    for action in (listing, sweeping):
        action.add_argument("--output", "-o", choices=("text", "json"), default="text", help="default: text")
        add_home_options(action)
    needed = sweeping.add_mutually_exclusive_group()
    needed.add_argument(
        "--objects",
        action="append",
        metavar="FILE",
        help="InferenceEngines and EngineBuilds as printed by `kubectl get -o json`; `-` reads stdin; may be repeated",
    )
    needed.add_argument("--no-objects", action="store_true", help="no cluster uses this store, so only the age decides")
    sweeping.add_argument(
        "--keep-for",
        default="720h",
        metavar="TIME",
        help="minimum age of entries that no object names (default: 720h)",
    )
    sweeping.add_argument(
        "--grace",
        default="24h",
        metavar="TIME",
        help="minimum age of everything that is deleted, at least 2h (default: 24h)",
    )
    sweeping.add_argument("--delete", action="store_true", help="delete, instead of only listing")


def run(arguments: argparse.Namespace) -> int:
    """List a store, or sweep it."""
    from enginesmith_cli.home import default_store_uri, state_folder
    from enginesmith_runtime.store.open import open_store

    home = state_folder(arguments.home)
    store = open_store(arguments.store or default_store_uri(home))
    if arguments.action == "list":
        return _list(store, arguments.output)
    return _sweep(store, arguments, is_local=store.uri == (home / "store").as_uri())


def _list(store: "Store", output: str) -> int:
    from enginesmith_cli.stored_engines import list_stored

    manifests = list_stored(store)
    entries = tuple(store.pointer_entries(""))
    blobs = tuple(store.blob_entries())
    if output == "json":
        document = {
            "store": store.uri,
            "engines": [json.loads(one.to_json()) for one in manifests],
            "pointers": dict(Counter(entry.name.partition("/")[0] for entry in entries)),
            "blobs": {"count": len(blobs), "bytes": sum(blob.size_bytes for blob in blobs)},
        }
        print(json.dumps(document, indent=2, ensure_ascii=False))
        return ExitCode.OK
    for manifest in manifests:
        print(_engine_row(manifest))
    kinds = Counter(entry.name.partition("/")[0] for entry in entries)
    counts = ", ".join(f"{count} {name}" for name, count in sorted(kinds.items())) or "nothing"
    size = f", {len(blobs)} blobs of {_size(sum(blob.size_bytes for blob in blobs))}" if blobs else ""
    print(f"{store.uri}: {counts}{size}")
    return ExitCode.OK


def _engine_row(manifest: "Manifest") -> str:
    inputs = manifest.key_inputs
    place = " ".join(part for part in (inputs.gpu_product or inputs.arch, inputs.mig_profile) if part)
    size = _size(sum(file.size_bytes for file in manifest.files))
    return (
        f"{manifest.engine_key[:_KEY_DIGITS]}  {manifest.toolchain.backend} {manifest.toolchain.version}  {place}  "
        f"{size}  {manifest.verification.status.value}  {manifest.created_at}"
    )


def _sweep(store: "Store", arguments: argparse.Namespace, *, is_local: bool) -> int:
    from enginesmith_runtime.store.sweep import sweep

    # Read the claims first: a process that needs a file later refreshes its timestamp.
    claims = _claims(arguments, is_local=is_local)
    report = sweep(store, claims, _retention(arguments), delete=arguments.delete)
    if arguments.output == "json":
        print(json.dumps(_report_document(report, deleted=arguments.delete), indent=2))
    else:
        print("\n".join(_report_lines(report, deleted=arguments.delete)))
    return ExitCode.OK


def _claims(arguments: argparse.Namespace, *, is_local: bool) -> "Claims":
    from enginesmith_cli.store_claims import claims_of, read_objects
    from enginesmith_runtime.store.sweep import Claims

    if arguments.no_objects or (arguments.objects is None and (is_local or not arguments.delete)):
        return Claims()
    if arguments.objects is None:
        raise SpecError(
            "it is not known which engines of this store serve",
            where="--objects",
            remedy="pipe `kubectl get inferenceengines,enginebuilds -A -o json` into --objects -, or give --no-objects",
            reason="ObjectsMissing",
        )
    found = [one for path in arguments.objects for one in read_objects(_text(path), path)]
    if not found and arguments.delete:
        raise SpecError(
            "the cluster has no InferenceEngine and no EngineBuild",
            where="--objects",
            why="this may be the wrong cluster",
            remedy="check kubectl's context; give --no-objects if no cluster uses this store",
            reason="ObjectsMissing",
        )
    return claims_of(found)


def _text(path: str) -> str:
    if path == "-":
        return sys.stdin.read()
    from enginesmith_operator.api.regular_files import what_it_is

    try:
        special = what_it_is(Path(path))
        text = "" if special else Path(path).read_text(encoding="utf-8")
        why = f"it is {special}" if special else ""
    except OSError as error:
        text, why = "", error.strerror or str(error)
    if why:
        raise SpecError("the cluster's objects cannot be read", where=path, why=why, reason="ObjectsUnreadable")
    return text


def _retention(arguments: argparse.Namespace) -> "Retention":
    from enginesmith_runtime.store.sweep import Retention

    grace = _seconds(arguments.grace, "--grace")
    if grace < _MIN_GRACE_SECONDS:
        raise SpecError(
            "the grace period is too short",
            where="--grace",
            why=f"{arguments.grace}; a running build may need what is younger than 2h",
            remedy="give 2h or more",
            reason="Usage",
        )
    return Retention(keep_for_seconds=_seconds(arguments.keep_for, "--keep-for"), grace_seconds=grace)


def _seconds(text: str, where: str) -> float:
    from enginesmith_operator.api.quantities import parse_duration

    try:
        return float(parse_duration(text))
    except ValueError as error:
        raise SpecError("not a time", where=where, why=repr(text), remedy="write 24h or 90m", reason="Usage") from error


def _report_document(report: "SweepReport", *, deleted: bool) -> dict[str, object]:
    return {
        "deleted": deleted,
        "pointers": {one.entry.name: one.verdict.name.lower() for one in report.judgements},
        "blobs": [blob.digest for blob in report.deleted_blobs],
        "freedBytes": report.freed_bytes,
        "keptBytes": report.kept_bytes,
    }


def _report_lines(report: "SweepReport", *, deleted: bool) -> Iterator[str]:
    from enginesmith_runtime.store.sweep import Verdict

    gone = [one.entry.name for one in report.judgements if one.verdict is Verdict.DELETE]
    yield from (f"{'deleted' if deleted else 'would delete'} {name}" for name in gone)
    kept = Counter(one.verdict.value for one in report.judgements if one.verdict is not Verdict.DELETE)
    yield from (f"kept {count}: {why}" for why, count in sorted(kept.items()))
    word = "deleted" if deleted else "would delete"
    yield (
        f"{word} {len(gone)} of {len(report.judgements)} entries and {len(report.deleted_blobs)} files of "
        f"{_size(report.freed_bytes)}; {_size(report.kept_bytes)} stay"
    )
    if not deleted:
        yield "Nothing was deleted. Add --delete to delete it."


def _size(count: int) -> str:
    from enginesmith_runtime.local_files.space import say_bytes

    return say_bytes(count)
