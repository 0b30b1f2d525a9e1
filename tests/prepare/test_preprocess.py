"""`model.preprocess`: clients send pixels, and the model answers as it does to values that the client normalised."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, checker, helper

from enginesmith_contract.backends import Precision, PrecisionPolicy
from enginesmith_contract.errors import SpecError
from enginesmith_contract.preparation import Preparation
from enginesmith_contract.preprocess import NODES, Preprocess, client_facts
from enginesmith_contract.profiles import Profile
from enginesmith_contract.tensors import DType
from enginesmith_contract.verification import InputValues, VerificationPolicy
from enginesmith_runtime.prepare.model_file.facts import inspect_model
from enginesmith_runtime.store.interface import Store

MakeModel = Callable[..., Path]
MakeProfile = Callable[..., Profile]
Prepare = Callable[..., Preparation]
Array = np.ndarray[Any, Any]

F = TensorProto.FLOAT
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET = Preprocess(input="x", source="uint8-nhwc", mean=MEAN, std=STD)
POINTS = ((1, 8, 8, 3), (2, 8, 12, 3), (4, 16, 16, 3))
RANDOM = np.random.default_rng(5)
KERNEL = (RANDOM.standard_normal((4, 3, 3, 3)) / 5).astype(np.float32)


@pytest.fixture
def classifier(make_model: MakeModel) -> Callable[..., Path]:
    """Return a writer of a convolution with a mean per image: `classifier(dtype, shape)`."""

    def write(dtype: int = F, shape: Sequence[object] = ("n", 3, "h", "w"), name: str = "model.onnx") -> Path:
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["c"], name="first", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["r"], name="relu"),
            helper.make_node("GlobalAveragePool", ["r"], ["y"], name="pool"),
        ]
        weights = {"w": KERNEL.astype(helper.tensor_dtype_to_np_dtype(dtype))}
        outputs = {"y": (dtype, (shape[0], 4, 1, 1))}
        return make_model(nodes, inputs={"x": (dtype, shape)}, outputs=outputs, weights=weights, name=name, opset=22)

    return write


@pytest.mark.parametrize(
    ("entry", "want"),
    [
        pytest.param(IMAGENET, lambda p: (p / 255 - np.array(MEAN)) / np.array(STD), id="pixels in [0, 1] by default"),
        pytest.param(
            Preprocess(input="x", source="uint8-nhwc", mean=(123.675, 116.28, 103.53), std=(58.4, 57.1, 57.4), scale=1),
            lambda p: (p - np.array([123.675, 116.28, 103.53])) / np.array([58.4, 57.1, 57.4]),
            id="pixels in [0, 255]",
        ),
        pytest.param(
            Preprocess(input="x", source="uint8-nhwc", mean=(1, 1, 1), std=(1, 1, 1), scale=1 / 127.5),
            lambda p: p / 127.5 - 1,
            id="pixels in [-1, 1]",
        ),
    ],
)
def test_the_prepared_model_answers_pixels_as_the_original_answers_normalised_values(
    classifier: Callable[..., Path],
    prepare_model: Prepare,
    make_profile: MakeProfile,
    store: Store,
    tmp_path: Path,
    entry: Preprocess,
    want: Callable[[Array], Array],
) -> None:
    path = classifier()
    preparation = prepare_model(path, make_profile(x=POINTS), preprocess=(entry,))
    model = store.get_files(preparation.model, tmp_path / "prepared")
    checker.check_model(str(model), full_check=True)
    pixels = RANDOM.integers(0, 256, (2, 8, 12, 3), dtype=np.uint8)
    normalised = np.transpose(want(pixels.astype(np.float64)), (0, 3, 1, 2)).astype(np.float32)
    np.testing.assert_allclose(_run(model, x=pixels), _run(path, x=normalised), rtol=1e-5, atol=1e-6)


def test_clients_see_pixels_and_the_references_are_made_of_them(
    classifier: Callable[..., Path], prepare_model: Prepare, make_profile: MakeProfile, store: Store, tmp_path: Path
) -> None:
    preparation = prepare_model(classifier(), make_profile(x=POINTS), preprocess=(IMAGENET,))
    (spec,) = preparation.facts.inputs
    assert (spec.name, spec.dtype, spec.shape) == ("x", DType.UINT8, (-1, -1, -1, 3))
    assert spec.symbols == ("n", "h", "w", None)
    assert preparation.batching.proved
    for reference in preparation.references:
        with np.load(store.get_files([reference.file], tmp_path / reference.point)) as archive:
            assert archive["input:x"].dtype == np.uint8
            assert archive["input:x"].max() > 200


def test_a_picture_from_a_file_is_used_as_pixels(
    classifier: Callable[..., Path], prepare_model: Prepare, make_profile: MakeProfile, store: Store, tmp_path: Path
) -> None:
    picture = RANDOM.integers(0, 256, POINTS[2], dtype=np.uint8)
    np.savez(tmp_path / "picture.npz", x=picture)
    policy = VerificationPolicy(inputs={"x": InputValues(npz="picture.npz")})
    preparation = prepare_model(classifier(), make_profile(x=POINTS), preprocess=(IMAGENET,), verification=policy)
    reference = next(one for one in preparation.references if one.point == "max")
    with np.load(store.get_files([reference.file], tmp_path / "reference")) as archive:
        np.testing.assert_array_equal(archive["input:x"], picture)


@pytest.mark.parametrize("dtype", [TensorProto.BFLOAT16, TensorProto.FLOAT16])
def test_a_model_of_another_float_type_gets_its_own_type(
    classifier: Callable[..., Path], prepare_model: Prepare, make_profile: MakeProfile, dtype: int
) -> None:
    preparation = prepare_model(classifier(dtype), make_profile(x=POINTS), preprocess=(IMAGENET,))
    assert preparation.facts.inputs[0].dtype is DType.UINT8


def test_a_model_with_an_fp16_input_may_compute_in_fp32(
    make_model: MakeModel, prepare_model: Prepare, make_profile: MakeProfile
) -> None:
    path = make_model(
        [helper.make_node("Cast", ["x"], ["f"], to=F), helper.make_node("Conv", ["f", "w"], ["y"])],
        inputs={"x": (TensorProto.FLOAT16, ("n", 3, "h", "w"))},
        outputs={"y": (F, ("n", 4, None, None))},
        weights={"w": KERNEL},
    )
    assert prepare_model(path, make_profile(x=POINTS), preprocess=(IMAGENET,)).facts.inputs[0].dtype is DType.UINT8


def test_in_fp16_the_normalisation_stays_in_fp32_and_the_model_is_cast_as_without_it(
    classifier: Callable[..., Path], prepare_model: Prepare, make_profile: MakeProfile, store: Store, tmp_path: Path
) -> None:
    policy = PrecisionPolicy(default=Precision.FP16)
    preparation = prepare_model(classifier(), make_profile(x=POINTS), preprocess=(IMAGENET,), precision=policy)
    floats = tuple((n, 3, h, w) for n, h, w, _ in POINTS)
    known = {"inputs": {"x": {"constant": 0.5}}}  # pixels are of a known size as well
    plain = prepare_model(classifier(), make_profile(x=floats), precision=policy, verification=known)
    assert {name for name in preparation.kept if not name.startswith(NODES)} == plain.kept.keys()
    assert preparation.warnings[0].startswith("FP16 was judged on generated values of x")
    assert preparation.warnings[1:] == plain.warnings
    model = onnx.load(store.get_files(preparation.model, tmp_path / "prepared"))
    values = {value.name: value for value in onnx.shape_inference.infer_shapes(model).graph.value_info}
    types = {
        node.op_type: values[node.output[0]].type.tensor_type.elem_type
        for node in model.graph.node
        if node.name.startswith(NODES)
    }
    assert types == dict.fromkeys(("Cast", "Transpose", "Sub", "Mul"), F)


def test_each_of_several_inputs_has_its_own_normalisation_and_others_stay(
    make_model: MakeModel, prepare_model: Prepare, make_profile: MakeProfile, store: Store, tmp_path: Path
) -> None:
    shape = ("n", 3, 4, 4)
    nodes = [helper.make_node("Sum", ["a", "b", "c"], ["y"], name="sum")]
    path = make_model(nodes, inputs=dict.fromkeys("abc", (F, shape)), outputs={"y": (F, shape)})
    entries = (
        Preprocess(input="c", source="uint8-nhwc", mean=(0, 0, 0), std=(1, 1, 1)),
        Preprocess(input="a", source="uint8-nhwc", mean=(0, 0, 0), std=(2, 2, 2), scale=1),
    )
    points, image = ((1, 3, 4, 4),) * 3, ((1, 4, 4, 3),) * 3
    preparation = prepare_model(path, make_profile(a=image, b=points, c=image), preprocess=entries)
    assert [spec.dtype for spec in preparation.facts.inputs] == [DType.UINT8, DType.FP32, DType.UINT8]
    model = store.get_files(preparation.model, tmp_path / "prepared")
    feed: dict[str, Array] = {"a": np.full((1, 4, 4, 3), 100, np.uint8), "b": np.ones((1, 3, 4, 4), np.float32)}
    found = _run(model, **feed, c=np.full((1, 4, 4, 3), 51, np.uint8))
    np.testing.assert_allclose(found, 50 + 1 + 0.2, rtol=1e-6)


def test_inner_graphs_read_the_normalised_values(
    make_model: MakeModel, prepare_model: Prepare, store: Store, tmp_path: Path
) -> None:
    inner = [
        helper.make_graph([helper.make_node(op, ["x"], [op])], op, [], [helper.make_tensor_value_info(op, F, None)])
        for op in ("Relu", "Neg")
    ]
    node = helper.make_node("If", ["positive"], ["y"], name="if", then_branch=inner[0], else_branch=inner[1])
    inputs = {"x": (F, (1, 3, 2, 2)), "positive": (TensorProto.BOOL, ())}
    path = make_model([node], inputs=inputs, outputs={"y": (F, (1, 3, 2, 2))})
    preparation = prepare_model(path, preprocess=(IMAGENET,))
    model = store.get_files(preparation.model, tmp_path / "prepared")
    found = _run(model, x=np.zeros((1, 2, 2, 3), np.uint8), positive=np.array(False))
    np.testing.assert_allclose(found[0, :, 0, 0], np.array(MEAN) / np.array(STD), rtol=1e-6)


def test_a_channel_dimension_that_the_model_leaves_open_gets_the_length_of_mean(
    make_model: MakeModel, prepare_model: Prepare, make_profile: MakeProfile
) -> None:
    shape = ("n", "c", "h", "w")
    path = make_model([helper.make_node("Relu", ["x"], ["y"])], inputs={"x": (F, shape)}, outputs={"y": (F, shape)})
    preparation = prepare_model(path, make_profile(x=POINTS), preprocess=(IMAGENET,))
    assert preparation.facts.inputs[0].shape == (-1, -1, -1, 3)


def test_weights_outside_the_file_come_along(
    classifier: Callable[..., Path], prepare_model: Prepare, make_profile: MakeProfile, store: Store, tmp_path: Path
) -> None:
    path = classifier(name="inside.onnx")
    outside = tmp_path / "outside.onnx"
    onnx.save(
        onnx.load(path), outside, save_as_external_data=True, location="weights.bin", size_threshold=0,
        convert_attribute=False,
    )  # fmt: skip
    with outside.with_name("weights.bin").open("r+b") as file:
        file.truncate(4096 * 4)  # above the size that is moved into the file
    preparations = [prepare_model(each, make_profile(x=POINTS), preprocess=(IMAGENET,)) for each in (path, outside)]
    pixels = RANDOM.integers(0, 256, POINTS[0], dtype=np.uint8)
    one, other = (
        _run(store.get_files(each.model, tmp_path / name, private=True), x=pixels)
        for each, name in zip(preparations, "ab", strict=True)
    )
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("changes", "want_reason", "want_fragment"),
    [
        pytest.param({"input": "X"}, "UnknownInput", "it has x, ids, flat", id="unknown input"),
        pytest.param({"input": "ids"}, "PreprocessDoesNotFit", "INT64", id="no float"),
        pytest.param({"input": "flat"}, "PreprocessDoesNotFit", "[n, c, h, w]", id="rank"),
        pytest.param({"mean": (0.5,)}, "PreprocessDoesNotFit", "mean does not fit", id="length of mean"),
        pytest.param({"std": (0.5,) * 4}, "PreprocessDoesNotFit", "std does not fit", id="length of std"),
        pytest.param({"mean": (123.0, 116.0, 103.0)}, "PreprocessDoesNotFit", "Set scale: 1", id="unit of mean"),
    ],
)
def test_an_entry_that_does_not_fit_the_model_is_refused(
    make_model: MakeModel, changes: Mapping[str, Any], want_reason: str, want_fragment: str
) -> None:
    facts = inspect_model(_three_inputs(make_model))
    with pytest.raises(SpecError) as caught:
        client_facts(facts, (IMAGENET.model_copy(update=changes),))
    assert caught.value.reason == want_reason
    assert want_fragment in str(caught.value)


def test_two_entries_for_one_input_are_refused(make_model: MakeModel, prepare_model: Prepare) -> None:
    with pytest.raises(SpecError, match="two entries"):
        prepare_model(_three_inputs(make_model), preprocess=(IMAGENET, IMAGENET))


def test_profiles_of_the_model_s_own_layout_are_refused_with_the_new_one(
    classifier: Callable[..., Path], prepare_model: Prepare, make_profile: MakeProfile
) -> None:
    old = tuple((n, 3, h, w) for n, h, w, _ in POINTS)
    with pytest.raises(SpecError) as caught:
        prepare_model(classifier(), make_profile(x=old), preprocess=(IMAGENET,))
    assert caught.value.reason == "FixedDimension"
    assert "x has the shape [n, h, w, 3]" in str(caught.value)


def _three_inputs(make_model: MakeModel) -> Path:
    inputs = {"x": (F, (1, 3, 4, 4)), "ids": (TensorProto.INT64, (1, 3, 4, 4)), "flat": (F, (1, 3))}
    nodes = [
        helper.make_node("Cast", ["ids"], ["i"], to=F),
        helper.make_node("Add", ["x", "i"], ["s"]),
        helper.make_node("ReduceSum", ["flat"], ["f"]),
        helper.make_node("Add", ["s", "f"], ["y"]),
    ]
    return make_model(nodes, inputs=inputs, outputs={"y": (F, None)})


def _run(model: Path, **inputs: Array) -> Array:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, inputs)[0])
