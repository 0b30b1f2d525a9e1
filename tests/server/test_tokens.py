"""Bearer tokens in a folder: whose they are, and what becomes of a folder that is wrong or that changes."""

from pathlib import Path

import pytest
from tests.server.certificates import mount
from tests.server.waiting import wait_for

from enginesmith_contract.errors import ServeError
from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.transport.tokens import Tokens


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "it has no file"),
        ({"one": "\n"}, "the token of client 'one' is empty"),
        ({"one": "same", "two": "other\nsame"}, "clients 'one' and 'two' have the same token"),
        ({"one": "schlüssel"}, "the token of client 'one' has a letter that is not ASCII"),
    ],
)
def test_a_folder_that_is_wrong_ends_the_start_with_a_sentence(
    tmp_path: Path, files: dict[str, str], words: str
) -> None:
    mount(tmp_path, files)
    with pytest.raises(ServeError) as caught:
        Tokens(tmp_path)
    assert caught.value.reason == "TokensUnusable"
    assert words in caught.value.sentence()


@pytest.mark.parametrize("header", ["Bearer token", "bearer token", "BEARER   token "])
def test_the_scheme_is_read_as_http_reads_it(tmp_path: Path, header: str) -> None:
    mount(tmp_path, {"one": "token\n"})
    assert Tokens(tmp_path).admit(header) == "one"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "token", "Basic token", "Bearer toke", "Bearer one"])
def test_any_other_header_is_refused_and_its_content_is_not_repeated(tmp_path: Path, header: str | None) -> None:
    mount(tmp_path, {"one": "token"})
    tokens = Tokens(tmp_path)
    refused = tokens.admit(header)
    assert isinstance(refused, ProtocolError)
    assert refused.code is Code.UNAUTHENTICATED
    assert "toke" not in refused.message.replace("token", "")
    assert tokens.refused == 1


def test_a_token_that_is_withdrawn_is_refused_although_another_one_is_wrong(tmp_path: Path) -> None:
    mount(tmp_path, {"one": "first", "two": "second"})
    tokens = Tokens(tmp_path)
    mount(tmp_path, {"two": "second", "three": ""})
    wait_for(lambda: tokens.find("Bearer first") is None)
    assert tokens.find("Bearer second") == "two"
    mount(tmp_path, {})
    wait_for(lambda: tokens.find("Bearer second") is None)
