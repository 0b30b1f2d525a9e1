"""The programs that build images: buildah for real, an image of one file, into an archive that any tool reads."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
BUILD = """
import sys
from pathlib import Path
from container_images.builders import Builder
from development_cluster.errors import ClusterError
folder, program = Path(sys.argv[1]), sys.argv[2]
storage = ("--root", folder / "storage", "--runroot", folder / "run", "--storage-driver", "vfs")
builder = Builder(
    program=program, options=storage, environment={"BUILDAH_ISOLATION": "chroot"}, log=folder / "build.log"
)
try:
    if program == "buildah":
        builder.build("localhost/small:1", dockerfile=folder / "Dockerfile", context=folder, arguments={"NAME": "a"})
        assert builder.has("localhost/small:1") and not builder.has("localhost/small:2")
    print(builder.archive("localhost/small:1", folder / "small.tar"))
except ClusterError as error:
    sys.exit(error.explain())
"""


def run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Build an image of one file and archive it."""
    (folder / "Dockerfile").write_text("FROM scratch\nARG NAME\nCOPY content /${NAME}\n")
    (folder / "content").write_text("content\n")
    return subprocess.run(
        [sys.executable, "-c", BUILD, folder, program], cwd=ROOT / "hack", capture_output=True, text=True, check=False
    )


@pytest.mark.usefixtures("cluster")
def test_buildah_archives_an_image_under_the_digest_that_is_printed(tmp_path: Path) -> None:
    # `hack/cluster up` has installed it where it was missing.
    made = run("buildah", tmp_path)
    assert made.returncode == 0, made.stderr
    name, _, digest = made.stdout.strip().partition("@")
    assert name == "localhost/small"
    with tarfile.open(tmp_path / "small.tar") as archive:
        index = json.load(archive.extractfile("index.json") or pytest.fail("no index"))
    (manifest,) = index["manifests"]
    assert manifest["digest"] == digest
    assert manifest["annotations"]["org.opencontainers.image.ref.name"] == "localhost/small:1"


def test_docker_is_not_asked_for_an_archive_without_a_known_digest(tmp_path: Path) -> None:
    refused = run("docker", tmp_path)
    assert refused.returncode != 0
    assert "--push REGISTRY" in refused.stderr


def test_the_program_names_the_toolchains_that_it_knows(tmp_path: Path) -> None:
    asked = subprocess.run(
        [ROOT / "hack/images", "--output", tmp_path, "tensorrt-99"], capture_output=True, text=True, check=False
    )
    assert asked.returncode != 0
    assert "no toolchain tensorrt-99; there are tensorrt-rtx, tensorrt-10.6-cu12," in asked.stderr
