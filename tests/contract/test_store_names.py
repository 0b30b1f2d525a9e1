"""Names in the engine store: the same in a folder, a bucket and a registry, and none that leaves its folder."""

from hashlib import sha256

import pytest
from pydantic import ValidationError

from enginesmith_contract.store_layout import (
    StoredFile,
    blob_name,
    content_digest,
    engine_pointer,
    preparation_pointer,
    timing_cache_folder,
    timing_cache_pointer,
)

A, B = "aa" * 32, "bb" * 32


@pytest.mark.parametrize(
    ("name", "want_name"),
    [
        (blob_name(A), f"blobs/sha256/{A}"),
        (preparation_pointer(A), f"preparations/{A}.json"),
        (engine_pointer(A), f"keys/{A}.json"),
        (timing_cache_folder("Tesla-T4", "10.13.3.9"), "timing-caches/10.13.3.9/Tesla-T4/"),
        (timing_cache_folder("a/../b c", "10.6.0+post/1"), "timing-caches/10.6.0-post-1/a-..-b-c/"),
        (timing_cache_pointer("timing-caches/10.6.0/L4/", "ab" * 32), "timing-caches/10.6.0/L4/abababababababab.json"),
    ],
)
def test_everything_has_one_name_that_holds_no_unsafe_character(name: str, want_name: str) -> None:
    assert name == want_name


def test_the_digest_of_a_single_file_is_the_file_s_own() -> None:
    assert content_digest([StoredFile(path="model.plan", digest=A, size_bytes=1)]) == A


def test_the_digest_of_several_files_depends_on_their_names_and_not_on_their_order() -> None:
    first, second = (
        StoredFile(path="model.onnx", digest=A, size_bytes=1),
        StoredFile(path="weights.bin", digest=B, size_bytes=2),
    )
    want_digest = sha256(f"model.onnx {A}\nweights.bin {B}\n".encode()).hexdigest()
    assert content_digest([first, second]) == content_digest([second, first]) == want_digest
    renamed = second.model_copy(update={"path": "other.bin"})
    assert content_digest([first, renamed]) != want_digest


@pytest.mark.parametrize(
    ("digest", "size_bytes", "want_field"),
    [("AA" * 32, 1, "digest"), ("aa", 1, "digest"), ("../" + "a" * 61, 1, "digest"), (A, -1, "size_bytes")],
)
def test_a_file_whose_digest_or_size_is_none_is_refused(digest: str, size_bytes: int, want_field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        StoredFile(path="x", digest=digest, size_bytes=size_bytes)
    assert [error["loc"] for error in caught.value.errors()] == [(want_field,)]
