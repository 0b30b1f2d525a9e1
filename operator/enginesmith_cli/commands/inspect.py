"""`enginesmith inspect`: the content of an engine and the hardware that it runs on; the inputs of an ONNX model."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from enginesmith_cli.options import add_home_options
from enginesmith_cli.verification_lines import describe_verification
from enginesmith_contract.errors import SourceError
from enginesmith_contract.exit_codes import ExitCode

if TYPE_CHECKING:
    from enginesmith_contract.backends import Backend
    from enginesmith_contract.manifest import Manifest
    from enginesmith_contract.preparation import Preparation
    from enginesmith_contract.tensors import TensorSpec
    from enginesmith_runtime.prepare.trial import Trial

__all__ = ["add_arguments", "run"]

_TRIAL_BYTES = 4 << 30
_TRIAL_SECONDS = 60.0
"""Limits of the runs that try a profile."""
_LINE = 90
"""Characters of an inspector's entry that a terminal is shown."""

_EXAMPLES = """examples:
  enginesmith inspect                     the engines of the store
  enginesmith inspect 4f1c0de29ab3        one engine, by the first digits of its key
  enginesmith inspect model.onnx          inputs, outputs, and a profile to paste
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.add_argument(
        "what",
        nargs="?",
        metavar="KEY|MODEL.onnx",
        help="engine key, or .onnx file; if omitted, list the store's engines",
    )
    parser.add_argument("--output", "-o", choices=("text", "json"), default="text", help="default: text")
    add_home_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print what is asked for."""
    from enginesmith_cli.home import default_store_uri, state_folder
    from enginesmith_cli.stored_engines import find_engine, find_preparation, list_engines

    if arguments.what and (arguments.what.endswith(".onnx") or Path(arguments.what).is_file()):
        return _inspect_model(Path(arguments.what), arguments.output)
    store = arguments.store or default_store_uri(state_folder(arguments.home))
    if not arguments.what:
        manifests = list_engines(store)
        if arguments.output == "json":
            print(json.dumps([json.loads(one.to_json()) for one in manifests], indent=2, ensure_ascii=False))
        else:
            print("\n".join(_row(one) for one in manifests) or f"no engine in {store}")
        return ExitCode.OK
    manifest = find_engine(store, arguments.what)
    preparation = find_preparation(store, manifest)
    if arguments.output == "json":
        said: dict[str, object] = {}
        if preparation is not None:
            backend = manifest.toolchain.backend
            said = {"warnings": preparation.warnings_for([backend]), "kept": dict(preparation.kept_for(backend))}
        document = {**json.loads(manifest.to_json()), "preparation": said}
        print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        print("\n".join(_describe(manifest, preparation)))
    return ExitCode.OK


def _row(manifest: "Manifest") -> str:
    inputs = ", ".join(tensor.name for tensor in manifest.inputs)
    toolchain, place = manifest.toolchain, manifest.key_inputs.gpu_product or manifest.key_inputs.arch
    return (
        f"{manifest.engine_key[:20]}  {toolchain.name} {toolchain.version}  {place}  "
        f"{manifest.verification.status.value}  {manifest.created_at}  inputs {inputs}"
    )


def _describe(manifest: "Manifest", preparation: "Preparation | None") -> Iterator[str]:
    size = sum(file.size_bytes for file in manifest.files)
    yield f"engine key     {manifest.engine_key}"
    yield f"engine digest  {manifest.engine_digest}  ({size / 1e6:.1f} MB, {manifest.created_at})"
    yield f"model digest   {manifest.source_digest}"
    yield f"toolchain      {manifest.toolchain.name} {manifest.toolchain.version}"
    place = manifest.hardware.product or manifest.hardware.arch
    yield f"built in       {manifest.timings.build_seconds:.2f} s on {place}"
    yield from _provenance_lines(manifest)
    if manifest.timings.timing_cache is not None:
        yield f"timing cache   {manifest.timings.timing_cache.text()}"
    if manifest.refitted_from is not None:
        yield f"refitted from  {manifest.refitted_from}"
    yield from (f"note           {note}" for note in manifest.notes)
    if preparation is not None:
        yield from _preparation_lines(preparation, manifest.toolchain.backend)
    yield from describe_verification(manifest.verification)
    batching = manifest.batching
    yield f"batching       {'up to ' + str(batching.max_batch_size) if batching.proved else 'off'}: {batching.reason}"
    yield from (_tensor("input", tensor) for tensor in manifest.inputs)
    yield from (_tensor("output", tensor) for tensor in manifest.outputs)
    for profile in manifest.profiles:
        for name, sizes in profile.inputs.items():
            points = " / ".join(str(list(point)) for point in (sizes.min, sizes.opt, sizes.max))
            yield f"profile        {profile.name}: {name} min / opt / max {points}"
    for name, value in manifest.inspector.items():
        text = json.dumps(value, ensure_ascii=False)
        shown = text if len(text) <= _LINE else f"{text[:_LINE]} ... (--output json)"
        yield f"inspector      {name}: {shown}"
    yield from _where_it_runs(manifest)


def _provenance_lines(manifest: "Manifest") -> Iterator[str]:
    if manifest.signature is not None:
        yield f"signed with    key {manifest.signature.key_id}"
    if manifest.provenance is None:
        return
    definition, run = manifest.provenance.build_definition, manifest.provenance.run_details
    versions = ", ".join(f"{name} {version}" for name, version in sorted(run.builder.version.items()))
    yield f"built by       {run.builder.id} ({versions})"
    asked = {**definition.internal_parameters, **definition.external_parameters}
    yield from (f"               {name} {value}" for name, value in sorted(asked.items()))
    job = "" if run.metadata.invocation_id is None else f", Job {run.metadata.invocation_id}"
    yield f"               from {run.metadata.started_on} to {run.metadata.finished_on}{job}"
    for one in definition.resolved_dependencies:
        facts = [*(f"{name}:{value}" for name, value in one.digest.items()), *one.annotations.values()]
        yield f"built from     {one.name} {' '.join(facts)}"


def _preparation_lines(preparation: "Preparation", backend: "Backend") -> Iterator[str]:
    kept = preparation.kept_for(backend)
    if kept:
        yield f"in FP32        nodes: {len(kept)} (--output json names all, with reasons)"
    yield from (f"warning        {warning}" for warning in preparation.warnings_for([backend]))


def _tensor(kind: str, tensor: "TensorSpec") -> str:
    symbols = tensor.symbols or (None,) * len(tensor.shape)
    shape = ", ".join(str(symbol or size) for size, symbol in zip(tensor.shape, symbols, strict=True))
    return f"{kind:<15}{tensor.name}  {tensor.dtype}  [{shape}]"


def _where_it_runs(manifest: "Manifest") -> Iterator[str]:
    from enginesmith_contract.matrix.portability import fits
    from enginesmith_contract.verdicts import Verdict
    from enginesmith_runtime.engines.device import detect_devices, host_hardware
    from enginesmith_runtime.engines.registry import installed_toolchains

    installed = [one for one in installed_toolchains() if one.backend is manifest.toolchain.backend]
    version = installed[0].version if installed else "not installed"
    provider = manifest.toolchain.provider
    for device in detect_devices() or (host_hardware(),):
        name = device.product or f"this machine ({device.arch}, no GPU)"
        refusals = [one for one in fits(manifest, device, version, provider=provider) if one.verdict is Verdict.NO]
        yield f"runs on        {name}: {'no' if refusals else 'yes'}"
        yield from (f"               {one.rule}: {one.found}; wanted: {one.wanted}" for one in refusals)


def _inspect_model(path: Path, output: str) -> int:
    from enginesmith_contract.preparation import ModelSource
    from enginesmith_runtime.fetch.model import fetch_model
    from enginesmith_runtime.prepare.trial import try_model
    from enginesmith_runtime.progress import SilentReporter

    if not path.is_file():
        raise SourceError("no such file", where=str(path), remedy="give the path of an .onnx file", reason="NotFound")
    with TemporaryDirectory(prefix="enginesmith-inspect-") as made:
        fetched = fetch_model(ModelSource(uri=str(path.absolute())), path.parent, SilentReporter())
        trial = try_model(fetched.path, Path(made), memory_bytes=_TRIAL_BYTES, seconds=_TRIAL_SECONDS)
    facts = trial.facts
    if output == "json":
        document = {"digest": fetched.source_digest, **json.loads(facts.to_json()), "warnings": trial.warnings}
        print(json.dumps(document, indent=2, ensure_ascii=False))
        return ExitCode.OK
    print(f"model          {path.name}  {facts.size_bytes / 1e6:.1f} MB  opset {facts.opset}  {facts.producer}")
    print(f"digest         {fetched.source_digest}")
    for kind, tensors in (("input", facts.inputs), ("output", facts.outputs)):
        for tensor in tensors:
            print(_tensor(kind, tensor))
    for warning in trial.warnings:
        print(f"warning        {warning}")
    print("\n".join(_profile_lines(trial)))
    return ExitCode.OK


def _profile_lines(trial: "Trial") -> Iterator[str]:
    from enginesmith_contract.profile_suggestions import profile_text, values_entry

    facts = trial.facts
    if not facts.shape_inputs and not any(tensor.is_dynamic for tensor in facts.inputs):
        if trial.words:
            yield f"warning        it does not run: {trial.words}"
        return
    if trial.profile is not None:
        yield "\nA profile that the model ran with; paste it below spec: and adjust it:\n"
        yield profile_text(facts, trial.profile)
        return
    yield f"\nThe model needs a profile, and every guessed one was refused. The last error: {trial.words}"
    yield "Set spec.profiles to the sizes that the model was exported for."
    for spec in facts.inputs:
        if spec.name in facts.shape_inputs:
            yield f"Its input {spec.name} holds sizes; below inputs, with your own values: {values_entry(spec)}"
