"""Which plugin libraries a pod may load, as a variable says it."""

import pytest

from enginesmith_contract.allowed_plugins import AllowedPlugins

DIGEST = "ab" * 32


def test_a_list_survives_its_way_through_the_variable() -> None:
    allowed = AllowedPlugins(places=("s3://plugins", "/opt"), digests=(DIGEST, "cd" * 32))
    assert AllowedPlugins.from_text(allowed.to_text()) == allowed


def test_no_variable_is_no_list_and_an_empty_one_allows_nothing() -> None:
    assert AllowedPlugins.from_text(None) is None
    nothing = AllowedPlugins.from_text("")
    assert nothing is not None
    assert nothing.forbidden([DIGEST]) == (DIGEST,)
    assert nothing.forbidden([]) == ()


@pytest.mark.parametrize("text", [f"sha256:{DIGEST}", f" sha256:{DIGEST.upper()},sha256:{'0' * 64}\n"])
def test_a_listed_digest_is_allowed_however_it_is_spelled(text: str) -> None:
    allowed = AllowedPlugins.from_text(text)
    assert allowed is not None
    assert allowed.forbidden([DIGEST, "1" * 64]) == ("1" * 64,)
