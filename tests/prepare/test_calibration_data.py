"""Samples of calibration data: every form of files, divided into samples, one in memory at a time."""

import io
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enginesmith_contract.calibration import Calibration
from enginesmith_contract.errors import SpecError
from enginesmith_contract.preprocess import PixelLayout, Preprocess
from enginesmith_contract.profiles import Profile, ShapeRange, ValueRange
from enginesmith_contract.tensors import DType, ModelFacts, TensorSpec
from enginesmith_runtime.prepare.quantize.sample_files import select_files
from enginesmith_runtime.prepare.quantize.samples import Samples, open_samples

Arrays = Mapping[str, np.ndarray[Any, Any]]
X = TensorSpec(name="x", dtype=DType.FP32, shape=(-1, 3, -1, -1))
IDS = TensorSpec(name="ids", dtype=DType.INT64, shape=(-1, -1))
MASK = TensorSpec(name="mask/0", dtype=DType.FP32, shape=(-1, -1))
PIXELS = TensorSpec(name="x", dtype=DType.UINT8, shape=(-1, -1, -1, 3))
PICTURE = Profile(inputs={"x": ShapeRange(min=(1, 3, 4, 4), opt=(1, 3, 8, 8), max=(4, 3, 8, 64))})
TEXT = Profile(inputs={name: ShapeRange(min=(1, 1), opt=(1, 8), max=(4, 16)) for name in ("ids", "mask/0")})
NORMALISED = Preprocess(input="x", source=PixelLayout.UINT8_NHWC, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
Read = Callable[..., dict[str, dict[str, np.ndarray[Any, Any]]]]


def facts_of(*inputs: TensorSpec) -> ModelFacts:
    return ModelFacts(inputs=inputs, outputs=(), opset=17, size_bytes=1)


def picture(seed: int, *shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(shape or (1, 3, 4, 8), dtype=np.float32)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Return a reader of all samples: by name, each with its inputs by name."""

    def run(
        path: Path, inputs: Sequence[TensorSpec] = (X,), profiles: Sequence[Profile] = (PICTURE,), **fields: Any
    ) -> dict[str, dict[str, np.ndarray[Any, Any]]]:
        options = {key: fields.pop(key) for key in ("preprocess", "batched") if key in fields}
        calibration = Calibration.model_validate({"source": str(path), **fields})
        with open_samples(
            calibration, path, facts=facts_of(*inputs), profiles=profiles, scratch=tmp_path, **options
        ) as samples:
            found = dict(samples.read())
            assert set(found) == set(samples.names)
            return found

    return run


def write_folder(folder: Path, count: int = 20) -> dict[str, np.ndarray[Any, Any]]:
    arrays = {f"part/s{number:02}": picture(number) for number in range(count)}
    (folder / "part").mkdir()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "README.md").write_text("not data")
    (folder / ".hidden.npy").write_text("not data")
    return arrays


def pack(folder: Path, target: Path) -> Path:
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(folder.rglob("*.np?"), reverse=True):
                archive.write(file, file.relative_to(folder))
        return target
    mode: Any = "w" if target.suffix == ".tar" else f"w:{target.suffix[1:]}"
    with tarfile.open(target, mode) as tar:
        for file in sorted(folder.rglob("*.np?"), reverse=True):
            tar.add(file, f"./{file.relative_to(folder)}")
    return target


@pytest.mark.parametrize("suffix", ["", ".zip", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz"])
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_a_folder_and_its_archives_hold_the_same_samples(
    data: Path, tmp_path: Path, read: Read, suffix: str, kind: str
) -> None:
    arrays = write_folder(data)
    if kind == "npz":
        for name, array in arrays.items():
            (data / f"{name}.npy").unlink()
            np.savez_compressed(data / f"{name}.npz", x=array, label=np.array("text"))
    path = pack(data, tmp_path / f"data{suffix}") if suffix else data
    found = read(path)
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name]["x"], array) for name, array in arrays.items())


def test_rows_of_a_batch_are_samples_and_shapes_may_differ_between_files(data: Path, read: Read) -> None:
    wide, narrow = picture(1, 10, 3, 4, 64), picture(2, 10, 3, 8, 4)
    np.save(data / "narrow.npy", narrow)
    np.savez(data / "wide.npz", x=np.asfortranarray(wide))
    found = read(data)
    assert len(found) == 20
    assert np.array_equal(found["narrow[3]"]["x"], narrow[3:4])
    assert np.array_equal(found["wide[9]"]["x"], wide[9:])


def test_rows_that_are_no_samples_stay_together_where_they_fit(data: Path, read: Read) -> None:
    for number in range(16):
        np.save(data / f"{number}.npy", picture(number, 4, 3, 4, 4))
    assert {array["x"].shape for array in read(data, batched=False).values()} == {(4, 3, 4, 4)}
    assert len(read(data)) == 64
    np.save(data / "long.npy", picture(99, 11, 3, 4, 4))
    found = read(data, batched=False)
    assert {name for name in found if name.startswith("long")} == {"long[0]", "long[1]"}
    assert {array["x"].shape for array in found.values()} == {(4, 3, 4, 4)}


def test_a_model_with_a_fixed_batch_gets_batches_of_that_size(data: Path, read: Read) -> None:
    np.save(data / "all.npy", picture(1, 35, 3, 4, 4))
    fixed = Profile(inputs={"x": ShapeRange(min=(2, 3, 4, 4), opt=(2, 3, 4, 4), max=(2, 3, 4, 4))})
    for batched in (False, True):
        found = read(data / "all.npy", profiles=[fixed], batched=batched)
        assert len(found) == 17
        assert found["all[16]"]["x"].shape == (2, 3, 4, 4)


def test_a_picture_without_the_batch_axis_gets_one(data: Path, read: Read) -> None:
    for number in range(16):
        np.save(data / f"{number}.npy", picture(number, 3, 4, 4))
    assert read(data)["7"]["x"].shape == (1, 3, 4, 4)


def test_several_inputs_come_from_one_npz_or_from_files_with_their_names(data: Path, read: Read) -> None:
    ids, mask = np.arange(24, dtype=np.int32).reshape(3, 8), np.ones((3, 8), np.float64)
    for number in range(8):
        arrays: dict[str, Any] = {"ids": ids[:1], "mask/0": mask[:1]}
        np.savez(data / f"a{number}.npz", **arrays)
        np.save(data / f"b{number}.ids.npy", ids[:1])
        (data / f"b{number}.mask_0.bin").write_bytes(mask[:1].astype(np.float32).tobytes())
    profile = Profile(inputs={name: ShapeRange(min=(1, 8), opt=(1, 8), max=(4, 8)) for name in ("ids", "mask/0")})
    found = read(data, (IDS, MASK), [profile])
    assert len(found) == 16
    for sample in found.values():
        assert sample["ids"].dtype == np.int64
        assert sample["mask/0"].dtype == np.float32
        assert sample["ids"].tolist() == [list(range(8))]
        assert sample["mask/0"].tolist() == [[1.0] * 8]


def test_text_and_bfloat16_are_read_as_the_model_takes_them(data: Path, read: Read) -> None:
    specs = (TensorSpec(name="t", dtype=DType.BYTES, shape=(-1,)), TensorSpec(name="b", dtype=DType.BF16, shape=(-1,)))
    profile = Profile(inputs={name: ShapeRange(min=(1,), opt=(1,), max=(1,)) for name in "tb"})
    np.savez(data / "all.npz", t=np.array(["ü"] * 16), b=np.ones(16, np.float32))
    found = read(data, specs, [profile])
    assert found["all[3]"]["t"].tolist() == ["ü"]
    assert found["all[3]"]["b"].tolist() == [0x3F80]


def test_the_first_samples_by_name_are_used_and_divided_in_the_same_way_each_time(data: Path, tmp_path: Path) -> None:
    arrays = write_folder(data, 40)
    calibration = Calibration(source=str(data), max_samples=20, held_out=0.25)

    def split(path: Path) -> tuple[Samples, set[str], set[str]]:
        with open_samples(calibration, path, facts=facts_of(X), profiles=[PICTURE], scratch=tmp_path) as samples:
            found = samples.split()
            assert [name for name, _ in samples.read(found.held_out)] == list(found.held_out)
            return samples, set(found.calibration), set(found.held_out)

    samples, calibrated, held_out = split(data)
    assert samples.names == tuple(sorted(arrays)[:20])
    assert (len(calibrated), len(held_out), calibrated & held_out) == (15, 5, set())
    assert split(pack(data, tmp_path / "data.zip"))[1:] == (calibrated, held_out)


def test_a_share_that_leaves_nothing_to_calibrate_with_is_refused(data: Path, tmp_path: Path) -> None:
    write_folder(data, 40)
    calibration = Calibration(source=str(data), held_out=0.95)
    with (
        open_samples(calibration, data, facts=facts_of(X), profiles=[PICTURE], scratch=tmp_path) as samples,
        pytest.raises(SpecError, match=r"heldOut: .*: 0\.95 leaves 2 of 40") as refused,
    ):
        samples.split()
    assert refused.value.reason == "CalibrationTooFewSamples"


def test_only_the_files_of_the_samples_that_are_used_are_selected() -> None:
    names = [f"{folder}/s{number}.{end}" for folder in "ab" for number in range(16) for end in ("ids.npy", "mask.bin")]
    calibration = Calibration(source="x", max_samples=17)
    found = select_files([*reversed(names), "a/notes.txt", ".cache/a.npy"], calibration)
    assert found == [*(sorted(name for name in names if name.startswith("a/"))), "b/s0.ids.npy", "b/s0.mask.bin"]


def test_a_batch_of_any_size_takes_the_memory_of_one_sample(data: Path, read: Read) -> None:
    with (data / "all.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (20_000_000, 3, 8, 64)}
        )
        file.truncate(file.tell() + 20_000_000 * 3 * 8 * 64 * 4)
    tracemalloc.start()
    found = read(data, max_samples=16)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == 16
    assert peak < 32 << 20


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_an_archive_is_never_in_memory_as_a_whole(data: Path, tmp_path: Path, suffix: str) -> None:
    profile = Profile(inputs={"x": ShapeRange(min=(1, 3, 4, 4), opt=(1, 3, 4, 4), max=(1, 3, 512, 512))})
    for number in range(16):
        np.save(data / f"{number}.npy", np.full((1, 3, 512, 512), number, np.float32))
    path = pack(data, tmp_path / f"data{suffix}")
    calibration = Calibration(source=str(path))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    tracemalloc.start()
    with open_samples(calibration, path, facts=facts_of(X), profiles=[profile], scratch=scratch) as samples:
        seen = {name: float(arrays["x"].mean()) for name, arrays in samples.read()}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == {str(number): float(number) for number in range(16)}
    assert peak < 16 << 20
    assert not list(scratch.iterdir())


def _replace(data: Path, array: np.ndarray[Any, Any]) -> None:
    np.save(data / "part/s07.npy", array)


def _truncate(data: Path) -> None:
    file = data / "part/s07.npy"
    file.write_bytes(file.read_bytes()[:-5])


def _npz(data: Path, **arrays: np.ndarray[Any, Any]) -> None:
    (data / "part/s07.npy").unlink()
    np.savez(data / "part/s07.npz", **arrays)  # type: ignore[arg-type]  # the stub takes a keyword for one of them


def _with_nan() -> np.ndarray[Any, Any]:
    array = picture(7)
    array[0, 1, 2, 3] = np.nan
    return array


@pytest.mark.parametrize(
    ("spoil", "want_reason", "want_words"),
    [
        (lambda data: _replace(data, picture(7, 1, 3, 9, 8)), "DoesNotFit", ["s07.npy", "[1, 3, 9, 8]", "'default'"]),
        (lambda data: _replace(data, picture(7, 1, 4, 4, 8)), "DoesNotFit", ["s07.npy", "[1, 4, 4, 8]"]),
        (lambda data: _replace(data, picture(7).astype(complex)), "DoesNotFit", ["s07.npy", "complex128", "x"]),
        (lambda data: _replace(data, picture(7).astype("U4")), "DoesNotFit", ["s07.npy", "<U4", "x"]),
        (lambda data: _replace(data, _with_nan()), "DoesNotFit", ["s07.npy", "x", "NaN"]),
        (lambda data: _replace(data, np.full((1, 3, 4, 8), 1e300)), "DoesNotFit", ["s07.npy", "x", "cannot hold"]),
        (_truncate, "Unreadable", ["s07.npy", "cut off"]),
        (lambda data: (data / "part/s07.npy").write_bytes(b"hello"), "Unreadable", ["s07.npy"]),
        (lambda data: (data / "part/s07.npy").write_bytes(b""), "Unreadable", ["s07.npy"]),
        (lambda data: _npz(data, y=picture(7)), "DoesNotFit", ["s07.npz", "input x", "y"]),
        (lambda data: (data / "part/s07.npz").write_bytes(b"PK nothing"), "Unreadable", ["s07.npz"]),
        (lambda data: np.savez(data / "part/s07.npz", x=picture(7)), "DoesNotFit", ["s07", "two files"]),
        (lambda data: (data / "part/s07.raw").write_bytes(b"0" * 96), "Unreadable", ["s07.raw", "no shape"]),
        (lambda data: (data / "part/s99.png").write_bytes(b"\x89PNG"), "DoesNotFit", ["s99.png", "normalisation"]),
    ],
)
def test_broken_data_is_refused_with_the_file_and_the_input(
    data: Path, read: Read, spoil: Callable[[Path], object], want_reason: str, want_words: list[str]
) -> None:
    write_folder(data)
    spoil(data)
    with pytest.raises(SpecError) as caught:
        read(data)
    assert caught.value.reason == f"CalibrationData{want_reason}"
    assert all(word in str(caught.value) for word in want_words), str(caught.value)


def test_the_infinity_of_a_mask_is_a_value_like_others(data: Path, read: Read) -> None:
    masks = (
        TensorSpec(name="mask", dtype=DType.FP32, shape=(1, 4)),
        TensorSpec(name="b", dtype=DType.BF16, shape=(1, 4)),
    )
    profile = Profile(inputs={spec.name: ShapeRange(min=(1, 4), opt=(1, 4), max=(1, 4)) for spec in masks})
    mask = np.array([[0, 0, -np.inf, -np.inf]], np.float32)
    for number in range(20):
        np.savez(data / f"{number}.npz", mask=mask, b=mask)
    found = read(data, masks, [profile])
    assert all(np.array_equal(inputs["mask"], mask) for inputs in found.values())
    np.savez(data / "0.npz", mask=mask, b=np.array([[0x7F80, 0x7FC0, 0, 0]], np.uint16))  # infinity and NaN
    with pytest.raises(SpecError, match="input b has NaN"):
        read(data, masks, [profile])


def test_python_objects_are_refused(data: Path, read: Read) -> None:
    write_folder(data)
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    (data / "part/s07.npy").write_bytes(buffer.getvalue())
    with pytest.raises(SpecError, match=r"s07\.npy.*Python objects"):
        read(data)


def test_integers_that_the_input_cannot_hold_or_its_profile_refuses_are_refused(data: Path, read: Read) -> None:
    spec = TensorSpec(name="k", dtype=DType.INT32, shape=(1,))
    limits = ValueRange(min=(1,), opt=(3,), max=(5,))
    profile = Profile(inputs={"k": ShapeRange(min=(1,), opt=(1,), max=(1,), values=limits)})
    for value, want_words in ((2**40, "cannot hold"), (6, "leaves the values")):
        np.save(data / "k.npy", np.array([1] * 20 + [value]))
        with pytest.raises(SpecError, match=want_words):
            read(data, (spec,), [profile])


def test_too_few_samples_and_none_are_refused(data: Path, read: Read) -> None:
    (data / "labels.txt").write_text("none")
    with pytest.raises(SpecError) as none:
        read(data)
    assert none.value.reason == "CalibrationDataMissing"
    assert "labels.txt" in str(none.value)
    write_folder(data, 15)
    with pytest.raises(SpecError) as few:
        read(data)
    assert few.value.reason == "CalibrationTooFewSamples"
    assert "found 15" in str(few.value)


@pytest.mark.parametrize("name", ["data.tar", "data.tar.gz", "data.zip", "data.npz"])
def test_a_file_that_is_no_archive_is_refused_with_its_name(tmp_path: Path, read: Read, name: str) -> None:
    (tmp_path / name).write_bytes(b"no archive at all")
    with pytest.raises(SpecError, match=name) as caught:
        read(tmp_path / name)
    assert caught.value.reason == "CalibrationDataUnreadable"


def test_a_file_of_several_inputs_must_say_which_one_it_has(data: Path, read: Read) -> None:
    np.save(data / "a.npy", np.zeros((1, 8)))
    with pytest.raises(SpecError, match=r"a\.npy.*a\.ids\.npy"):
        read(data, (IDS, MASK), [TEXT])


def test_a_file_without_the_batch_axis_may_stand_with_a_raw_one_that_always_has_it(data: Path, read: Read) -> None:
    profile = Profile(inputs={name: ShapeRange(min=(1, 8), opt=(1, 8), max=(4, 8)) for name in ("ids", "mask/0")})
    for number in range(16):
        np.save(data / f"{number}.ids.npy", np.arange(8) + number)
        (data / f"{number}.mask_0.bin").write_bytes(np.full(8, number, np.float32).tobytes())
    for batched in (True, False):
        found = read(data, (IDS, MASK), [profile], batched=batched)
        assert {array.shape for arrays in found.values() for array in arrays.values()} == {(1, 8)}
        assert found["3"]["ids"].tolist() == [list(range(3, 11))]
