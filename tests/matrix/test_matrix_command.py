"""`enginesmith matrix` as a person uses it."""

import json
from typing import Any

import pytest
import yaml

from enginesmith_cli.main import main
from enginesmith_contract.exit_codes import ExitCode
from enginesmith_contract.matrix.load import load_matrix

H100 = ("--gpu", "NVIDIA-H100-80GB-HBM3")


def _rows(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    main(("matrix", *words, "--output", "json"))
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["rows"]
    return rows


def test_a_driver_of_2023_on_an_h100_gets_the_cuda_12_builds_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(("matrix", *H100, "--driver", "535.183.01")) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["TENSORRT", "CUDA", "DRIVER", "FITS", "WHY"]
    assert lines[1].split() == ["11.4", "12", ">=", "535", "yes"]
    refused = next(line for line in lines if line.startswith("11.4 ") and " no " in line)
    assert "driver 535.183.01 is older than 580.65.06, which CUDA 13 needs" in refused
    assert "TensorRT 11.4 built for CUDA 12" in refused


def test_without_questions_every_build_is_listed_and_no_driver_is_judged(capsys: pytest.CaptureFixture[str]) -> None:
    rows = _rows((), capsys)
    matrix = load_matrix()
    assert {row["release"] for row in rows} >= {release.line for release in matrix.releases}
    asked = {answer["rule"] for row in rows for answer in row["answers"]}
    assert asked == {"TensorRTKnown", "BuilderSupported", "CudaBuildExists", "PlatformSupported"}


@pytest.mark.parametrize(
    ("words", "want_releases"),
    [
        (("--tensorrt", "10.13"), ["10.13.3", "10.13.3", "10.13.2", "10.13.2", "10.13.0", "10.13.0"]),
        (("--tensorrt", "10.13", "--cuda", "13"), ["10.13.3", "10.13.2", "10.13.0"]),
        (("--tensorrt", "10.13.3.9", "--cuda", "12.9"), ["10.13.3"]),
        (("--tensorrt", "11", "--cuda", "12", "--arch", "arm64"), ["11.4", "11.3", "11.2", "11.1", "11.0", "11.5"]),
    ],
)
def test_a_version_may_be_given_in_part(
    words: tuple[str, ...], want_releases: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert sorted(str(row["release"]) for row in _rows(words, capsys)) == sorted(want_releases)


@pytest.mark.parametrize(
    ("words", "want_verdicts"),
    [
        (("--tensorrt", "10.4", "--gpu", "Tesla-V100-SXM2-16GB"), {"12.6": "yes", "11.8": "yes"}),
        (("--tensorrt", "10.5", "--gpu", "Tesla-V100-SXM2-16GB"), {"12.6": "no", "11.8": "no"}),
        (("--tensorrt", "11.4", "--arch", "arm64"), {"13.4": "yes", "12": "no"}),
        (("--tensorrt", "10.9", "--cuda", "12.9"), {"12.9": "unknown"}),
        (("--tensorrt", "10.9", "--cuda", "13"), {"13": "no"}),
        (("--tensorrt", "10.9", "--gpu", "Tesla-T4", "--precision", "bf16"), {"12.8": "no", "11.8": "no"}),
        (("--tensorrt", "10.9", "--gpu", "Made-Up", "--compute-capability", "8.9"), {"12.8": "yes", "11.8": "yes"}),
        (("--tensorrt", "10.9", "--driver", "460"), {"12.8": "no", "11.8": "yes"}),
    ],
)
def test_every_build_gets_its_verdict(
    words: tuple[str, ...], want_verdicts: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert {str(row["cuda"]): row["verdict"] for row in _rows(words, capsys)} == want_verdicts


def test_nothing_that_fits_is_an_exit_code_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(("matrix", "--tensorrt", "11", "--compute-capability", "7.0")) == ExitCode.PLAN_REFUSED
    assert "TensorRT 10.4 built for CUDA 12" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "want_fragments"),
    [
        (("--gpu", "NVIDIA-T4"), ("--gpu NVIDIA-T4", "Use Tesla-T4")),
        (("--gpu", "banana"), ("banana", "Add --compute-capability")),
        (("--tensorrt", "12"), ("--tensorrt 12", "8.5 to 11.5")),
        (("--tensorrt", "newest"), ("--tensorrt", "'newest' is no version")),
        (("--driver", "latest"), ("--driver", "'latest' is no version")),
        (("--compute-capability", "ada"), ("--compute-capability", "8.9")),
    ],
)
def test_a_question_that_cannot_be_answered_says_why(
    words: tuple[str, ...], want_fragments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(("matrix", *words)) == ExitCode.SPEC_INVALID
    message = capsys.readouterr().err
    assert [fragment for fragment in want_fragments if fragment not in message] == []
    assert len(message.splitlines()) == 1


def test_json_and_yaml_say_the_same_and_list_the_sources(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("matrix", "--tensorrt", "11.4", *H100, "--driver", "580.95.05", "--precision", "fp8")
    main((*words, "--output", "json"))
    document = json.loads(capsys.readouterr().out)
    main((*words, "--output", "yaml"))
    assert yaml.safe_load(capsys.readouterr().out) == document
    used = {source for row in document["rows"] for answer in row["answers"] for source in answer["sources"]}
    assert {source["id"] for source in document["sources"]} == used
