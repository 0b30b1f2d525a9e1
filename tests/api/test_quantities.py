"""Amounts: the grammars of Kubernetes and Go, and the spelling that survives."""

import pytest
from pydantic import TypeAdapter, ValidationError

from enginesmith_operator.api.base import FINDING
from enginesmith_operator.api.quantities import (
    ByteQuantity,
    Duration,
    ResourceQuantity,
    parse_bytes,
    parse_duration,
    quantity_value,
    spell_bytes,
    spell_duration,
    spell_quantity,
)

BYTES = TypeAdapter(ByteQuantity)
DURATION = TypeAdapter(Duration)
RESOURCE = TypeAdapter(ResourceQuantity)


@pytest.mark.parametrize(
    ("text", "want_bytes"),
    [
        ("0", 0),
        ("1", 1),
        ("512Mi", 512 << 20),
        ("2Gi", 2 << 30),
        ("1.5G", 1_500_000_000),
        ("1.5Gi", 3 << 29),
        (".5Ki", 512),
        ("1.", 1),
        ("1k", 1000),
        ("3e2", 300),
        ("3E2", 300),
        ("1E", 10**18),
        ("7Ei", 7 << 60),
        ("0.1", 1),
        (1073741824, 1 << 30),
    ],
)
def test_byte_quantities_are_read_as_kubernetes_reads_them(text: object, want_bytes: int) -> None:
    read = BYTES.validate_python(text)

    assert read == want_bytes
    assert isinstance(read, int)
    assert BYTES.dump_python(read, mode="json") == (text if isinstance(text, str) else "1Gi")


@pytest.mark.parametrize(
    ("text", "want_nearest"),
    [
        ("2GB", "2G"),
        ("2 GiB", "2Gi"),
        ("2gi", "2Gi"),
        ("2gb", "2G"),
        ("512mb", "512M"),
        ("10bytes", "10"),
        ("", ""),
        ("lots", ""),
        ("-1", ""),
        (-1, "0"),
        (1.5, "2"),
        (True, ""),
        (None, ""),
        ("9Ei", "8191Pi"),
        ("9" * 40, ""),
        ("1\n", "1"),
        ("٣", ""),
    ],
)
def test_a_wrong_byte_quantity_is_refused_with_the_nearest_one(text: object, want_nearest: str) -> None:
    with pytest.raises(ValidationError) as caught:
        BYTES.validate_python(text)

    (error,) = caught.value.errors()
    assert error["type"] == FINDING
    assert error["ctx"]["findings"][0].nearest == want_nearest
    if want_nearest:
        assert parse_bytes(want_nearest) >= 0


@pytest.mark.parametrize(
    ("text", "want_seconds"),
    [
        ("500us", 0.0005),
        ("500µs", 0.0005),
        ("30m", 1800.0),
        ("5s", 5.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("1m30.5s", 90.5),
        ("0", 0.0),
        ("0s", 0.0),
        ("100ms", 0.1),
        ("1ns", 1e-9),
    ],
)
def test_durations_are_read_as_go_reads_them(text: str, want_seconds: float) -> None:
    read = DURATION.validate_python(text)

    assert read == want_seconds
    assert DURATION.dump_python(read, mode="json") == text


@pytest.mark.parametrize(
    ("text", "want_nearest"),
    [
        (30, "30s"),
        ("30", "30s"),
        ("30M", "30m"),
        ("5 seconds", "5s"),
        ("2 days", "48h"),
        ("1d", "24h"),
        ("10min", "10m"),
        ("-5s", ""),
        ("", ""),
        ("s", ""),
        ("5s ", "5s"),
        ("1h 30m", ""),
        ("forever", ""),
        ("999999999999h", "24h"),
        (True, ""),
        (None, ""),
    ],
)
def test_a_wrong_duration_is_refused_with_the_nearest_one(text: object, want_nearest: str) -> None:
    with pytest.raises(ValidationError) as caught:
        DURATION.validate_python(text)

    (error,) = caught.value.errors()
    assert error["type"] == FINDING
    assert error["ctx"]["findings"][0].nearest == want_nearest
    if want_nearest:
        assert parse_duration(want_nearest) > 0


@pytest.mark.parametrize(
    ("seconds", "want_text"), [(1800.0, "30m"), (3600.0, "1h"), (90.0, "90s"), (0.0005, "500us"), (0.0, "0s")]
)
def test_seconds_of_python_code_get_the_largest_unit(seconds: float, want_text: str) -> None:
    assert spell_duration(seconds) == want_text
    assert parse_duration(want_text) == seconds


@pytest.mark.parametrize(("number", "want"), [(2 << 30, "2Gi"), (1536, 1536), (1 << 10, "1Ki"), (0, 0)])
def test_bytes_of_python_code_get_the_largest_binary_unit(number: int, want: object) -> None:
    assert spell_bytes(number) == want


@pytest.mark.parametrize("amount", ["500m", 2, "4Gi", "0.5", "1e3", "100n"])
def test_amounts_of_pod_resources_are_kept_as_written(amount: object) -> None:
    assert RESOURCE.dump_python(RESOURCE.validate_python(amount)) == amount


@pytest.mark.parametrize("amount", [-1, "4GB", "", None, True, [], "1 Gi"])
def test_what_is_no_amount_is_refused(amount: object) -> None:
    with pytest.raises(ValidationError):
        RESOURCE.validate_python(amount)


@pytest.mark.parametrize(
    ("spellings", "want"),
    [
        (["0.1", "100m", ".1", "0.100", "1e-1", "100000u", "100000000n"], "100m"),
        (["1Gi", "1024Mi", "1048576Ki", "1073741824", 1 << 30, "1.0Gi"], "1Gi"),
        (["0.25Gi", "256Mi", "262144Ki", "268435456"], "256Mi"),
        (["1", 1, "1000m", "1.0", "1e0", "0.001k"], "1"),
        (["2.5", "2500m"], "2500m"),
        (["1G", "1000M", "1e9", "1000000000", "1E9"], "1G"),
        (["1024000", "1000Ki", "1024k"], "1024k"),
        (["1.5Gi", "1536Mi"], "1536Mi"),
        (["1.1Gi", "1181116006400m", "1181116006.4"], "1181116006400m"),
        (["0", 0, "0.0", "0Gi", "0m"], "0"),
        (["0.1n", "1n", "0.000000001u", "1e-9", "1e-99"], "1n"),
        (["1E", "1000P"], "1E"),
        (["5Ei", "5120Pi"], "5Ei"),
    ],
)
def test_one_amount_has_one_spelling_however_it_was_written(spellings: list[str | int], want: str) -> None:
    assert {spell_quantity(RESOURCE.validate_python(one)) for one in spellings} == {want}
    assert spell_quantity(want) == want
    assert len({quantity_value(str(one)) for one in spellings}) == 1


@pytest.mark.parametrize("text", ["", "1 Gi", "-1", "1GB", "NaN", "1e", "0x10", "1Gi\n"])
def test_what_is_no_quantity_has_no_amount(text: str) -> None:
    with pytest.raises(ValueError, match="not a Kubernetes quantity"):
        quantity_value(text)
