"""One card, one spelling."""

import pytest

from enginesmith_contract.products import canonical_product, product_from_device_name, split_product


@pytest.mark.parametrize(
    ("label", "want"),
    [
        ("A100-SXM4-40GB", ("NVIDIA-A100-SXM4-40GB", None, False)),
        ("NVIDIA-A100-SXM4-40GB", ("NVIDIA-A100-SXM4-40GB", None, False)),
        ("A100-SXM4-40GB-MIG-1g.5gb", ("NVIDIA-A100-SXM4-40GB", "1g.5gb", False)),
        ("NVIDIA-H100-80GB-HBM3-MIG-1g.10gb.me-SHARED", ("NVIDIA-H100-80GB-HBM3", "1g.10gb.me", True)),
        ("NVIDIA-A100-SXM4-80GB-MIG-INVALID", ("NVIDIA-A100-SXM4-80GB", "INVALID", False)),
        ("Tesla-T4-SHARED", ("Tesla-T4", None, True)),
        ("GRID-A100-8C", ("GRID-A100-8C", None, False)),
        ("Quadro-RTX-5000", ("Quadro-RTX-5000", None, False)),
        ("Orin", ("Orin", None, False)),
    ],
)
def test_a_label_is_taken_apart(label: str, want: tuple[str, str | None, bool]) -> None:
    assert split_product(label) == want


def test_a_product_stays_as_it_is_once_canonical() -> None:
    assert canonical_product(canonical_product("A30")) == "NVIDIA-A30"


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("NVIDIA H100 80GB HBM3", "NVIDIA-H100-80GB-HBM3"),
        ("Tesla T4", "Tesla-T4"),
        ("NVIDIA RTX 4000 Ada Generation", "NVIDIA-RTX-4000-Ada-Generation"),
        ("A100-PCIE-40GB", "NVIDIA-A100-PCIE-40GB"),
        ("NVIDIA  Graphics (TM) Device", "NVIDIA-Graphics-TM-Device"),
    ],
)
def test_a_device_name_becomes_the_label_that_discovery_writes(name: str, want: str) -> None:
    assert product_from_device_name(name) == want
