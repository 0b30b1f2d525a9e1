"""Models from the ModelScope hub: its download address, its token, and what it says of files that are not there."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from enginesmith_contract.errors import SourceError
from enginesmith_contract.preparation import ModelSource
from enginesmith_runtime.fetch.download import RetryPolicy
from enginesmith_runtime.fetch.model import FetchedModel, fetch_model
from enginesmith_runtime.fetch.modelscope import ModelScopeOrigin
from enginesmith_runtime.progress import SilentReporter

WriteModel = Callable[..., Path]
IMPATIENT = RetryPolicy(attempts=2, first_pause_seconds=0.01)
API = "api/v1/models/damo/detector/repo"


def _fetch(web: SimpleNamespace, folder: Path, uri: str) -> FetchedModel:
    source = ModelSource(uri=uri, options={"endpoint": f"{web.url}/"})
    return fetch_model(source, folder / "fetched", SilentReporter(), retry=IMPATIENT)


@pytest.mark.parametrize(
    ("uri", "want"),
    [
        ("ms://damo/detector/m.onnx", "Revision=master&FilePath=m.onnx"),
        ("ms://damo/detector@v1.0/onnx/m 1.onnx", "Revision=v1.0&FilePath=onnx%2Fm+1.onnx"),
    ],
)
def test_the_address_is_the_hub_s_own_download_address(
    web: SimpleNamespace, tmp_path: Path, write_model: WriteModel, uri: str, want: str
) -> None:
    web.bodies[f"{API}?{want}"] = write_model(tmp_path / "m.onnx").read_bytes()

    _fetch(web, tmp_path, uri)

    assert web.requests == [(f"/{API}?{want}", None)]


def test_a_model_comes_with_the_weights_beside_it(
    web: SimpleNamespace, tmp_path: Path, write_model: WriteModel
) -> None:
    path = write_model(tmp_path / "m.onnx", weights="weights.bin")
    for name in ("m.onnx", "weights.bin"):
        web.bodies[f"{API}?Revision=v2&FilePath=onnx%2F{name}"] = (tmp_path / name).read_bytes()

    fetched = _fetch(web, tmp_path, "ms://damo/detector@v2/onnx/m.onnx")

    assert [file.path for file in fetched.files] == ["m.onnx", "weights.bin"]
    assert fetched.path.read_bytes() == path.read_bytes()


def test_a_connection_that_breaks_is_resumed(web: SimpleNamespace, tmp_path: Path, write_model: WriteModel) -> None:
    path = write_model(tmp_path / "m.onnx")
    web.bodies[f"{API}?Revision=master&FilePath=m.onnx"] = path.read_bytes()
    web.broken_after = [1000]

    assert _fetch(web, tmp_path, "ms://damo/detector/m.onnx").path.read_bytes() == path.read_bytes()
    assert [wanted for _, wanted in web.requests] == [None, "bytes=1000-"]


def test_a_token_goes_to_the_hub_in_both_forms_that_it_reads(
    web: SimpleNamespace, tmp_path: Path, write_model: WriteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "secret")
    web.bodies[f"{API}?Revision=master&FilePath=m.onnx"] = write_model(tmp_path / "m.onnx").read_bytes()

    _fetch(web, tmp_path, "ms://damo/detector/m.onnx")

    assert (web.authorizations, web.cookies) == (["Bearer secret"], ["m_session_id=secret"])


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [(404, "NotFound", "heck the address"), (403, "AccessDenied", "et MODELSCOPE_API_TOKEN")],
)
def test_a_refusal_names_the_file_on_the_hub_and_what_to_do(
    web: SimpleNamespace, tmp_path: Path, status: int, reason: str, words: str
) -> None:
    web.statuses = [status]

    with pytest.raises(SourceError) as caught:
        _fetch(web, tmp_path, "ms://damo/detector/m.onnx")

    assert caught.value.reason == reason
    assert "ms://damo/detector@master/m.onnx" in caught.value.sentence()
    assert words in caught.value.sentence()


@pytest.mark.parametrize("uri", ["ms://damo", "ms://damo/detector", "ms://damo/detector/", "ms://damo/@v1/m.onnx"])
def test_an_address_that_names_no_file_says_how_to_write_one(uri: str) -> None:
    with pytest.raises(SourceError, match=r"ms://OWNER/REPOSITORY/PATH/model\.onnx"):
        ModelScopeOrigin(ModelSource(uri=uri))


def test_an_option_that_the_hub_does_not_have_is_refused() -> None:
    with pytest.raises(SourceError) as caught:
        ModelScopeOrigin(ModelSource(uri="ms://damo/detector/m.onnx", options={"region": "x"}))
    assert caught.value.reason == "UnknownOption"
