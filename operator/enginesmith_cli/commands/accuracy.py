"""`enginesmith accuracy`: what each precision costs in answers and gains in size and speed, for one model."""

import argparse
import json
import os
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from enginesmith_cli.options import (
    add_document_options,
    add_home_options,
    add_trust_option,
    not_writable,
    read_trusted_keys,
)
from enginesmith_contract.backends import Precision
from enginesmith_contract.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from enginesmith_cli.accuracy.candidates import Candidate
    from enginesmith_cli.accuracy.report import Report
    from enginesmith_contract.manifest import Manifest
    from enginesmith_operator.api.inference_engine import InferenceEngine

__all__ = ["add_arguments", "run"]

_EXAMPLES = """examples:
  enginesmith accuracy engine.yaml
  enginesmith accuracy engine.yaml --samples pages/ --report accuracy.html
  enginesmith accuracy engine.yaml --precision fp16,int8 --layers 4 --output json

The model is prepared in each precision as `enginesmith build` does, compared with the FP32 model on samples, and built
for the first target that this machine can serve. The samples are those that spec.precision.calibration holds out, or
those of --samples: a folder, archive or file of .npz, .npy, raw tensors or images, as for calibration data.
"""
_MOST_SAMPLES = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    add_document_options(parser)
    parser.add_argument(
        "--precision",
        type=_precisions,
        default=(),
        metavar="NAME,...",
        help="precisions to compare with fp32 (default: fp16, bf16, int8 with calibration data, and the file's)",
    )
    parser.add_argument(
        "--samples", metavar="PATH", type=Path, help="a folder, archive or file of samples to compare on"
    )
    parser.add_argument(
        "--most", type=_count, default=64, metavar="N", help="number of samples that are compared (default: 64)"
    )
    parser.add_argument(
        "--layers",
        type=_count,
        nargs="?",
        const=2,
        default=0,
        metavar="N",
        help="compare the values inside the model as well, on N samples (default: 2)",
    )
    parser.add_argument("--report", metavar="FILE.html", type=Path, help="write a report with pictures")
    parser.add_argument("--pictures", metavar="FOLDER", type=Path, help="write the report's pictures as SVG files")
    parser.add_argument("--output", "-o", choices=("table", "json"), default="table", help="default: table")
    add_home_options(parser)
    add_trust_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compare the precisions and print what was found."""
    from enginesmith_cli.accuracy.candidates import candidates
    from enginesmith_cli.accuracy.report import document, lines
    from enginesmith_cli.documents import one_document
    from enginesmith_operator.api.load import read_file

    engine = one_document(read_file(arguments.file), arguments.file, arguments.name)
    chosen = candidates(engine, arguments.precision)
    if arguments.report:
        _write(arguments.report, "", "--report")
    report = _compare(engine, chosen, arguments)
    _save(report, arguments)
    if arguments.output == "json":
        print(json.dumps(document(report), indent=2, ensure_ascii=False))
    else:
        print("\n".join(lines(report)))
    return ExitCode.OK


def _compare(engine: "InferenceEngine", chosen: "tuple[Candidate, ...]", arguments: argparse.Namespace) -> "Report":
    from enginesmith_cli.accuracy.report import Report
    from enginesmith_cli.accuracy.samples import Wanted, choose_samples
    from enginesmith_cli.accuracy.trials import StageOfCandidate, Trials
    from enginesmith_cli.home import default_store_uri, scratch_folder, state_folder
    from enginesmith_cli.local import LocalMachine
    from enginesmith_contract.environment import LOG_FORMAT
    from enginesmith_runtime.progress_output import open_reporter
    from enginesmith_runtime.store.open import open_store

    home = state_folder(arguments.home)
    store = arguments.store or default_store_uri(home)
    shares = {candidate.label: 1 for candidate in chosen}
    with (
        scratch_folder(home) as work,
        open_reporter(os.environ.get(LOG_FORMAT, "auto"), sys.stderr, shares) as reporter,
    ):
        stage = StageOfCandidate(reporter)
        keys = read_trusted_keys(arguments.trusted_keys)
        base = arguments.file.absolute().parent
        machine = LocalMachine(home=home, store=store, base=base, reporter=stage, trusted_keys=keys)
        wanted = Wanted(
            engine=engine,
            folder=arguments.samples,
            most=arguments.most,
            base=machine.base,
            downloads=home / "downloads",
        )
        (work / "samples").mkdir()
        choose = partial(choose_samples, wanted, store=open_store(store), scratch=work / "samples", reporter=stage)
        trials = Trials(
            machine=machine, reporter=reporter, stage=stage, work=work, choose=choose, layers=arguments.layers
        )
        found = trials.run(chosen)
    return Report(about=_about(engine, found.manifests, arguments), samples=found.samples, rows=tuple(found.rows))


def _about(
    engine: "InferenceEngine", manifests: "Sequence[Manifest]", arguments: argparse.Namespace
) -> dict[str, object]:
    from enginesmith_contract.text import one_line
    from enginesmith_runtime.local_files.cpus import count_usable_cpus

    first = manifests[0] if manifests else None
    gpu = first.hardware.product if first is not None else None
    toolchain = f"{first.toolchain.name} {first.toolchain.version}" if first is not None else "no engine"
    return {
        "model": engine.metadata.name,
        "document": str(arguments.file),
        "toolchain": toolchain,
        "gpu": gpu,
        "device": f"{gpu}, {toolchain}" if gpu else f"no GPU, {count_usable_cpus()} CPUs, {toolchain}",
        "command": one_line(shlex.join(["enginesmith", *sys.argv[1:]])),
    }


def _save(report: "Report", arguments: argparse.Namespace) -> None:
    from enginesmith_cli.accuracy.page import page
    from enginesmith_cli.accuracy.plots import pictures

    if arguments.report:
        _write(arguments.report, page(report), "--report")
    if arguments.pictures:
        for name, text in pictures(report.rows).items():
            file = f"{report.about['model']}-{name.replace(' ', '-')}.svg"
            _write(arguments.pictures / file, f"{text}\n", "--pictures")


def _write(path: Path, text: str, option: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise not_writable(f"{option} {path}", error, "name a place that can be written") from error


def _precisions(text: str) -> tuple[Precision, ...]:
    known = [one.value for one in Precision if one is not Precision.TF32]
    names = text.split(",")
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(known)}")
    return tuple(dict.fromkeys(Precision(name) for name in names))


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= _MOST_SAMPLES:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {_MOST_SAMPLES}")
    return int(text)
