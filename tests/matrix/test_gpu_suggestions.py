"""What people write for a GPU, and which real product they are pointed to."""

import pytest

from enginesmith_contract.matrix.load import load_matrix
from enginesmith_contract.matrix.products import did_you_mean_product

MATRIX = load_matrix()


@pytest.mark.parametrize(
    ("asked", "want_product"),
    [
        ("NVIDIA-T4", "Tesla-T4"),
        ("NVIDIA-H200-SXM5-141GB", "NVIDIA-H200"),
        ("NVIDIA-H200-SXM", "NVIDIA-H200"),
        ("NVIDIA-H100-SXM4-80GB", "NVIDIA-H100-80GB-HBM3"),
        ("NVIDIA-A100-PCIE-80GB", "NVIDIA-A100-80GB-PCIe"),
        ("nvidia-l4", "NVIDIA-L4"),
        ("nvidia-tesla-t4", "Tesla-T4"),
        ("nvidia-h100-mega-80gb", "NVIDIA-H100-80GB-HBM3"),
        ("RTX4090", "NVIDIA-GeForce-RTX-4090"),
        ("NVIDIA-V100", "Tesla-V100-SXM2-16GB"),
        ("NVIDIA-RTX-PRO-6000-Blackwell", "NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition"),
        # The card's name from before drivers put NVIDIA in front, and labels with suffixes.
        ("A100-SXM4-40GB", "NVIDIA-A100-SXM4-40GB"),
        ("Tesla-T4-SHARED", "Tesla-T4"),
        ("NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", "NVIDIA-A100-SXM4-80GB"),
        # Real already, or like nothing that is known.
        ("NVIDIA-L40", None),
        ("Tesla-T4", None),
        ("banana", None),
        ("AMD-Instinct-MI300X", None),
    ],
)
def test_a_gpu_that_no_driver_reports_is_pointed_to_the_nearest_real_one(asked: str, want_product: str | None) -> None:
    assert did_you_mean_product(MATRIX, asked) == want_product


@pytest.mark.parametrize(
    ("asked", "seen", "want_product"),
    [
        ("H100", ("NVIDIA-H100-80GB-HBM3",), "NVIDIA-H100-80GB-HBM3"),
        ("H100", ("NVIDIA-H100-NVL",), "NVIDIA-H100-NVL"),
        ("V100", ("Tesla-V100-SXM2-32GB",), "Tesla-V100-SXM2-32GB"),
        # A node's GPU that the matrix has no row for is as good an answer.
        ("NVIDIA-GTX1080Ti", ("NVIDIA-GeForce-GTX-1080-Ti",), "NVIDIA-GeForce-GTX-1080-Ti"),
        ("NVIDIA-GTX-9999", ("NVIDIA-GTX-9999",), None),
        # Another model at hand is no answer for a GPU that is known by another name.
        ("NVIDIA-T4", ("NVIDIA-L4",), "Tesla-T4"),
    ],
)
def test_a_gpu_at_hand_is_preferred(asked: str, seen: tuple[str, ...], want_product: str | None) -> None:
    assert did_you_mean_product(MATRIX, asked, seen) == want_product
