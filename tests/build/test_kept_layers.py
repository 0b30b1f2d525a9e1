"""What a verification says of `precision.autoKeep`: in a build, of a stored engine, and in a server that judges it."""

from hashlib import sha256
from pathlib import Path

import pytest
from tests.build.classifier_workshop import Workshop

from enginesmith_contract.auto_keep import AutoKeepResult, KeepSearch, KeptPoint, Sensitivity
from enginesmith_contract.backends import Backend, Precision, PrecisionPolicy
from enginesmith_contract.calibration import AutoKeep
from enginesmith_contract.errors import VerificationError
from enginesmith_contract.limits import Arithmetic
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.metric_container import MetricContainer
from enginesmith_contract.preparation import Preparation
from enginesmith_contract.serve_request import ServedModel
from enginesmith_contract.store_layout import engine_pointer, preparation_pointer
from enginesmith_contract.verification import OutputDifference, VerificationPolicy, VerificationStatus
from enginesmith_runtime.build.failed_gate import raise_if_failed
from enginesmith_runtime.build.metric_gate import MetricFolders, judge_candidate, leave_candidate
from enginesmith_runtime.build.verify import judge_differences, not_run
from enginesmith_runtime.progress import SilentReporter
from enginesmith_runtime.server.loading import Loading, load_model

SAID = r"precision\.autoKeep kept 1 of 2 nodes for TensorRT and reached .*; budget ended the search"


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Return a store with the classifier."""
    return Workshop(tmp_path_factory.mktemp("workshop"))


def searched(workshop: Workshop, how: str) -> Preparation:
    """Return a preparation whose search for nodes to keep did not reach its aim."""
    ranking = tuple(Sensitivity(node=name, damage=1.0, size_bytes=8) for name in ("a", "b"))
    trial = KeptPoint(kept_nodes=1, kept_bytes=8, agreement=0.5, passed=False)
    search = KeepSearch(kept=("a",), reached=False, complete=True, stopped_by=("budget",), curve=(trial,))
    found = AutoKeepResult(tensorrt=search, samples=16, weight_bytes=16, ranking=ranking)
    changes = {"auto_keep": found, "precision": PrecisionPolicy(default=Precision.INT8, auto_keep=AutoKeep())}
    preparation = workshop.int8(how, held_out=37).model_copy(update=changes)
    key = sha256(f"searched {how}".encode()).hexdigest()
    preparation = preparation.model_copy(update={"preparation_key": key})
    workshop.store.create_pointer(preparation_pointer(key), preparation.to_json())
    return preparation


def test_a_stored_engine_that_is_judged_again_names_the_shortfall_as_its_build_does(workshop: Workshop) -> None:
    preparation = searched(workshop, "good")
    with pytest.raises(VerificationError, match=SAID) as built:
        workshop.build(preparation, limit=1e-9)
    passed = workshop.build(preparation)
    assert passed.status is VerificationStatus.PASSED
    assert "autoKeep" not in passed.reason
    with pytest.raises(VerificationError, match=SAID) as stored:
        workshop.build(preparation, limit=1e-9)
    assert str(stored.value) == str(built.value)


def test_a_server_that_judges_an_engine_first_names_the_shortfall(workshop: Workshop) -> None:
    preparation = searched(workshop, "oneTensor")
    workshop.build(preparation, outputs={"probabilities": {"agreement": 0.0}})
    pointer = engine_pointer(workshop.request(preparation).engine_key)
    manifest = Manifest.from_json(workshop.store.read_pointer(pointer) or b"")
    assert manifest.verification.shortfall == preparation.shortfall_for(Backend.ONNXRUNTIME)
    unjudged = not_run(VerificationPolicy(), manifest.arithmetic, "no GPU here", manifest.references)
    unjudged = unjudged.model_copy(update={"shortfall": manifest.verification.shortfall})
    workshop.store.replace_pointer(pointer, manifest.model_copy(update={"verification": unjudged}).to_json())
    loading = Loading(folder=workshop.folder / "served", queue_limit=1, reporter=SilentReporter())
    served = ServedModel(name="m", target="cpu", engine_key=manifest.engine_key, store=workshop.store.uri)
    with pytest.raises(VerificationError, match=SAID):
        load_model(served, loading)


@pytest.mark.parametrize(
    ("precision", "want", "want_not"),
    [
        (PrecisionPolicy(default=Precision.INT8), "precision.keep, or precision.autoKeep", "()"),
        (PrecisionPolicy(default=Precision.INT8, auto_keep=AutoKeep()), "calibrate", "or precision.autoKeep"),
        (PrecisionPolicy(default=Precision.FP16, auto_keep=True), "precision.keep", "or precision.autoKeep"),
        (PrecisionPolicy(default=Precision.FP16), "choose a wider precision", "calibrate"),
        (PrecisionPolicy(default=Precision.BF16), "(precision.keep)", "autoKeep"),
        (PrecisionPolicy(), "change the bounds of verification.metricContainer", "precision"),
    ],
    ids=["int8", "int8 with autoKeep", "fp16 with autoKeep", "fp16", "bf16", "fp32"],
)
def test_a_metric_that_refuses_an_engine_advises_nothing_that_is_set_or_has_no_effect(
    precision: PrecisionPolicy, want: str, want_not: str, workshop: Workshop, tmp_path: Path
) -> None:
    workshop.build(workshop.plain)
    request = workshop.request(workshop.plain, metric_container=MetricContainer(image="i", at_least=0.9))
    manifest = Manifest.from_json(workshop.store.read_pointer(engine_pointer(request.engine_key)) or b"")
    folders = MetricFolders(tmp_path, tmp_path, tmp_path)
    leave_candidate(folders, manifest.model_copy(update={"precision": precision}))
    (tmp_path / "index.json").write_text('{"engineKey":"k","heldOut":true,"precision":"int8","samples":[]}')
    (tmp_path / "result.json").write_text('{"value": 0.5}')
    with pytest.raises(VerificationError) as refused:
        judge_candidate(request, folders)
    assert want in refused.value.remedy
    assert want_not not in refused.value.remedy


@pytest.mark.parametrize(("inputs", "want"), [({}, "give"), ({"x": {"npz": "real.npz"}}, "see that")])
def test_inputs_of_files_are_not_asked_for_again(inputs: dict[str, object], want: str) -> None:
    difference = OutputDifference(output="y", profile="p", difference=0.5, scale=1.0)
    policy = VerificationPolicy.model_validate({"inputs": inputs})
    with pytest.raises(VerificationError) as refused:
        raise_if_failed(judge_differences((difference,), policy, Arithmetic()), Arithmetic())
    assert refused.value.remedy.startswith(f"{want} verification.inputs")
