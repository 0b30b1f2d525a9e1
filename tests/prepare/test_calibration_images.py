"""Calibration data in images: which pixels a model gets, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.prepare.test_calibration_data import NORMALISED, PICTURE, PIXELS, Read, X, data, facts_of, read, write_folder

from enginesmith_contract.calibration import Calibration, ImageReading
from enginesmith_contract.errors import SpecError
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_runtime.prepare.quantize.jobs import Data
from enginesmith_runtime.prepare.quantize.samples import open_data

__all__ = ["data", "read"]


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_images_become_pixels_of_a_model_with_a_normalisation(data: Path, read: Read, channels: str) -> None:
    for number in range(16):
        Image.new("RGBA", (20 + number, 10), (10, 20, number, 99)).save(data / f"{number}.png")
    profile = Profile(inputs={"x": ShapeRange(min=(1, 8, 8, 3), opt=(1, 8, 8, 3), max=(1, 32, 64, 3))})
    images = {"channels": channels}
    found = read(data, (PIXELS,), [profile], preprocess=[NORMALISED], images=images)
    assert found["5"]["x"].shape == (1, 10, 25, 3)
    assert found["5"]["x"][0, 0, 0].tolist() == ([10, 20, 5] if channels == "rgb" else [5, 20, 10])
    scaled = read(data, (PIXELS,), [profile], preprocess=[NORMALISED], images={**images, "size": (8, 16)})
    assert {array["x"].shape for array in scaled.values()} == {(1, 8, 16, 3)}


def test_an_image_of_another_size_is_refused_with_the_field_to_set(data: Path, read: Read) -> None:
    for number in range(16):
        Image.new("RGB", (8, 100)).save(data / f"{number}.png")
    with pytest.raises(SpecError, match=r"0\.png.*calibration\.images\.size"):
        read(data, images={"mean": (0.5,) * 3, "std": (0.5,) * 3})


def test_images_are_normalised_as_declared_for_a_model_of_floats(data: Path, read: Read) -> None:
    for number in range(16):
        Image.new("L", (8, 8), 51).save(data / f"{number}.bmp")
    images = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.25, 0.1), "size": (4, 8)}
    found = read(data, images=images)["3"]["x"]
    assert found.shape == (1, 3, 4, 8)
    assert np.allclose(found[0, :, 0, 0], [-0.6, -1.2, -3.0], atol=1e-6)


@pytest.mark.parametrize("values", [1, 2, 4])
def test_a_normalisation_for_another_number_of_channels_is_refused(data: Path, read: Read, values: int) -> None:
    for number in range(16):
        Image.new("RGB", (8, 4)).save(data / f"{number}.png")
    images = {"mean": [0.5] * values, "std": [0.5] * values}
    with pytest.raises(SpecError, match=f"mean has {values} values, and input x has 3 channels"):
        read(data, images=images)


def test_a_file_that_is_no_image_is_refused_without_the_reader_s_words(data: Path, read: Read) -> None:
    for number in range(16):
        (data / f"{number}.png").write_bytes(b"hello")
    with pytest.raises(SpecError, match=r"0\.png: .*: it is not an image") as refused:
        read(data, images={"mean": [0.5] * 3, "std": [0.5] * 3})
    assert refused.value.reason == "CalibrationDataUnreadable"


def test_an_order_of_channels_is_refused_where_there_is_one_channel(data: Path, read: Read) -> None:
    for number in range(16):
        Image.new("L", (8, 8), 51).save(data / f"{number}.png")
    grey = TensorSpec(name="x", dtype=DType.FP32, shape=(-1, 1, -1, -1))
    with pytest.raises(SpecError, match=r"0\.png.*no order of channels.*calibration\.images\.channels"):
        read(data, (grey,), images={"mean": (0.5,), "std": (0.5,), "channels": "bgr"})


def test_a_conversion_of_images_without_an_image_is_refused(data: Path, tmp_path: Path) -> None:
    write_folder(data)
    images = ImageReading(mean=(0.5,) * 3, std=(0.5,) * 3)
    given = Data(path=str(data), calibration=Calibration(source="", images=images), profiles=(PICTURE,), batched=True)
    with pytest.raises(SpecError, match=r"calibration\.images has no effect.*no used file is an image"):
        open_data(given, facts_of(X), tmp_path).__enter__()
    Image.new("RGB", (8, 4)).save(data / "part" / "s00.png")
    (data / "part" / "s00.npy").unlink()
    with open_data(given, facts_of(X), tmp_path) as samples:
        assert len(samples.names) == 20


def test_the_input_of_images_must_be_one_of_the_model(data: Path, read: Read) -> None:
    write_folder(data)
    with pytest.raises(SpecError, match=r"calibration\.images\.input.*no input 'nosuch'.*inputs are x"):
        read(data, images={"input": "nosuch", "mean": (0.5,) * 3, "std": (0.5,) * 3})


@pytest.mark.parametrize("field", ["mean", "std", "scale"])
def test_a_normalisation_of_pixels_is_refused_where_the_model_has_its_own(data: Path, read: Read, field: str) -> None:
    for number in range(16):
        Image.new("RGB", (8, 8)).save(data / f"{number}.png")
    profile = Profile(inputs={"x": ShapeRange(min=(1, 8, 8, 3), opt=(1, 8, 8, 3), max=(1, 8, 8, 3))})
    value: Any = 0.5 if field == "scale" else (0.5,) * 3
    with pytest.raises(SpecError, match=rf"calibration\.images\.{field} has no effect"):
        read(data, (PIXELS,), [profile], preprocess=[NORMALISED], images={field: value})
