"""A user's metric: it gets both outputs of the held-out samples, and decides whether the engine is stored."""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from tests.build.classifier_workshop import Workshop

from enginesmith_contract import environment
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.errors import SpecError, StoreError, VerificationError
from enginesmith_contract.exit_codes import ExitCode
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.metric_container import MetricContainer, MetricIndex, judge_result
from enginesmith_contract.preparation import Preparation, ReferenceSet
from enginesmith_contract.store_layout import StoredFile, engine_pointer
from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_contract.termination import TerminationMessage
from enginesmith_contract.verification import Verification, VerificationStatus
from enginesmith_runtime.build import verdict
from enginesmith_runtime.build.metric_files import MetricSamples, read_result
from enginesmith_runtime.build.metric_gate import MetricFolders, require_run, require_same
from enginesmith_runtime.build.pipeline import build
from enginesmith_runtime.progress import SilentReporter

IMAGE = f"registry.example/agreement@sha256:{'5f' * 32}"
METRIC = """
import json, sys, numpy as np
from pathlib import Path
data, result = map(Path, sys.argv[1:])
index = json.loads((data / "index.json").read_text())
same = []
for sample in index["samples"]:
    reference, engine = (np.load(data / sample[kind])["probabilities"] for kind in ("reference", "engine"))
    assert np.load(data / sample["inputs"])["image"].shape[0] == len(engine)
    same.append(bool((reference.argmax(1) == engine.argmax(1)).all()))
verdict = {"value": sum(same) / len(same), "message": "likeliest class\\nof " + index["precision"]}
(result / "result.json").write_text(json.dumps(verdict))
"""


class Bench(Workshop):
    """A workshop that runs the three steps of a build with a metric."""

    def run(self, preparation: Preparation, metric: str = METRIC, **bounds: Any) -> tuple[int, TerminationMessage]:
        """Build, run the metric as a process, and read the verdict; returns how the last step ended."""
        request = self.request(preparation, metric_container=MetricContainer(image=IMAGE, **bounds))
        with TemporaryDirectory(dir=self.folder) as folder:
            folders = make_folders(Path(folder))
            build(request, Path(folder), SilentReporter(), metric=folders)
            subprocess.run([sys.executable, "-c", metric, str(folders.data), str(folders.result)], check=True)
            said = Path(folder) / "said"
            variables = {environment.TERMINATION_LOG: str(said), environment.BUILD_REQUEST: request.to_json().decode()}
            code = verdict.main((), variables, folders)
            return code, TerminationMessage.from_json(said.read_bytes())

    def stored(self, request: BuildRequest) -> Manifest | None:
        """Return the engine of a request, if it has a pointer."""
        found = self.store.read_pointer(engine_pointer(request.engine_key))
        return None if found is None else Manifest.from_json(found)


def make_folders(folder: Path) -> MetricFolders:
    """Make the folders of a metric."""
    made = MetricFolders(*(folder / name for name in ("candidate", "data", "result")))
    for each in made:
        each.mkdir()
    return made


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return a store with the classifier."""
    return Bench(tmp_path_factory.mktemp("bench"))


def test_the_metric_s_value_is_stored_with_the_engine_that_it_lets_pass(bench: Bench) -> None:
    preparation = bench.int8(held_out=24)
    code, said = bench.run(preparation, at_least=0.9)
    assert code == ExitCode.OK
    assert said.metric == pytest.approx(1.0, abs=0.1)
    assert said.judged_on == "24 held-out samples"
    stored = bench.stored(bench.request(preparation))
    assert stored is not None
    found = stored.verification.metric_verdict
    assert found is not None
    assert (found.image, found.samples, found.at_least, found.message) == (IMAGE, 24, 0.9, "likeliest class of int8")
    assert found.sentence() in said.message


def test_another_bound_judges_the_stored_engine_again(bench: Bench) -> None:
    preparation = bench.int8(held_out=23)
    assert bench.run(preparation, at_least=0.5)[0] == ExitCode.OK
    before = bench.stored(bench.request(preparation))
    code, said = bench.run(preparation, at_most=0.25)
    assert (code, said.reason) == (ExitCode.VERIFICATION_FAILED, "VerificationFailed")
    assert "refuses the engine" in said.message
    assert "at most 0.25 passes; 23 samples" in said.message
    assert bench.run(preparation, at_least=0.25)[1].engine_digest == (before and before.engine_digest)


def test_an_engine_that_the_metric_refuses_is_not_stored(bench: Bench) -> None:
    preparation = bench.int8("oneTensor", held_out=22)
    code, said = bench.run(preparation, at_least=0.999)
    assert code == ExitCode.VERIFICATION_FAILED
    assert "likeliest class of int8" in said.message
    assert bench.stored(bench.request(preparation)) is None


def test_default_limits_are_alarms_where_a_metric_decides_and_limits_that_are_set_decide_as_well(bench: Bench) -> None:
    preparation = bench.int8("oneTensor", held_out=21)
    with pytest.raises(VerificationError, match=r"limit 0\.97"):
        bench.build(preparation)
    assert bench.run(preparation, at_least=0.0)[0] == ExitCode.OK
    asked = bench.judge(preparation, agreement=0.97, metric_container=MetricContainer(image=IMAGE))
    assert asked.status is VerificationStatus.FAILED
    found = bench.judge(preparation, metric_container=MetricContainer(image=IMAGE))
    assert found.status is VerificationStatus.PASSED
    assert found.alarms


def test_without_held_out_samples_the_metric_gets_the_reference_inputs(bench: Bench, tmp_path: Path) -> None:
    request = bench.request(bench.plain, metric_container=MetricContainer(image=IMAGE))
    folders = make_folders(tmp_path)
    build(request, tmp_path, SilentReporter(), metric=folders)
    index = MetricIndex.from_json((folders.data / "index.json").read_bytes())
    assert (index.held_out, index.precision) == (False, "fp32")
    assert {one.name for one in index.samples} == {"min", "opt", "max"}


def test_where_nothing_runs_a_metric_no_engine_is_built(bench: Bench, tmp_path: Path) -> None:
    request = bench.request(bench.plain, metric_container=MetricContainer(image=IMAGE))
    with pytest.raises(SpecError, match="only a cluster runs it") as refused:
        build(request, tmp_path, SilentReporter())
    assert refused.value.reason == "MetricNotRun"
    with pytest.raises(SpecError, match="did not run where it was built: no GPU"):
        require_run(Verification(status=VerificationStatus.NOT_RUN, reason="no GPU"))


def test_another_engine_that_was_stored_meanwhile_is_not_the_one_that_was_judged(bench: Bench) -> None:
    preparation = bench.int8(held_out=20)
    bench.build(preparation)
    stored = bench.stored(bench.request(preparation))
    assert stored is not None
    with pytest.raises(StoreError, match="meanwhile") as refused:
        require_same(stored, stored.model_copy(update={"engine_digest": "ab" * 32}))
    assert refused.value.retry


@pytest.mark.parametrize(
    ("result", "bounds", "words"),
    [
        ("", {}, "it is not JSON"),
        ("[" * 10_000, {}, "it is not JSON"),
        ("[]", {}, "dictionary"),
        ("{}", {}, "neither value nor passed"),
        ('{"value": "0.9"}', {"at_least": 0.5}, "value: "),
        ('{"value": true}', {"at_least": 0.5}, "value: "),
        ('{"value": NaN}', {"at_least": 0.5}, "not a finite number"),
        ('{"value": 0.9}', {}, "neither atLeast nor atMost"),
        ('{"passed": true}', {"at_least": 0.5}, "the spec asks for at least 0.5"),
        ('{"value": 1, "message": "' + "x" * 70_000 + '"}', {"at_least": 0.5}, "larger than 65536 bytes"),
    ],
)
def test_a_result_that_says_nothing_refuses_the_engine(result: str, bounds: dict[str, float], words: str) -> None:
    with pytest.raises(VerificationError, match="wrote no valid result") as refused:
        judge_result(MetricContainer(image=IMAGE, **bounds), result.encode(), 8)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("result", "bounds", "word"),
    [
        ({"value": 1}, {"at_least": 1}, "passes"),
        ({"value": 0.02, "passed": True, "more": []}, {"at_most": 0.02}, "passes"),
        ({"value": 0.03, "passed": True}, {"at_most": 0.02}, "refuses"),
        ({"value": 0.9, "passed": False}, {"at_least": 0.5}, "refuses"),
        ({"passed": False, "message": "no text at all"}, {}, "refuses"),
        ({"passed": True}, {}, "passes"),
    ],
)
def test_bounds_and_the_container_s_own_word_must_both_pass(
    result: dict[str, object], bounds: dict[str, float], word: str
) -> None:
    container = MetricContainer(image=IMAGE, **bounds)
    found = judge_result(container, json.dumps(result).encode(), 8)
    assert (found.passed, f" {word} the engine " in found.sentence()) == (word == "passes", True)


def test_a_result_is_a_file_of_the_metric_and_nothing_that_it_points_to(tmp_path: Path) -> None:
    secret = tmp_path / "credentials"
    secret.write_text('{"passed": true}')
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(secret)
    os.mkfifo(pipe)
    for path in (link, pipe, tmp_path, tmp_path / "missing"):
        with pytest.raises(VerificationError, match="left no result"):
            read_result(path)


def test_samples_need_nothing_but_numpy(tmp_path: Path) -> None:
    file = StoredFile(path="0.npz", digest="0" * 64, size_bytes=1)
    reference = ReferenceSet(profile="default", point="opt", file=file)
    outputs = (
        TensorSpec(name="file", dtype=DType.BF16, shape=(2,)),
        TensorSpec(name="block/text", dtype=DType.BYTES, shape=(2,)),
    )
    answers = {
        "file": np.array([0x3F80, 0xC000], np.uint16),
        "block/text": np.array(["字", b"\xff"], dtype=object),
        "not-asked": np.zeros(1),
    }
    expected = {"file": np.array([1, -2], np.float32), "block/text": np.array(["字".encode(), b"\xff"])}
    MetricSamples(tmp_path, [reference]).add(reference, {}, expected, answers, outputs)
    with np.load(tmp_path / "engine/0000.npz", allow_pickle=False) as engine:
        assert set(engine.files) == set(expected)
        for name, values in expected.items():
            np.testing.assert_array_equal(engine[name], values)
