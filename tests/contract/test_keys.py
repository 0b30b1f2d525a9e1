"""Keys stay what they are across releases, change with every input, and not with the order of anything unordered."""

from typing import Any

import pytest

from enginesmith_contract.backends import Backend, Precision, PrecisionPolicy
from enginesmith_contract.calibration import Calibration
from enginesmith_contract.keys import (
    NAME_KEY_LENGTH,
    EngineKeyInputs,
    PreparationKeyInputs,
    engine_key,
    preparation_key,
)
from enginesmith_contract.preprocess import Preprocess
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.verification import InputValues

SHAPES = ShapeRange(min=(1, 3, 224, 224), opt=(8, 3, 224, 224), max=(32, 3, 224, 224))
PREPARATION = PreparationKeyInputs(
    source_digest="ab" * 32,
    profiles=(Profile(name="default", inputs={"images": SHAPES, "mask": SHAPES}),),
    precision=PrecisionPolicy(default=Precision.FP16, keep=("Softmax_*",)),
    calibration_digest="cd" * 32,
    verification_inputs={"images": InputValues(range=(0.0, 1.0)), "mask": InputValues(constant=1.0)},
)
ENGINE = EngineKeyInputs(
    preparation_key="ef" * 32,
    backend=Backend.TENSORRT,
    backend_version="10.13.3.9",
    cuda="12.9",
    gpu_product="NVIDIA-A100-SXM4-80GB",
    mig_profile="1g.10gb",
    flags={"optimizationLevel": "3", "versionCompatible": "true"},
    plugins=("12" * 32, "34" * 32),
)
# A change of these makes every stored engine and preparation unreachable: raise RECIPE_VERSION or a schema instead.
GOLDEN_PREPARATION = "55402945429b2f068f556585ce3c8f68b73364c3232e87f2eb13f64ae91987ed"
GOLDEN_ENGINE = "709a3fdc6f0ecb6511df7da842d73d36ba39bb8d666e41d007ee2ee19645344f"


def test_the_keys_of_known_inputs_never_change() -> None:
    assert preparation_key(PREPARATION) == GOLDEN_PREPARATION
    assert engine_key(ENGINE) == GOLDEN_ENGINE


def test_a_key_is_a_sha256_of_which_a_name_takes_the_beginning() -> None:
    assert len(engine_key(ENGINE)) == 64
    assert NAME_KEY_LENGTH == 20


ENGINE_CHANGES: dict[str, Any] = {
    "preparation_key": "00" * 32,
    "backend": Backend.TENSORRT_RTX,
    "backend_version": "10.13.3.10",
    "cuda": "13.0",
    "os": "windows",
    "arch": "arm64",
    "gpu_product": "NVIDIA-A30",
    "mig_profile": None,
    "provider": "openvino",
    "flags": {"optimizationLevel": "4", "versionCompatible": "true"},
    "plugins": ("34" * 32, "12" * 32),
    "epoch": 1,
}
PREPARATION_CHANGES: dict[str, Any] = {
    "source_digest": "00" * 32,
    "profiles": (),
    "precision": PrecisionPolicy(default=Precision.FP16),
    "calibration_digest": None,
    "verification_inputs": {"images": InputValues(range=(0.0, 2.0)), "mask": InputValues(constant=1.0)},
    "preprocess": (Preprocess(input="images", source="uint8-nhwc", mean=(0, 0, 0), std=(1, 1, 1)),),
    "recipe_version": PREPARATION.recipe_version + 1,
}


@pytest.mark.parametrize("field", EngineKeyInputs.model_fields)
def test_every_input_of_an_engine_changes_its_key(field: str) -> None:
    assert engine_key(ENGINE.model_copy(update={field: ENGINE_CHANGES[field]})) != GOLDEN_ENGINE


@pytest.mark.parametrize("field", PreparationKeyInputs.model_fields)
def test_every_input_of_a_preparation_changes_its_key(field: str) -> None:
    changed = PREPARATION.model_copy(update={field: PREPARATION_CHANGES[field]})
    assert preparation_key(changed) != GOLDEN_PREPARATION


@pytest.mark.parametrize(
    "precision",
    [
        PrecisionPolicy(default=Precision.BF16, keep=("Softmax_*",)),
        PrecisionPolicy(default=Precision.FP16, keep=("Softmax_*",), auto_keep=True),
        PrecisionPolicy(default=Precision.FP16, keep=("Softmax_*",), calibration=Calibration(source="file:///c")),
    ],
)
def test_every_part_of_the_precision_policy_changes_the_preparation(precision: PrecisionPolicy) -> None:
    assert preparation_key(PREPARATION.model_copy(update={"precision": precision})) != GOLDEN_PREPARATION


def test_calibration_data_counts_by_its_digest_wherever_it_is() -> None:
    def key(source: str, digest: str | None, held_out: float = 0.2) -> str:
        calibration = Calibration(source=source, digest=digest, held_out=held_out)
        policy = PrecisionPolicy(default=Precision.INT8, calibration=calibration)
        return preparation_key(PREPARATION.model_copy(update={"precision": policy}))

    assert key("s3://a/", None) == key("./b", "cd" * 32)
    assert key("s3://a/", None) != key("s3://a/", None, held_out=0.5)


def test_the_order_of_a_dict_changes_no_key() -> None:
    flags = dict(reversed(list(ENGINE.flags.items())))
    assert list(flags) != list(ENGINE.flags)
    assert engine_key(ENGINE.model_copy(update={"flags": flags})) == GOLDEN_ENGINE
    inputs = dict(reversed(list(PREPARATION.profiles[0].inputs.items())))
    verification = dict(reversed(list(PREPARATION.verification_inputs.items())))
    changes = {"profiles": (Profile(inputs=inputs),), "verification_inputs": verification}
    assert preparation_key(PREPARATION.model_copy(update=changes)) == GOLDEN_PREPARATION


def test_the_order_of_plugins_and_profiles_is_part_of_the_key() -> None:
    reordered = ENGINE.model_copy(update={"plugins": tuple(reversed(ENGINE.plugins))})
    assert engine_key(reordered) != GOLDEN_ENGINE


def test_an_unset_optional_input_is_the_same_as_one_that_is_none() -> None:
    bare = {"preparation_key": "ef" * 32, "backend": Backend.ONNXRUNTIME, "backend_version": "1.32.0"}
    assert engine_key(EngineKeyInputs(**bare)) == engine_key(EngineKeyInputs(**bare, cuda=None, mig_profile=None))


def test_a_key_survives_the_wire() -> None:
    assert engine_key(EngineKeyInputs.from_json(ENGINE.to_json())) == GOLDEN_ENGINE
    assert preparation_key(PreparationKeyInputs.from_json(PREPARATION.to_json())) == GOLDEN_PREPARATION
