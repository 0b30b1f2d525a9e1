"""Names fit, stay, and never mean two things."""

import re

import pytest

from enginesmith_contract.backends import Backend
from enginesmith_contract.keys import EngineCandidate
from enginesmith_contract.preparation import ModelSource, PreparationRequest
from enginesmith_contract.preparation_job import PreparationJobRequest
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.verification import InputValues, VerificationPolicy
from enginesmith_operator.objects.names import (
    engine_build_name,
    headless_service_name,
    preparation_hash,
    preparation_job_name,
    target_name,
    target_service_name,
)

KEY = "0123456789abcdef" * 4
LONG = "a" + "-b" * 31
WANTED = PreparationRequest(source=ModelSource(uri="s3://m/m.onnx"))
REQUEST = PreparationJobRequest(preparation=WANTED, store="s3://engines")
SHAPES = ShapeRange(min=(1,), opt=(1,), max=(1,))


@pytest.mark.parametrize("engine", ["a", "resnet50", LONG, LONG[:62], "x" * 63])
@pytest.mark.parametrize("target", ["b", LONG, "y" * 63])
def test_every_name_is_a_dns_label(engine: str, target: str) -> None:
    names = [
        engine_build_name(engine, target, KEY),
        preparation_job_name(engine, REQUEST),
        target_name(engine, target),
        target_service_name(engine, target),
        headless_service_name(engine),
    ]

    assert [name for name in names if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name)] == []
    assert len(set(names)) == len(names) or target_service_name(engine, target) == target_name(engine, target)


def test_names_that_read_the_same_when_joined_differ() -> None:
    assert target_name("a-b", "c") != target_name("a", "b-c")
    assert target_name("x" * 60, "y" * 60) != target_name("x" * 60, "y" * 59 + "z")
    assert engine_build_name("x" * 63, "y", KEY) != engine_build_name("x" * 62 + "z", "y", KEY)


def test_a_service_has_the_name_that_people_type() -> None:
    assert target_service_name("resnet50", "a100") == "resnet50-a100"
    assert headless_service_name("resnet50") == "resnet50-headless"
    assert engine_build_name("resnet50", "a100", KEY) == f"resnet50-a100-{KEY[:20]}"


@pytest.mark.parametrize(
    "same",
    [
        REQUEST.model_copy(
            update={"candidates": (EngineCandidate(backend=Backend.ONNXRUNTIME, backend_version="1.32.0"),)}
        ),
        REQUEST.model_copy(update={"preparation": WANTED.model_copy(update={"tensorrt_versions": ("10.13.3.9",)})}),
        REQUEST.model_copy(
            update={"preparation": WANTED.model_copy(update={"verification": VerificationPolicy(limit=0.1)})}
        ),
    ],
)
def test_what_changes_no_preparation_prepares_nothing_anew(same: PreparationJobRequest) -> None:
    assert preparation_hash(same) == preparation_hash(REQUEST)


@pytest.mark.parametrize(
    "change",
    [
        {"source": ModelSource(uri="s3://m/other.onnx")},
        {"profiles": (Profile(inputs={"x": SHAPES}),)},
        {"verification": VerificationPolicy(inputs={"x": InputValues(constant=1.0)})},
    ],
)
def test_what_changes_the_preparation_has_another_name(change: dict[str, object]) -> None:
    other = REQUEST.model_copy(update={"preparation": WANTED.model_copy(update=change)})

    assert preparation_hash(other) != preparation_hash(REQUEST)
    assert preparation_hash(REQUEST, "second look") != preparation_hash(REQUEST)


@pytest.mark.parametrize("engine", ["resnet50", "e" * 63])
def test_a_target_called_headless_has_a_service_of_its_own(engine: str) -> None:
    assert target_service_name(engine, "headless") != headless_service_name(engine)
    assert len(target_service_name(engine, "headless")) <= 63
