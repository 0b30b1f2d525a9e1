"""Profiles against a model: every fault with its place, its value and the nearest one that would do."""

import pytest
import yaml

from enginesmith_contract.profile_checks import check_profiles, complete_profiles, find_missing_values
from enginesmith_contract.profile_suggestions import suggest_profile
from enginesmith_contract.profiles import Profile, ShapeRange, ValueRange
from enginesmith_contract.tensors import DType, ModelFacts, TensorSpec


def _facts(*inputs: TensorSpec) -> ModelFacts:
    return ModelFacts(inputs=inputs, outputs=(), opset=17, size_bytes=1)


def _range(low: list[int], best: list[int], high: list[int]) -> ShapeRange:
    return ShapeRange(min=tuple(low), opt=tuple(best), max=tuple(high))


IMAGES = TensorSpec(name="images", dtype=DType.FP32, shape=(-1, 3, -1, -1), symbols=("batch", None, None, None))
MASK = TensorSpec(name="mask", dtype=DType.BOOL, shape=(-1,), symbols=("batch",))
SCALE = TensorSpec(name="scale", dtype=DType.FP32, shape=(2,))
FACTS = _facts(IMAGES, MASK, SCALE)
GOOD = _range([1, 3, 32, 32], [4, 3, 64, 64], [8, 3, 96, 96])
BATCH = _range([1], [4], [8])


@pytest.mark.parametrize(
    ("inputs", "want"),
    [
        ({"images": GOOD, "mask": BATCH}, []),
        ({"images": GOOD, "mask": BATCH, "scale": _range([2], [2], [2])}, []),
        ({"images": GOOD}, [("MissingInput", "mask", None, "")]),
        ({"images": GOOD, "mask": BATCH, "Images": GOOD}, [("UnknownInput", "Images", None, "images")]),
        ({"images": GOOD, "mask": _range([1, 1], [4], [8])}, [("RankMismatch", "mask", None, "min: [batch]")]),
        (
            {"images": _range([1, 1, 32, 32], [4, 3, 64, 64], [8, 3, 96, 96]), "mask": BATCH},
            [("FixedDimension", "images", 1, "3")],
        ),
        (
            {"images": _range([1, 3, 32, 32], [4, 3, 16, 64], [8, 3, 96, 96]), "mask": BATCH},
            [("NotOrdered", "images", 2, "min 16, opt 32, max 96")],
        ),
        (
            {"images": GOOD, "mask": _range([1], [4], [16])},
            [("SymbolDisagrees", "mask", 0, "8")],
        ),
        (
            {"images": _range([-1, 3, 32, 32], [4, 3, 64, 64], [8, 3, 96, 96]), "mask": _range([-1], [4], [8])},
            [("NegativeDimension", "images", 0, "0"), ("NegativeDimension", "mask", 0, "0")],
        ),
    ],
)
def test_every_fault_names_tensor_dimension_and_nearest_value(
    inputs: dict[str, ShapeRange], want: list[tuple[str, str, int | None, str]]
) -> None:
    problems = check_profiles(FACTS, (Profile(inputs=inputs),))

    assert [(one.reason, one.tensor, one.dimension, one.nearest) for one in problems] == want


def test_a_sentence_has_all_that_its_reader_needs() -> None:
    wrong = _range([1, 3, 32, 32], [4, 3, 64, 64], [8, 4, 96, 96])

    (problem,) = check_profiles(FACTS, (Profile(name="big", inputs={"images": wrong, "mask": BATCH}),))

    want = "profile 'big', input 'images', dimension 1: max is 4, the model fixes it at 3; use 3"
    assert problem.sentence() == want


def test_a_dynamic_model_without_profiles_is_told_which_dimensions_are_open() -> None:
    (problem,) = check_profiles(FACTS, ())

    assert problem.reason == "ProfileMissing"
    assert "images [batch, 3, ?, ?]" in problem.found


def test_a_static_model_needs_no_profile_and_gets_its_own_shapes() -> None:
    facts = _facts(SCALE)

    assert check_profiles(facts, ()) == ()
    assert complete_profiles(facts, ()) == (Profile(inputs={"scale": _range([2], [2], [2])}),)


def test_a_static_input_is_filled_in_and_inputs_come_in_the_models_order() -> None:
    (profile,) = complete_profiles(FACTS, (Profile(inputs={"mask": BATCH, "images": GOOD}),))

    assert list(profile.inputs) == ["images", "mask", "scale"]


def test_two_profiles_of_one_name_are_found() -> None:
    same = Profile(inputs={"images": GOOD, "mask": BATCH})

    assert [one.reason for one in check_profiles(FACTS, (same, same))] == ["DuplicateProfile"]


@pytest.mark.parametrize(
    "inputs",
    [
        (IMAGES, MASK, SCALE),
        (TensorSpec(name="y", dtype=DType.INT64, shape=(-1, -1), symbols=("N", "seq_len")),),
        (
            TensorSpec(name="a", dtype=DType.FP32, shape=(2, -1), symbols=(None, "s")),
            TensorSpec(name="b", dtype=DType.FP32, shape=(-1,), symbols=("s",)),
        ),
        (TensorSpec(name="input:0", dtype=DType.FP32, shape=(-1, -1, -1, 3)),),
        (TensorSpec(name='"odd" #name', dtype=DType.FP32, shape=()), MASK),
    ],
)
def test_a_suggested_profile_is_valid_yaml_that_passes_the_checks(inputs: tuple[TensorSpec, ...]) -> None:
    facts = _facts(*inputs)

    (suggested,) = yaml.safe_load(suggest_profile(facts))["profiles"]

    assert check_profiles(facts, (Profile.model_validate(suggested),)) == ()


K = TensorSpec(name="k", dtype=DType.INT64, shape=(1,))


def _sizes(shape: list[int], low: list[int], best: list[int], high: list[int]) -> ShapeRange:
    values = ValueRange(min=tuple(low), opt=tuple(best), max=tuple(high))
    return _range(shape, shape, shape).model_copy(update={"values": values})


@pytest.mark.parametrize(
    ("spec", "sizes", "want"),
    [
        (K, _sizes([1], [1], [3], [5]), []),
        (TensorSpec(name="k", dtype=DType.INT32, shape=()), _sizes([], [-1], [3], [5]), []),
        (SCALE, _sizes([2], [1, 1], [1, 1], [1, 1]), ["ValuesNotInteger"]),
        (TensorSpec(name="k", dtype=DType.BF16, shape=(1,)), _sizes([1], [1], [1], [1]), ["ValuesNotInteger"]),
        (K, _sizes([1], [1, 1], [1], [1]), ["ValuesCount"]),
        (K, _sizes([1], [1], [0], [5]), ["ValuesNotOrdered"]),
        (TensorSpec(name="k", dtype=DType.UINT8, shape=(1,)), _sizes([1], [1], [3], [300]), ["ValuesOutOfType"]),
        (
            TensorSpec(name="k", dtype=DType.INT64, shape=(-1,)),
            _range([1], [1], [2]).model_copy(update={"values": ValueRange(min=(1,), opt=(1,), max=(1,))}),
            ["ValuesNeedOneShape"],
        ),
    ],
)
def test_a_range_of_values_fits_its_input(spec: TensorSpec, sizes: ShapeRange, want: list[str]) -> None:
    problems = check_profiles(_facts(spec), (Profile(inputs={spec.name: sizes}),))

    assert [one.reason for one in problems] == want


def test_an_input_that_holds_sizes_without_values_gets_an_entry_to_paste() -> None:
    facts = _facts(K, MASK).model_copy(update={"shape_inputs": ("k",)})

    (problem,) = find_missing_values(facts, (Profile(inputs={"mask": BATCH}),))

    assert problem.nearest == "k: {min: [1], opt: [1], max: [1], values: {min: [1], opt: [1], max: [1]}}"
    pasted = ShapeRange.model_validate(yaml.safe_load(problem.nearest)["k"])
    assert find_missing_values(facts, (Profile(inputs={"mask": BATCH, "k": pasted}),)) == ()
    assert [one.profile for one in find_missing_values(facts, ())] == ["default"]


def test_a_suggested_profile_is_indented_to_be_pasted_below_spec() -> None:
    text = "spec:\n" + suggest_profile(_facts(IMAGES, MASK, SCALE))

    assert yaml.safe_load(text)["spec"]["profiles"][0]["inputs"].keys() == {"images", "mask", "scale"}


def test_dimensions_whose_names_say_nothing_are_guessed_by_their_place() -> None:
    symbols = ("p2o.DynamicDimension.0", None, "p2o.DynamicDimension.1", "p2o.DynamicDimension.2")
    spec = TensorSpec(name="x", dtype=DType.FP32, shape=(-1, 3, -1, -1), symbols=symbols)

    assert "x: {min: [1, 3, 32, 32], opt: [4, 3, 320, 320], max: [8, 3, 640, 640]}" in suggest_profile(_facts(spec))
