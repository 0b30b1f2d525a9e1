"""Profiles held against real models: what the model says of itself, then what it does when it is run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from onnx import TensorProto, helper

from enginesmith_contract.errors import ModelError, SpecError
from enginesmith_contract.preparation import ExerciseStatus
from enginesmith_contract.profiles import Profile
from enginesmith_contract.tensors import DType
from enginesmith_runtime.store.interface import Store

Make = Callable[..., Any]
F = TensorProto.FLOAT


@pytest.mark.parametrize(
    ("points", "want_reason", "want_fragments"),
    [
        pytest.param(
            {"x": ((4, 3, 48, 192), (2, 3, 48, 192), (8, 3, 48, 192))},
            "NotOrdered", ["min 4, opt 2", "dimension 0"], id="min above opt",
        ),
        pytest.param(
            {"x": ((1, 3, 48), (1, 3, 48), (1, 3, 48))}, "RankMismatch", ["3 dimensions"], id="another rank"
        ),
        pytest.param(
            {"y": ((1, 3, 48, 192),) * 3}, "UnknownInput", ["no such input", "it has x"], id="a name that is no input"
        ),
        pytest.param(
            {"x": ((1, 4, 48, 192),) * 3}, "FixedDimension", ["fixes it at 3", "dimension 1"], id="a fixed dimension"
        ),
    ],
)  # fmt: skip
def test_a_profile_that_contradicts_the_model_is_refused_before_any_run(
    prepare_model: Make,
    make_profile: Make,
    ocr_models: Path,
    points: dict[str, Any],
    want_reason: str,
    want_fragments: list[str],
) -> None:
    with pytest.raises(SpecError) as caught:
        prepare_model(ocr_models / "cls.onnx", make_profile(**points))
    assert caught.value.reason == want_reason
    assert all(fragment in str(caught.value) for fragment in want_fragments), str(caught.value)


def test_inputs_that_share_a_dimension_must_agree(prepare_model: Make, make_profile: Make, make_model: Make) -> None:
    path = make_model(
        [helper.make_node("Add", ["a", "b"], ["y"])],
        inputs={"a": (F, ["n", 4]), "b": (F, ["n", 4])},
        outputs={"y": (F, ["n", 4])},
    )
    profile = make_profile(a=((1, 4), (2, 4), (4, 4)), b=((1, 4), (2, 4), (8, 4)))
    with pytest.raises(SpecError, match="'n'") as caught:
        prepare_model(path, profile)
    assert caught.value.reason == "SymbolDisagrees"


@pytest.mark.slow
@pytest.mark.parametrize("model", ["det", "cls"])
def test_a_dynamic_model_without_profiles_prints_one_that_works_when_pasted(
    prepare_model: Make, ocr_models: Path, model: str
) -> None:
    path = ocr_models / f"{model}.onnx"
    with pytest.raises(SpecError) as caught:
        prepare_model(path)
    assert caught.value.reason == "ProfileMissing"
    pasted = yaml.safe_load(caught.value.remedy.split("\n", maxsplit=1)[1])
    profiles = [Profile.model_validate(profile) for profile in pasted["profiles"]]
    preparation = prepare_model(path, *profiles)
    assert [entry.status for entry in preparation.exercises] == [ExerciseStatus.PASSED] * 3


def test_a_static_model_gets_its_own_shapes_as_a_profile(prepare_model: Make, make_model: Make) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    path = make_model(nodes, inputs={"x": (F, [2, 4])}, outputs={"y": (F, [2, 4])})
    preparation = prepare_model(path)
    assert [(profile.name, profile.inputs["x"].max) for profile in preparation.profiles] == [("default", (2, 4))]
    assert [entry.point for entry in preparation.exercises] == ["min", "opt", "max"]
    assert [entry.answer_bytes for entry in preparation.exercises] == [2 * 4 * 4] * 3
    assert len(preparation.references) == 3
    assert not preparation.batching.proved
    assert "fixed at 2" in preparation.batching.reason


@pytest.mark.slow
def test_a_height_that_the_model_refuses_is_named_with_one_that_works(
    prepare_model: Make, make_profile: Make, ocr_models: Path
) -> None:
    profile = make_profile(x=((1, 3, 48, 320), (1, 3, 48, 320), (2, 3, 96, 320)))
    with pytest.raises(ModelError) as caught:
        prepare_model(ocr_models / "rec.onnx", profile)
    assert caught.value.reason == "ProfileRefusedByModel"
    assert "profile 'default', max" in str(caught.value)
    assert "x [2, 3, 96, 320]" in str(caught.value)
    assert "Reshape node 'p2o.Reshape.79'" in caught.value.why
    assert "onnxruntime_src" not in str(caught.value)
    assert "dimension 2 of x the size 80, which works" in caught.value.remedy


def test_random_token_ids_stay_inside_the_embedding(
    prepare_model: Make, make_profile: Make, make_model: Make, store: Store, tmp_path: Path
) -> None:
    path = _embedding(make_model)
    profile = make_profile(ids=((1, 1), (2, 8), (4, 64)))
    preparation = prepare_model(path, profile)
    assert [entry.status for entry in preparation.exercises] == [ExerciseStatus.PASSED] * 3
    largest = next(reference for reference in preparation.references if reference.point == "max")
    ids = np.load(store.get_files([largest.file], tmp_path / "out"))["input:ids"]
    assert ids.dtype == DType.INT64.numpy
    assert ids.min() >= 0
    assert 2 < ids.max() < 11
    assert preparation.batching.proved


def test_a_range_that_leaves_the_embedding_is_refused(
    prepare_model: Make, make_profile: Make, make_model: Make
) -> None:
    path = _embedding(make_model)
    profile = make_profile(ids=((1, 1), (2, 8), (4, 64)))
    with pytest.raises(SpecError, match="table of 11 rows") as caught:
        prepare_model(path, profile, verification={"inputs": {"ids": {"range": (0, 30000)}}})
    assert caught.value.reason == "InputOutOfRange"


def _embedding(make_model: Make) -> Path:
    path: Path = make_model(
        [
            helper.make_node("Cast", ["ids"], ["ids32"], to=TensorProto.INT32),
            helper.make_node("Gather", ["table", "ids32"], ["y"]),
        ],
        inputs={"ids": (TensorProto.INT64, ["batch", "sequence"])},
        outputs={"y": (F, ["batch", "sequence", 4])},
        weights={"table": np.arange(44, dtype=np.float32).reshape(11, 4)},
    )
    return path
