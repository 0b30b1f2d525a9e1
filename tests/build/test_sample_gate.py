"""The gate on held-out samples: a good INT8 engine passes, broken calibrations are stopped and named."""

from pathlib import Path

import pytest
from tests.build.classifier_workshop import Workshop
from tests.prepare.oriented_classifier import (
    BROKEN,
)

from enginesmith_contract.backends import Precision, PrecisionPolicy
from enginesmith_contract.errors import SpecError, VerificationError
from enginesmith_contract.limits import Arithmetic
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.serve_request import ServedModel
from enginesmith_contract.store_layout import engine_pointer
from enginesmith_contract.verification import (
    Decode,
    OutputAgreement,
    OutputGate,
    VerificationPolicy,
    VerificationStatus,
)
from enginesmith_runtime.build.outcome import success_message
from enginesmith_runtime.build.sample_gate import judge_agreements
from enginesmith_runtime.build.verify import Measurement, judge_measurement, not_run
from enginesmith_runtime.progress import SilentReporter
from enginesmith_runtime.server.loading import Loading, load_model


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Return a store with the classifier."""
    return Workshop(tmp_path_factory.mktemp("workshop"))


def test_a_good_int8_engine_is_judged_by_the_agreement_of_its_answers(workshop: Workshop) -> None:
    verification = workshop.judge(workshop.int8())
    (agreement,) = verification.agreements or ()
    assert verification.status is VerificationStatus.PASSED
    assert verification.judged_on == "40 held-out samples"
    assert (agreement.limit, verification.limit) == (0.97, None)
    assert (agreement.decode, agreement.axis, agreement.answers) == (Decode.ARGMAX, 1, 40)
    assert agreement.inferred == "its values add up to 1 along axis 1"
    assert agreement.agreement is not None
    assert agreement.agreement >= 0.97


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_calibration_is_stopped_with_its_output_and_tensor(workshop: Workshop, how: str) -> None:
    preparation = workshop.int8(how)
    assert preparation.first_fall is not None
    verification = workshop.judge(preparation)
    assert verification.status is VerificationStatus.FAILED
    assert verification.reason.startswith("output 'probabilities': 0.")
    assert "argmax along axis 1, inferred: its values add up to 1" in verification.reason
    assert "limit 0.97" in verification.reason
    named = f"the first tensor whose SQNR falls: tensor {preparation.first_fall.tensor!r}"
    assert named in verification.reason


def test_limits_of_outputs_replace_the_default_and_need_no_new_build(workshop: Workshop) -> None:
    preparation = workshop.int8("oneTensor", held_out=39)
    with pytest.raises(VerificationError, match=r"limit 0\.97") as refused:
        workshop.build(preparation)
    assert "precision.keep" in refused.value.remedy
    lenient = workshop.build(preparation, outputs={"probabilities": OutputGate(agreement=0.0)})
    assert lenient.status is VerificationStatus.PASSED
    assert lenient.alarms is not None
    assert "cosine" in lenient.alarms[-1]
    with pytest.raises(VerificationError, match=r"limit 0\.5"):
        workshop.build(preparation, agreement=0.5)
    with pytest.raises(SpecError, match="another decoding"):
        workshop.build(preparation, agreement=0.0, outputs={"probabilities": OutputGate(decode=Decode.VALUES)})


def test_a_ratio_is_an_alarm_unless_the_spec_sets_it(workshop: Workshop) -> None:
    preparation = workshop.int8(held_out=38)
    assert max(one.difference for one in workshop.judge(preparation).differences) > 1e-6
    refused = workshop.judge(preparation, limit=1e-6)
    assert refused.status is VerificationStatus.FAILED
    assert "limit 1e-06" in refused.reason


def test_samples_of_one_class_prove_little_and_alarms_decide(workshop: Workshop) -> None:
    good = workshop.judge(workshop.int8(held_out=8, step=8), limit=2.0)
    assert good.status is VerificationStatus.PASSED
    assert "the agreement proves little, for all samples have the same answer (0)" in good.reason
    by_ratio = workshop.judge(workshop.int8(held_out=8, step=8))
    assert by_ratio.status is VerificationStatus.FAILED
    assert "(0), and its values are far off: max|a-b|/max|b| is" in by_ratio.reason
    broken = workshop.judge(workshop.int8("zeros", held_out=8, step=8))
    assert broken.status is VerificationStatus.FAILED
    assert broken.reason.startswith("output 'probabilities': 0 of 8 answers")
    assert "cosine" in broken.reason


@pytest.mark.parametrize(
    ("unproved", "cosine", "want"),
    [
        ("98 % of the samples have the same answer (1)", 0.5, VerificationStatus.FAILED),
        ("98 % of the samples have the same answer (1)", 0.999, VerificationStatus.PASSED),
        (None, 0.5, VerificationStatus.PASSED),
    ],
)
def test_an_alarm_fails_an_engine_whose_agreement_proves_little(
    unproved: str | None, cosine: float, want: VerificationStatus
) -> None:
    one = OutputAgreement(
        output="y", decode=Decode.ARGMAX, samples=100, answers=100, agreement=0.98, unproved=unproved, cosine=cosine
    )
    verdict = judge_measurement(
        Measurement(differences=(), latency_seconds={}, agreements=(one,)),
        VerificationPolicy(),
        Arithmetic(precision=PrecisionPolicy(default=Precision.INT8)),
    )
    assert verdict.status is want


@pytest.mark.parametrize(("samples", "warnings"), [(29, 1), (30, 0)])
def test_few_samples_are_warned_of(samples: int, warnings: int) -> None:
    one = OutputAgreement(output="y", decode=Decode.ARGMAX, samples=samples, answers=samples, agreement=1.0, limit=0.97)
    alarms = judge_agreements((one,)).alarms
    words = "the agreement on 29 held-out samples says little: give at least 30"
    assert [alarm[: len(words)] for alarm in alarms] == [words] * warnings


def test_without_samples_the_result_says_so(workshop: Workshop) -> None:
    verification = workshop.judge(workshop.plain)
    assert verification.judged_on == "generated inputs"
    assert verification.agreements is None


@pytest.mark.parametrize("how", ["good", "oneTensor"])
def test_an_engine_that_could_not_run_is_judged_by_its_first_server(workshop: Workshop, how: str) -> None:
    preparation = workshop.int8(how, held_out=37)
    gates = {"probabilities": OutputGate(agreement=0.0)}
    workshop.build(preparation, outputs=gates)
    pointer = engine_pointer(workshop.request(preparation).engine_key)
    manifest = Manifest.from_json(workshop.store.read_pointer(pointer) or b"")
    assert manifest.references == preparation.references
    assert "alarm: output 'probabilities'" in (success_message(manifest).warning or "")
    assert not _served_samples(workshop, manifest, f"judged-{how}")
    unjudged = not_run(VerificationPolicy(), manifest.arithmetic, "no GPU here", manifest.references)
    unjudged = unjudged.model_copy(update={"first_fall": preparation.first_fall})
    assert (unjudged.agreement, unjudged.limit, unjudged.outputs) == (None, None, None)
    workshop.store.replace_pointer(pointer, manifest.model_copy(update={"verification": unjudged}).to_json())
    if how == "good":
        assert len(_served_samples(workshop, manifest, "first")) == 37
        return
    with pytest.raises(VerificationError, match=r"'probabilities'.*the first tensor whose SQNR falls: tensor"):
        _served_samples(workshop, manifest, "first-broken")


def _served_samples(workshop: Workshop, manifest: Manifest, name: str) -> list[Path]:
    """Serve a stored engine; returns the files of samples that the server downloaded."""
    folder = workshop.folder / name
    loading = Loading(folder=folder, queue_limit=1, reporter=SilentReporter())
    served = ServedModel(name="m", target="cpu", engine_key=manifest.engine_key, store=workshop.store.uri)
    model = load_model(served, loading)
    model.engine.close()
    return sorted(folder.rglob("stripes-*.npz"))
