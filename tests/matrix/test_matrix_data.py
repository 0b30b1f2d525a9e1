"""The rows themselves: every one names sources that exist, versions parse, and nothing is listed twice."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from enginesmith_contract.backends import Precision
from enginesmith_contract.matrix.load import load_matrix
from enginesmith_contract.matrix.model import Matrix
from enginesmith_contract.matrix.query import find_product
from enginesmith_contract.matrix.versions import is_at_least, is_in_line, version_numbers
from enginesmith_contract.products import canonical_product
from enginesmith_contract.record import Record

ROOT = Path(__file__).resolve().parents[2]
MATRIX = load_matrix()


def _sourced_rows(value: object, path: str = "matrix") -> Iterator[tuple[str, tuple[str, ...]]]:
    if isinstance(value, Record):
        if "sources" in type(value).model_fields and not isinstance(value, Matrix):
            yield path, value.__dict__["sources"]
        for name, inner in value.__dict__.items():
            yield from _sourced_rows(inner, f"{path}.{name}")
    elif isinstance(value, tuple):
        for number, inner in enumerate(value):
            yield from _sourced_rows(inner, f"{path}[{number}]")


def test_every_row_names_only_sources_that_are_listed() -> None:
    known = {source.id for source in MATRIX.sources}
    rows = list(_sourced_rows(MATRIX))
    assert len(rows) > 150
    assert {path: set(used) - known for path, used in rows if set(used) - known} == {}


def test_every_row_that_claims_something_has_a_source() -> None:
    claims: list[Any] = [
        *MATRIX.releases,
        *MATRIX.gpus,
        *MATRIX.capability_precisions,
        *MATRIX.provider_precisions,
        *MATRIX.cuda_drivers.floors,
        *MATRIX.cuda_drivers.removed,
        *(toolkit for toolkit in MATRIX.cuda_drivers.toolkits if toolkit.driver),
        *(tag for tag in MATRIX.ngc_tags if tag.tensorrt or tag.cuda),
        *(level for level in MATRIX.portability.levels if level.since),
    ]
    assert [claim for claim in claims if not claim.sources] == []


def test_every_listed_source_is_used() -> None:
    used = {source for _, sources in _sourced_rows(MATRIX) for source in sources}
    # Read while the rows were made, and kept for whoever checks them.
    background = {"triton-compatibility"}
    assert {source.id for source in MATRIX.sources} - used - background == set()


def test_releases_are_unique_and_ordered_from_the_oldest() -> None:
    lines = [version_numbers(release.line) for release in MATRIX.releases]
    assert lines == sorted(lines, key=lambda line: line or ())
    assert len(set(lines)) == len(lines)
    assert (MATRIX.releases[0].line, MATRIX.releases[-1].line) == ("8.5", "11.5")


@pytest.mark.parametrize("release", MATRIX.releases, ids=lambda release: release.line)
def test_a_release_agrees_with_itself(release: Record) -> None:
    row = next(row for row in MATRIX.releases if row == release)
    if row.general_availability:
        assert is_in_line(version_numbers(row.general_availability) or (), row.line)
    majors = {cuda.split(".")[0] for cuda in (*row.cuda_builds, *row.cuda_builds_arm64, *row.cuda_supported)}
    assert majors | set(row.wheels) | set(row.minimum_drivers) <= set(row.cuda_majors)


def test_products_are_spelled_as_keys_spell_them_and_listed_once() -> None:
    products = [gpu.product for gpu in MATRIX.gpus]
    assert [canonical_product(product) for product in products] == products
    assert len(set(products)) == len(products)


def test_every_precision_of_a_device_that_a_user_can_ask_for_is_spelled_as_asked() -> None:
    spelled = {name for row in MATRIX.capability_precisions for name in row.precisions or ()}
    assert set(Precision) <= spelled
    assert spelled - set(Precision) == {"fp4"}


def test_toolkits_and_images_of_late_2026_are_known() -> None:
    drivers = {toolkit.cuda: toolkit.driver for toolkit in MATRIX.cuda_drivers.toolkits}
    images = {tag.tag: tag.cuda for tag in MATRIX.ngc_tags}
    assert (drivers["13.4"], drivers["13.5"], images["26.09"]) == ("615.61", None, "13.4")


@pytest.mark.parametrize(
    ("product", "want_capability"),
    [("Tesla-P100-PCIE-16GB", "6.0"), ("NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition-MIG-1g.24gb-me", "12.0")],
)
def test_a_product_is_found_in_every_spelling_of_its_label(product: str, want_capability: str) -> None:
    row = find_product(MATRIX, product)
    assert row is not None
    assert (row.capability, row.confidence) == (want_capability, "official")


@pytest.mark.parametrize(
    ("text", "want_numbers"),
    [
        ("580.159.04", (580, 159, 4)),
        ("550.120", (550, 120)),
        ("550.120.", (550, 120)),
        ("10.6.0.post1", (10, 6, 0)),
        ("unknown.unknown.unknown", None),
        ("", None),
        (None, None),
    ],
)
def test_versions_are_read_as_labels_and_wheels_spell_them(
    text: str | None, want_numbers: tuple[int, ...] | None
) -> None:
    assert version_numbers(text) == want_numbers


@pytest.mark.parametrize(
    ("found", "floor", "want_reached"),
    [
        ((550, 120), (550, 54, 14), True),
        ((550, 53), (550, 54, 14), False),
        ((580,), (580, 65, 6), True),
        ((579,), (580, 65, 6), False),
        ((580, 65, 5), (580, 65, 6), False),
    ],
)
def test_a_driver_that_names_only_its_branch_is_compared_by_branch(
    found: tuple[int, ...], floor: tuple[int, ...], *, want_reached: bool
) -> None:
    assert is_at_least(found, floor) is want_reached


def test_the_page_is_what_its_generator_writes() -> None:
    page = ROOT / "docs" / "matrix.md"
    before = page.read_bytes()
    subprocess.run([sys.executable, ROOT / "hack" / "generate-matrix-docs"], check=True)
    assert page.read_bytes() == before
