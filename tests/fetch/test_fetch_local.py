"""Models on the local disk: used in place, digested, and not believed."""

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import onnx
import pytest

from enginesmith_contract.errors import ModelError, SourceError
from enginesmith_contract.exit_codes import ExitCode
from enginesmith_contract.preparation import ModelSource
from enginesmith_contract.store_layout import content_digest
from enginesmith_runtime.fetch.model import FetchedModel, fetch_model
from enginesmith_runtime.progress import SilentReporter

WriteModel = Callable[..., Path]


def fetch(path: Path, tmp_path: Path, expected: str | None = None) -> FetchedModel:
    return fetch_model(ModelSource(uri=str(path), sha256=expected), tmp_path / "fetched", SilentReporter())


def zipped(*members: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for member in members:
            archive.writestr(member, b"")
    return stream.getvalue()


def test_a_model_is_used_in_place(tmp_path: Path, write_model: WriteModel) -> None:
    path = write_model(tmp_path / "m.onnx")
    fetched = fetch(path, tmp_path)
    assert fetched.path == path
    assert fetched.source_digest == fetched.model_digest == sha256(path.read_bytes()).hexdigest()
    assert fetched.size_bytes == path.stat().st_size
    assert not (tmp_path / "fetched").exists()


@pytest.mark.parametrize("location", ["weights.bin", "sub/weights.bin", "./weights.bin"])
def test_weights_are_digested_once_each(tmp_path: Path, write_model: WriteModel, location: str) -> None:
    (tmp_path / "sub").mkdir()
    path = write_model(tmp_path / "m.onnx", weights=location)
    fetched = fetch(path, tmp_path)
    weights = tmp_path / location
    assert [file.path for file in fetched.files] == ["m.onnx", location.removeprefix("./")]
    assert fetched.files[1].digest == sha256(weights.read_bytes()).hexdigest()
    assert fetched.source_digest == content_digest(fetched.files)
    assert fetched.size_bytes == path.stat().st_size + weights.stat().st_size


def test_other_weights_make_another_source_digest(tmp_path: Path, write_model: WriteModel) -> None:
    path = write_model(tmp_path / "m.onnx", weights="weights.bin")
    before = fetch(path, tmp_path)
    (tmp_path / "weights.bin").write_bytes(bytes((tmp_path / "weights.bin").stat().st_size))
    after = fetch(path, tmp_path)
    assert after.model_digest == before.model_digest
    assert after.source_digest != before.source_digest


def test_a_relative_path_starts_from_the_document(tmp_path: Path, write_model: WriteModel) -> None:
    (tmp_path / "models").mkdir()
    path = write_model(tmp_path / "models" / "m.onnx")
    source = ModelSource(uri="models/m.onnx")
    assert fetch_model(source, tmp_path / "fetched", SilentReporter(), base=tmp_path).path == path


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_linked_weights_are_copied_since_onnx_refuses_links(tmp_path: Path, write_model: WriteModel, link: str) -> None:
    path = write_model(tmp_path / "m.onnx", weights="weights.bin")
    (tmp_path / "weights.bin").rename(tmp_path / "real.bin")
    getattr(tmp_path / "weights.bin", link)(tmp_path / "real.bin")
    fetched = fetch(path, tmp_path)
    assert fetched.path != path
    assert onnx.load(fetched.path).graph.initializer[0].raw_data
    assert fetch(path, tmp_path) == fetched


@pytest.mark.parametrize(
    ("location", "want_why"),
    [
        ("/etc/passwd", "absolute"),
        ("../weights.bin", "'..'"),
        ("sub/../../weights.bin", "'..'"),
        ("..\\weights.bin", "'..'"),
        ("C:\\weights.bin", "absolute"),
        ("\\\\server\\weights.bin", "absolute"),
        ("", "no file"),
        (".", "no file"),
    ],
)
def test_a_model_that_names_a_file_outside_its_folder_is_refused(
    tmp_path: Path, write_naming: WriteModel, location: str, want_why: str
) -> None:
    path = write_naming(tmp_path / "m.onnx", location)
    with pytest.raises(SourceError) as caught:
        fetch(path, tmp_path)
    assert caught.value.reason == "PathEscapes"
    assert caught.value.exit_code is ExitCode.SOURCE_FAILED
    assert want_why in str(caught.value)
    assert "'w'" in str(caught.value)


def test_a_symbolic_link_out_of_the_folder_is_refused(tmp_path: Path, write_naming: WriteModel) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "secret").write_bytes(bytes(64))
    path = write_naming(tmp_path / "model" / "m.onnx", "weights.bin")
    (tmp_path / "model" / "weights.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(SourceError, match="symbolic link") as caught:
        fetch(path, tmp_path)
    assert caught.value.reason == "PathEscapes"


@pytest.mark.parametrize("holder", ["if", "constant", "sparse"])
def test_tensors_outside_the_initializers_are_seen_too(tmp_path: Path, holder: str) -> None:
    tensor = onnx.TensorProto(name="hidden", data_type=onnx.TensorProto.FLOAT, dims=[4])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../hidden.bin")
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [4])
    constant = onnx.helper.make_node("Constant", [], ["y"], value=tensor)
    branch = onnx.helper.make_graph([constant], "branch", [], [output])
    node = constant if holder == "constant" else onnx.helper.make_node("If", ["c"], ["y"], then_branch=branch)
    graph = onnx.helper.make_graph([] if holder == "sparse" else [node], "g", [], [output])
    if holder == "sparse":
        graph.sparse_initializer.add().values.CopyFrom(tensor)
    (tmp_path / "m.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(SourceError, match="hidden") as caught:
        fetch(tmp_path / "m.onnx", tmp_path)
    assert caught.value.reason == "PathEscapes"


def test_missing_weights_are_named_with_their_tensor(tmp_path: Path, write_naming: WriteModel) -> None:
    path = write_naming(tmp_path / "m.onnx", "weights.bin")
    with pytest.raises(SourceError, match=r"weights\.bin.*'w'") as caught:
        fetch(path, tmp_path)
    assert caught.value.reason == "ExternalDataMissing"


def test_a_missing_file_behind_a_backslash_is_named_as_the_model_spells_it(
    tmp_path: Path, write_naming: WriteModel
) -> None:
    path = write_naming(tmp_path / "m.onnx", "sub\\weights.bin")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "weights.bin").write_bytes(bytes(256 * 256 * 4))
    with pytest.raises(SourceError) as caught:
        fetch(path, tmp_path)
    assert caught.value.what == "the weights file sub\\weights.bin is missing"
    assert "a backslash separates folders on Windows only" in caught.value.why
    assert "in one file next to it" in caught.value.remedy
    path = write_naming(tmp_path / "m.onnx", "..\\weights.bin")
    with pytest.raises(SourceError, match=r"has the location '\.\.\\weights\.bin': it has '\.\.' in it"):
        fetch(path, tmp_path)


@pytest.mark.parametrize(("offset", "length"), [("0", "262145"), ("1", "262144"), ("4", ""), ("9000000000000", "16")])
def test_a_tensor_that_ends_behind_its_file_is_refused(
    tmp_path: Path, write_naming: WriteModel, offset: str, length: str
) -> None:
    path = write_naming(tmp_path / "m.onnx", "weights.bin", offset=offset, length=length)
    (tmp_path / "weights.bin").write_bytes(bytes(256 * 256 * 4))
    with pytest.raises(SourceError, match=r"weights\.bin") as caught:
        fetch(path, tmp_path)
    assert caught.value.reason == "Truncated"


@pytest.mark.parametrize(("offset", "length"), [("-4", "16"), ("x", "16"), ("0", "-1")])
def test_a_place_that_makes_no_sense_is_refused(
    tmp_path: Path, write_naming: WriteModel, offset: str, length: str
) -> None:
    path = write_naming(tmp_path / "m.onnx", "weights.bin", offset=offset, length=length)
    with pytest.raises(ModelError) as caught:
        fetch(path, tmp_path)
    assert caught.value.reason == "NotOnnx"


def test_another_digest_is_refused_with_both(tmp_path: Path, write_model: WriteModel) -> None:
    path = write_model(tmp_path / "m.onnx")
    with pytest.raises(SourceError, match=f"expected sha256 {'0' * 64}, found") as caught:
        fetch(path, tmp_path, "0" * 64)
    assert caught.value.reason == "DigestMismatch"


def test_the_digest_may_be_written_in_capitals(tmp_path: Path, write_model: WriteModel) -> None:
    path = write_model(tmp_path / "m.onnx")
    assert fetch(path, tmp_path, sha256(path.read_bytes()).hexdigest().upper()).path == path


@pytest.mark.parametrize(
    ("name", "content", "want_text"),
    [
        ("m.onnx", b"", "empty"),
        ("m.onnx", b"<!DOCTYPE html><html>Sign in</html>", "HTML"),
        ("m.onnx", b"\n  <html><body>404</body></html>", "HTML"),
        ("m.onnx", b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML"),
        ("m.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        ("m.onnx", zipped("archive/constants.pkl", "archive/data.pkl"), "TorchScript"),
        ("m.pth", zipped("archive/data.pkl"), "torch.onnx.export"),
        ("m.onnx", zipped("m.onnx"), "ZIP"),
        ("m.onnx", b"PK\x03\x04 broken", "ZIP"),
        ("m.pkl", pickle.dumps([1]), "pickle"),
        ("m.h5", b"\x89HDF\r\n\x1a\n", "HDF5"),
        ("m.tflite", b"\x1c\x00\x00\x00TFL3", "tf2onnx"),
        ("m.ort", b"\x1c\x00\x00\x00ORTM", "ONNX Runtime"),
        ("m.onnx", b"ptrt\x00\x00", "TensorRT engine"),
        ("m.json", b'{"error": "rate limit"}', "JSON"),
        ("m.safetensors", (10).to_bytes(8, "little") + b'{"w": {}} ', "safetensors"),
        ("m.pdmodel", b"\x0a\x80\x01\x08\x00", "PaddlePaddle"),
        ("m", b"\x0a\x80\x01 feed fetch", "paddle2onnx"),
        ("saved_model.pb", b"\x08\x01\x12\x80\x01serve", "TensorFlow"),
        ("m.onnx", b"\xff\xfe\xfd", "ff fe fd"),
    ],
)
def test_a_file_that_is_no_onnx_model_is_named_for_what_it_is(
    tmp_path: Path, name: str, content: bytes, want_text: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError) as caught:
        fetch(tmp_path / name, tmp_path)
    assert caught.value.reason == "NotOnnx"
    assert caught.value.exit_code is ExitCode.MODEL_INVALID
    assert want_text in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("part", [0.02, 0.5, 0.999])
def test_a_model_that_breaks_off_is_refused(tmp_path: Path, write_model: WriteModel, part: float) -> None:
    path = write_model(tmp_path / "m.onnx")
    os.truncate(path, int(path.stat().st_size * part))
    with pytest.raises(ModelError) as caught:
        fetch(path, tmp_path)
    assert caught.value.reason == "NotOnnx"


@pytest.mark.parametrize(
    ("member", "want_error", "want_text"),
    [
        ("saved_model.pb", ModelError, "tf2onnx"),
        ("inference.pdmodel", ModelError, "paddle2onnx"),
        ("det.onnx", SourceError, "det.onnx"),
        ("readme", SourceError, "no .onnx file"),
    ],
)
def test_a_folder_is_refused_with_what_it_holds(
    tmp_path: Path, member: str, want_error: type[Exception], want_text: str
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / member).touch()
    with pytest.raises(want_error) as caught:
        fetch(tmp_path / "model", tmp_path)
    assert want_text in str(caught.value)


@pytest.mark.parametrize("kind", ["nothing", "pipe"])
def test_a_path_that_is_no_file_is_not_found(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m.onnx"
    if kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(SourceError, match=r"m\.onnx") as caught:
        fetch(path, tmp_path)
    assert caught.value.reason == "NotFound"


def test_a_real_model_of_paddlepaddle_is_fetched(ocr_models: Path, tmp_path: Path) -> None:
    fetched = fetch(ocr_models / "cls.onnx", tmp_path)
    assert fetched.size_bytes == (ocr_models / "cls.onnx").stat().st_size


@pytest.mark.slow
def test_weights_larger_than_the_memory_allowed_are_streamed(tmp_path: Path, write_naming: WriteModel) -> None:
    import resource  # noqa: PLC0415 - only this test limits itself
    import subprocess  # noqa: PLC0415
    import sys  # noqa: PLC0415

    size = 2500 << 20
    path = write_naming(tmp_path / "m.onnx", "weights.bin", offset=str(size - 16))
    with (tmp_path / "weights.bin").open("wb") as stream:
        stream.truncate(size)
    script = (
        "import sys; from pathlib import Path; from enginesmith_runtime.fetch.model import fetch_model;"
        "from enginesmith_contract.preparation import ModelSource;"
        "from enginesmith_runtime.progress import SilentReporter;"
        "print(fetch_model(ModelSource(uri=sys.argv[1]), Path('unused'), SilentReporter()).size_bytes)"
    )

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))

    run = subprocess.run(
        [sys.executable, "-c", script, path],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) == size + path.stat().st_size
