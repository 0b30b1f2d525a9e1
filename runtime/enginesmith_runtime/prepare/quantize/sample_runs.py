"""Runs the source model on held-out samples. Every engine is compared with the outputs."""

from collections.abc import Callable, Mapping
from pathlib import Path

from enginesmith_contract.errors import ModelError
from enginesmith_contract.profiles import Profile
from enginesmith_runtime.prepare.jobs import Feed, Shapes
from enginesmith_runtime.prepare.quantize.first_fall import extremes, locate
from enginesmith_runtime.prepare.quantize.jobs import SampleRun, SampleRuns, SamplesJob
from enginesmith_runtime.prepare.quantize.samples import open_data
from enginesmith_runtime.prepare.quantize.watched_runs import refused_by_model
from enginesmith_runtime.prepare.runs.inputs import Array
from enginesmith_runtime.prepare.runs.reference_runs import RunFailedError, Session, bound_memory, save_run

__all__ = ["run_samples"]


def run_samples(job: SamplesJob, tick: Callable[[float], None]) -> SampleRuns:
    """Run samples until the files have `most_bytes`, at least one. `tick` receives the completed share.

    Raises:
        enginesmith_contract.errors.ModelError: `SampleRefusedByModel`.
    """
    bound_memory(job.memory_bytes)
    folder, data = Path(job.folder), job.data
    session = Session(job.model, emulated=job.feed.emulated, threads=job.feed.threads)
    runs: list[SampleRun] = []
    looked_at: list[Mapping[str, Array]] = []
    left = job.most_bytes
    with open_data(data, job.feed.facts, folder) as samples:
        for name, inputs in samples.read(job.names):
            outputs = _answers(session, job.feed, name, inputs)
            file = f"sample-{len(runs)}.npz"
            left -= save_run(folder / file, inputs, outputs)
            if left < 0 and runs:
                (folder / file).unlink()
                break
            looked_at = extremes([*looked_at, inputs])
            shapes = {key: array.shape for key, array in inputs.items()}
            runs.append(SampleRun(name=name, profile=_profile_of(shapes, data.profiles), file=file))
            tick(len(runs) / len(job.names))
    del session  # with its copy of the weights
    falls = [
        None if model is None else locate(Path(job.normal), Path(model), job.feed, looked_at)
        for model in (job.quantized, job.onnxruntime)
    ]
    return SampleRuns(runs=tuple(runs), first_fall=falls[0], onnxruntime_first_fall=falls[1])


def _answers(session: Session, feed: Feed, name: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
    try:
        return session.run(feed, inputs)
    except RunFailedError as error:
        raise refused_by_model(ModelError, name, error) from error


def _profile_of(shapes: Shapes, profiles: tuple[Profile, ...]) -> str:
    fitting = (one.name for one in profiles if all(one.inputs[key].contains(shape) for key, shape in shapes.items()))
    return next(fitting, profiles[0].name)
