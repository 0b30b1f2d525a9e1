"""What reference runs are fed with: the same everywhere, of the right type, and what the user asked for."""

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from enginesmith_contract.environment import CLAIMS_FOLDER
from enginesmith_contract.errors import SourceError, SpecError
from enginesmith_contract.preparation import ModelSource
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.tensors import DType, ModelFacts, TensorSpec
from enginesmith_contract.verification import InputValues
from enginesmith_runtime.prepare.jobs import Feed
from enginesmith_runtime.prepare.runs.input_files import InputFiles
from enginesmith_runtime.prepare.runs.inputs import check_values, fill_inputs, local_values, read_values
from enginesmith_runtime.progress import SilentReporter


@pytest.mark.parametrize("dtype", list(DType))
def test_every_dtype_is_filled_with_its_own_type_and_the_same_values_each_time(dtype: DType) -> None:
    feed = _feed(dtype)
    first = fill_inputs(feed, {"x": (3, 5)}, "seed")["x"]
    again = fill_inputs(feed, {"x": (3, 5)}, "seed")["x"]
    other = fill_inputs(feed, {"x": (3, 5)}, "another seed")["x"]
    assert (first.dtype, first.shape) == (dtype.numpy, (3, 5))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("values", "want_low", "want_high"),
    [
        pytest.param(None, 0, 1, id="by default between 0 and 1"),
        pytest.param(InputValues(range=(-4, 4)), -4, 4, id="a range"),
        pytest.param(InputValues(constant=7), 7, 7, id="a constant"),
    ],
)
@pytest.mark.parametrize("dtype", [DType.FP32, DType.FP16, DType.INT64])
def test_values_lie_where_the_user_says(
    values: InputValues | None, want_low: float, want_high: float, dtype: DType
) -> None:
    array = fill_inputs(_feed(dtype, values), {"x": (1000,)}, "seed")["x"]
    assert want_low <= array.min() <= array.max() <= want_high


def test_an_array_from_a_file_is_cropped_and_repeated_to_each_point(tmp_path: Path) -> None:
    image = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    np.savez(tmp_path / "in.npz", x=image)
    values = local_values({"x": InputValues(npz="in.npz")}, tmp_path, _no_fetch)
    feed = Feed(facts=_feed(DType.FP32).facts, values=values)
    filled = fill_inputs(feed, {"x": (2, 2, 5)}, "seed")["x"]
    np.testing.assert_array_equal(filled[0], [[0, 1, 2, 3, 0], [4, 5, 6, 7, 4]])
    np.testing.assert_array_equal(filled[1], filled[0])


@pytest.mark.parametrize(
    ("name", "array", "want_reason", "want_fragment"),
    [
        pytest.param("z", np.zeros((1, 4), np.float32), "InputNotInFile", "contains z", id="another name"),
        pytest.param("x", np.zeros((1, 9), np.float32), "InputDoesNotFit", "[1, 9]", id="a shape in no profile"),
        pytest.param("x", np.zeros((1, 4, 1), np.float32), "InputDoesNotFit", "[1, 4, 1]", id="another rank"),
        pytest.param("x", np.array([["a"] * 4]), "InputDoesNotFit", "<U1", id="another dtype"),
    ],
)
def test_an_array_that_does_not_fit_is_refused(
    tmp_path: Path, name: str, array: np.ndarray, want_reason: str, want_fragment: str
) -> None:
    np.savez(tmp_path / "in.npz", allow_pickle=True, **{name: array})
    values = local_values({"x": InputValues(npz="in.npz")}, tmp_path, _no_fetch)
    with pytest.raises(SpecError) as caught:
        check_values(Feed(facts=_feed(DType.FP32).facts, values=values), [_profile()])
    assert caught.value.reason == want_reason
    assert want_fragment in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        local_values({"x": InputValues(npz="none.npz")}, tmp_path, _no_fetch)
    assert caught.value.reason == "InputsNotFound"


def test_a_file_of_a_web_server_is_fetched(tmp_path: Path) -> None:
    served, folder = tmp_path / "served", tmp_path / "inputs"
    served.mkdir()
    folder.mkdir()
    np.savez(served / "in.npz", x=np.ones((1, 4), np.float32))
    handler = partial(SimpleHTTPRequestHandler, directory=str(served))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        source = ModelSource(uri="s3://models/m.onnx", options={"endpoint": "http://elsewhere"})
        files = InputFiles(folder=folder, source=source, reporter=SilentReporter())
        address = f"http://127.0.0.1:{server.server_port}"
        values = local_values({"x": InputValues(npz=f"{address}/in.npz")}, tmp_path, files.fetch)
        np.testing.assert_array_equal(read_values("x", Path(str(values["x"].npz))), np.ones((1, 4)))
        with pytest.raises(SourceError) as caught:
            local_values({"x": InputValues(npz=f"{address}/none.npz")}, tmp_path, files.fetch)
        server.shutdown()
    assert caught.value.reason == "NotFound"


def test_a_file_of_a_volume_is_read_where_the_pod_has_mounted_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "claims" / "samples").mkdir(parents=True)
    (tmp_path / "inputs").mkdir()
    np.savez(tmp_path / "claims" / "samples" / "in.npz", x=np.ones((1, 4), np.float32))
    monkeypatch.setenv(CLAIMS_FOLDER, str(tmp_path / "claims"))
    source = ModelSource(uri="s3://models/m.onnx")
    files = InputFiles(folder=tmp_path / "inputs", source=source, reporter=SilentReporter())
    values = local_values({"x": InputValues(npz="pvc://samples/in.npz")}, None, files.fetch)
    np.testing.assert_array_equal(read_values("x", Path(str(values["x"].npz))), np.ones((1, 4)))


def test_two_ways_to_fill_one_input_are_one_too_many() -> None:
    feed = _feed(DType.FP32, InputValues(constant=1, range=(0, 1)))
    with pytest.raises(SpecError, match="range and constant") as caught:
        check_values(feed, [_profile()])
    assert caught.value.reason == "InputValuesAmbiguous"


def _no_fetch(name: str, uri: str) -> Path:
    raise AssertionError(f"{name}: {uri} was fetched")


def _feed(dtype: DType, values: InputValues | None = None) -> Feed:
    spec = TensorSpec(name="x", dtype=dtype, shape=(-1, 4))
    facts = ModelFacts(inputs=(spec,), outputs=(spec,), opset=17, size_bytes=0)
    return Feed(facts=facts, values={} if values is None else {"x": values})


def _profile() -> Profile:
    return Profile(inputs={"x": ShapeRange(min=(1, 4), opt=(2, 4), max=(8, 4))})
