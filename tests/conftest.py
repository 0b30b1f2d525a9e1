"""Fixtures that every test may use."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def ocr_models() -> Path:
    """A folder with det.onnx, rec.onnx and cls.onnx: the PaddlePaddle exports of PP-OCRv4 (read only)."""
    run = subprocess.run([ROOT / "hack" / "fetch-models"], check=True, capture_output=True, text=True)
    return Path(run.stdout.strip())
