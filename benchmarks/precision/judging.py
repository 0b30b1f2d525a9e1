"""One model in every precision: `python -m benchmarks.precision.judging MODEL FOLDER VARIANTS SHARE` prints JSON."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.precision.digits import Naming
from benchmarks.precision.tasks import Finding, Reading, Task, Turning
from benchmarks.precision.variants import VARIANTS, Variant, Workshop

from enginesmith_contract.errors import EnginesmithError
from enginesmith_runtime.local_files.digests import digest_file
from enginesmith_runtime.progress_output import open_reporter

_TASKS: Final[Mapping[str, Callable[[], Task[Any, Any]]]] = {
    "rec": Reading, "cls": Turning, "det": Finding, "digits": Naming
}  # fmt: skip
_REFERENCE = VARIANTS[0]
_SAVED_EVERY = 50


def main(name: str, folder: Path, variants: Sequence[str], share: float) -> dict[str, Any]:
    """Return the figures of one model.

    Args:
        name: of the model.
        folder: keeps what is made.
        variants: that are judged; FP32 always is.
        share: of the samples.
    """
    task: Task[Any, Any] = _TASKS[name]()
    samples = list(task.samples(max(1, round(task.trials * share)), "judged"))
    truths = [truth for _, truth in samples]
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    with open_reporter("text", sys.stderr, dict.fromkeys(VARIANTS, 1)) as reporter:
        workshop = Workshop(task=task, model=task.model(folder), folder=folder, reporter=reporter)
        whole = workshop.make(_REFERENCE)
        reference: list[Any] = []
        for variant in (_REFERENCE, *(one for one in variants if one != _REFERENCE)):
            try:
                made = workshop.make(variant)
            except EnginesmithError as error:
                found[variant] = {"failure": error.sentence()}
                continue
            reporter.begin(variant, f"{len(samples)} samples of {name}")
            known = folder / f"answers-{digest_file(made.path, name=variant).digest[:16]}.json"
            answers, seconds = _answers(task, made, samples, known, reporter.advance)
            reference = reference or answers
            reporter.end()
            shares = task.judge(answers, reference, truths)
            found[variant] = {
                **{kind: one.record() for kind, one in shares.items()},
                "size": round(made.size_bytes / whole.size_bytes, 4),
                "kept": made.kept,
                "seconds": round(seconds, 1),
            }
            print(f"{name} {variant}: " + ", ".join(f"{kind} {one}" for kind, one in shares.items()), file=sys.stderr)
    return {"samples": len(samples), "calibration": task.calibration, "precisions": found}


def _answers(
    task: Task[Any, Any],
    variant: Variant,
    samples: Sequence[tuple[Any, Any]],
    known: Path,
    advance: Callable[[float], None],
) -> tuple[list[Any], float]:
    """Return the answers to all samples and the seconds they took; those of an earlier run are in `known`."""
    kept: dict[str, Any] = json.loads(known.read_text()) if known.exists() else {"answers": [], "seconds": 0.0}
    answers, seconds = [task.restore(one) for one in kept["answers"]], float(kept["seconds"])
    model = variant.open()
    for number, (tensor, truth) in enumerate(samples[len(answers) :], start=len(answers)):
        begun = time.monotonic()
        answers.append(task.answer(model, tensor, truth))
        seconds += time.monotonic() - begun
        advance(number / len(samples))
        if number % _SAVED_EVERY == 0 or number == len(samples) - 1:
            known.write_text(json.dumps({"answers": answers, "seconds": seconds}))
    return answers[: len(samples)], seconds


if __name__ == "__main__":
    chosen = tuple(one for one in sys.argv[3].split(",") if one) or VARIANTS
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), chosen, float(sys.argv[4]))))
