"""What a URI names, and what of it may be shown."""

from pathlib import Path

import pytest

from enginesmith_contract.errors import SourceError
from enginesmith_runtime.fetch.location import Scheme, local_path, model_name, redact, scheme_of


@pytest.mark.parametrize(
    ("uri", "want"),
    [
        ("model.onnx", Scheme.FILE),
        ("/models/a:b.onnx", Scheme.FILE),
        ("file:///m.onnx", Scheme.FILE),
        ("HTTPS://host/m.onnx", Scheme.HTTPS),
        ("gs://bucket/m.onnx", Scheme.GS),
        ("oss://bucket/m.onnx", Scheme.OSS),
        ("hf://owner/repository/m.onnx", Scheme.HF),
        ("ms://owner/repository/m.onnx", Scheme.MS),
        ("oci://registry/repository:tag", Scheme.OCI),
    ],
)
def test_a_scheme_is_recognised(uri: str, want: Scheme) -> None:
    assert scheme_of(uri) is want


@pytest.mark.parametrize(
    ("uri", "want_text"),
    [
        ("htps://host/m.onnx", "id you mean https://"),
        ("gcs://bucket/m.onnx", "id you mean gs://"),
        ("s3a://bucket/m.onnx", "id you mean s3://"),
        ("pvc://claim/m.onnx", "ount the volume"),
        ("modelscope://owner/repository/m.onnx", "id you mean ms://"),
        ("gopher://hole/m.onnx", "file, http, https, s3, gs, oss, oci, hf, ms"),
    ],
)
def test_a_scheme_that_is_not_supported_gets_advice(uri: str, want_text: str) -> None:
    with pytest.raises(SourceError) as caught:
        scheme_of(uri)
    assert caught.value.reason == "UnsupportedScheme"
    assert want_text in caught.value.sentence()


@pytest.mark.parametrize(
    ("uri", "want"),
    [
        ("m.onnx", "/base/m.onnx"),
        ("sub/m.onnx", "/base/sub/m.onnx"),
        ("/abs/m.onnx", "/abs/m.onnx"),
        ("file:///abs/a%20b.onnx", "/abs/a b.onnx"),
        ("file://localhost/abs/m.onnx", "/abs/m.onnx"),
    ],
)
def test_a_relative_path_starts_from_the_base(uri: str, want: str) -> None:
    assert local_path(uri, Path("/base")) == Path(want)


def test_a_file_uri_with_a_host_says_how_to_write_it() -> None:
    with pytest.raises(SourceError, match=r"file:///models/m\.onnx"):
        local_path("file://models/m.onnx", None)


@pytest.mark.parametrize(
    ("path", "want"),
    [
        ("/a/m.onnx", "m.onnx"),
        ("", "model.onnx"),
        ("/a/%2e%2e", "model.onnx"),
        ("/a/b%2Fc.onnx", "c.onnx"),
    ],
)
def test_a_model_gets_a_name_that_stays_in_its_folder(path: str, want: str) -> None:
    assert model_name(path) == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("https://user:secret@host/m.onnx?X-Amz-Signature=secret", "https://host/m.onnx?..."),
        ("no route to https://token@host/m.onnx (secret)", "no route to https://host/m.onnx (secret)"),
        ("https://user:p@ss@host/m.onnx", "https://host/m.onnx"),
        ("s3://bucket/m@v1.onnx", "s3://bucket/m@v1.onnx"),
        ("models/what?.onnx", "models/what?.onnx"),
    ],
)
def test_secrets_are_not_shown(text: str, want: str) -> None:
    assert redact(text) == want
