"""The demo as the README prints it, in a home of its own."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


@pytest.mark.usefixtures("ocr_models")
def test_the_demo_reads_every_line_of_the_picture_through_all_three_models(tmp_path: Path) -> None:
    environment = os.environ | {"ENGINESMITH_HOME": str(tmp_path / "home")}
    run = subprocess.run([ROOT / "hack" / "demo"], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    for line in (ROOT / "examples" / "ocr" / "expected.txt").read_text().splitlines():
        assert line in run.stdout
    assert "inferences: det 1, cls 6, rec 6" in run.stderr
    assert run.stdout.rstrip().endswith("stopped cleanly")


@pytest.mark.usefixtures("ocr_models")
def test_the_demo_fails_where_a_line_is_missed(tmp_path: Path) -> None:
    wrong = tmp_path / "expected.txt"
    lines = (ROOT / "examples" / "ocr" / "expected.txt").read_text().splitlines()
    wrong.write_text("\n".join(["a line that is not in the picture", *lines[1:]]) + "\n")
    program = (ROOT / "hack" / "demo").read_text().replace("examples/ocr/expected.txt", str(wrong))
    program = program.replace('cd "$(dirname "$0")/.."', f"cd {ROOT}")
    environment = os.environ | {"ENGINESMITH_HOME": str(tmp_path / "home")}
    run = subprocess.run(["bash", "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert "a line that is not in the picture" in run.stdout + run.stderr
