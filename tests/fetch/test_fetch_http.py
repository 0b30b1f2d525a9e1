"""Models from a real web server with bad manners: what is whole is taken, what is not is resumed or refused."""

import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
from typing_extensions import override

from enginesmith_contract.environment import SOURCE_TOKEN
from enginesmith_contract.errors import CancelledBuildError, EnginesmithError, ModelError, SourceError
from enginesmith_contract.preparation import ModelSource
from enginesmith_runtime.fetch.download import RetryPolicy
from enginesmith_runtime.fetch.model import FetchedModel, fetch_model
from enginesmith_runtime.progress import SilentReporter

WriteModel = Callable[..., Path]
IMPATIENT = RetryPolicy(attempts=3, first_pause_seconds=0.01)


def fetch(web: SimpleNamespace, folder: Path, path: str = "m.onnx", expected: str | None = None) -> FetchedModel:
    source = ModelSource(uri=f"{web.url}/{path}", sha256=expected)
    return fetch_model(source, folder, SilentReporter(), retry=IMPATIENT)


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "fetched"


def test_a_model_with_weights_comes_whole(
    web: SimpleNamespace, served: Path, folder: Path, write_model: WriteModel
) -> None:
    (served / "a b").mkdir()
    write_model(served / "a b" / "m.onnx", weights="weights#1.bin")
    fetched = fetch(web, folder, "a%20b/m.onnx?version=3")
    assert [file.path for file in fetched.files] == ["m.onnx", "weights#1.bin"]
    assert (fetched.path.parent / "weights#1.bin").read_bytes() == (served / "a b" / "weights#1.bin").read_bytes()
    assert onnx.load(fetched.path).graph.initializer[0].raw_data
    assert web.requests[1][0] == "/a%20b/weights%231.bin?version=3"


def test_a_connection_that_breaks_is_resumed_where_it_broke(
    web: SimpleNamespace, served: Path, folder: Path, write_model: WriteModel
) -> None:
    path = write_model(served / "m.onnx")
    web.broken_after = [100_000, 50_000]
    assert fetch(web, folder).model_digest == sha256(path.read_bytes()).hexdigest()
    assert [wanted for _, wanted in web.requests] == [None, "bytes=100000-", "bytes=150000-"]


@pytest.mark.parametrize(("ranges", "tagged"), [(False, True), (True, False)], ids=["no ranges", "no tag"])
def test_a_server_that_cannot_resume_is_asked_for_everything_again(
    web: SimpleNamespace, served: Path, folder: Path, write_model: WriteModel, *, ranges: bool, tagged: bool
) -> None:
    path = write_model(served / "m.onnx")
    web.ranges, web.tagged, web.broken_after = ranges, tagged, [100_000]
    assert fetch(web, folder).model_digest == sha256(path.read_bytes()).hexdigest()


def test_a_second_attempt_resumes_what_a_failed_one_left(
    web: SimpleNamespace, served: Path, folder: Path, write_model: WriteModel
) -> None:
    path = write_model(served / "m.onnx")
    web.broken_after = [100_000, 0, 0, 0]
    with pytest.raises(SourceError) as caught:
        fetch(web, folder)
    assert caught.value.retry
    assert fetch(web, folder).model_digest == sha256(path.read_bytes()).hexdigest()
    assert web.requests[-1][1] == "bytes=100000-"


def test_a_file_that_changed_between_attempts_is_not_mixed(
    web: SimpleNamespace, served: Path, folder: Path, write_model: WriteModel
) -> None:
    path = write_model(served / "m.onnx")
    web.bodies["m.onnx"] = b"\x08" * 400_000
    web.broken_after = [100_000, 0, 0, 0]
    with pytest.raises(SourceError):
        fetch(web, folder)
    web.bodies.clear()
    assert fetch(web, folder).model_digest == sha256(path.read_bytes()).hexdigest()


def test_an_unchanged_source_is_not_downloaded_again(
    web: SimpleNamespace, served: Path, folder: Path, write_model: WriteModel
) -> None:
    write_model(served / "m.onnx", weights="weights.bin")
    first = fetch(web, folder)
    inode = first.path.stat().st_ino
    assert fetch(web, folder) == first
    assert first.path.stat().st_ino == inode


def test_a_changed_source_leaves_the_earlier_model_alone(
    web: SimpleNamespace, served: Path, folder: Path, write_model: WriteModel
) -> None:
    write_model(served / "m.onnx", weights="weights.bin")
    first = fetch(web, folder)
    (served / "weights.bin").write_bytes(bytes((served / "weights.bin").stat().st_size))
    second = fetch(web, folder)
    assert second.model_digest == first.model_digest
    assert second.source_digest != first.source_digest
    assert (first.path.parent / "weights.bin").read_bytes() != (second.path.parent / "weights.bin").read_bytes()


def test_a_downloaded_file_that_was_changed_here_is_downloaded_again(
    web: SimpleNamespace, served: Path, folder: Path, write_model: WriteModel
) -> None:
    path = write_model(served / "m.onnx")
    first = fetch(web, folder)
    first.path.write_bytes(bytes(first.size_bytes))
    assert fetch(web, folder).path.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("statuses", "want_reason", "want_retry", "want_requests"),
    [
        ([404], "NotFound", False, 1),
        ([410], "NotFound", False, 1),
        ([401], "AccessDenied", False, 1),
        ([403], "AccessDenied", False, 1),
        ([400], "SourceFailed", False, 1),
        ([503] * 3, "ConnectionLost", True, 3),
        ([429] * 3, "ConnectionLost", True, 3),
    ],
)
def test_an_answer_that_is_no_file_is_named(
    web: SimpleNamespace,
    served: Path,
    folder: Path,
    write_model: WriteModel,
    statuses: list[int],
    want_reason: str,
    want_requests: int,
    *,
    want_retry: bool,
) -> None:
    write_model(served / "m.onnx")
    web.statuses = list(statuses)
    with pytest.raises(SourceError, match=str(statuses[0])) as caught:
        fetch(web, folder)
    assert caught.value.reason == want_reason
    assert caught.value.retry is want_retry
    assert len(web.requests) == want_requests


def test_an_overloaded_server_is_asked_again(
    web: SimpleNamespace, served: Path, folder: Path, write_model: WriteModel
) -> None:
    write_model(served / "m.onnx")
    web.statuses = [503, 500]
    assert fetch(web, folder).path.exists()


def test_a_body_that_is_always_short_is_refused(
    web: SimpleNamespace, served: Path, folder: Path, write_model: WriteModel
) -> None:
    write_model(served / "m.onnx")
    web.shortened, web.ranges = True, False
    with pytest.raises(SourceError) as caught:
        fetch(web, folder)
    assert caught.value.reason == "Truncated"
    assert not (folder / "models").exists()


def test_a_server_that_is_not_there_is_a_lost_connection(folder: Path) -> None:
    with pytest.raises(SourceError, match=r"127\.0\.0\.1:9") as caught:
        fetch(SimpleNamespace(url="http://127.0.0.1:9"), folder)
    assert caught.value.reason == "ConnectionLost"
    assert caught.value.retry


@pytest.mark.parametrize(
    ("body", "expected", "want_error", "want_reason"),
    [
        (None, "0" * 64, SourceError, "DigestMismatch"),
        (b"<html>Please sign in</html>", None, ModelError, "NotOnnx"),
    ],
    ids=["another digest", "a login page"],
)
def test_nothing_is_kept_of_what_was_not_wanted(
    web: SimpleNamespace,
    served: Path,
    folder: Path,
    write_model: WriteModel,
    body: bytes | None,
    expected: str | None,
    want_error: type[EnginesmithError],
    want_reason: str,
) -> None:
    write_model(served / "m.onnx")
    if body is not None:
        web.bodies["m.onnx"] = body
    with pytest.raises(want_error) as caught:
        fetch(web, folder, expected=expected)
    assert caught.value.reason == want_reason
    assert files_below(folder) == []


def test_missing_weights_are_named(web: SimpleNamespace, served: Path, folder: Path, write_model: WriteModel) -> None:
    write_model(served / "m.onnx", weights="weights.bin")
    (served / "weights.bin").unlink()
    with pytest.raises(SourceError, match=r"weights\.bin.*'w'") as caught:
        fetch(web, folder)
    assert caught.value.reason == "ExternalDataMissing"


def test_no_file_outside_the_folder_is_asked_for(
    web: SimpleNamespace, served: Path, folder: Path, write_naming: WriteModel
) -> None:
    write_naming(served / "m.onnx", "../secret")
    with pytest.raises(SourceError) as caught:
        fetch(web, folder)
    assert caught.value.reason == "PathEscapes"
    assert len(web.requests) == 1


def test_short_weights_are_refused_and_not_kept(
    web: SimpleNamespace, served: Path, folder: Path, write_naming: WriteModel
) -> None:
    write_naming(served / "m.onnx", "weights.bin", length="65")
    (served / "weights.bin").write_bytes(bytes(64))
    with pytest.raises(SourceError) as caught:
        fetch(web, folder)
    assert caught.value.reason == "Truncated"
    assert files_below(folder) == []


def test_secrets_of_the_address_are_not_in_messages_nor_in_names(web: SimpleNamespace, folder: Path) -> None:
    uri = web.url.replace("://", "://user:hunter2@") + "/gone.onnx?X-Amz-Signature=hunter3"
    with pytest.raises(SourceError) as caught:
        fetch_model(ModelSource(uri=uri), folder, SilentReporter(), retry=IMPATIENT)
    assert "gone.onnx" in str(caught.value)
    assert "hunter" not in str(caught.value)
    assert "hunter" not in " ".join(str(path) for path in folder.rglob("*"))


def test_a_token_comes_from_the_environment(
    web: SimpleNamespace,
    served: Path,
    folder: Path,
    write_model: WriteModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_model(served / "m.onnx")
    monkeypatch.setenv(SOURCE_TOKEN, "hunter2")
    fetch(web, folder)
    assert web.authorizations == ["Bearer hunter2"]


def test_an_option_that_the_client_does_not_have_is_refused(web: SimpleNamespace, folder: Path) -> None:
    source = ModelSource(uri=f"{web.url}/m.onnx", options={"endpoint": "x"})
    with pytest.raises(SourceError, match="endpoint") as caught:
        fetch_model(source, folder, SilentReporter())
    assert caught.value.reason == "UnknownOption"


class Canceller(SilentReporter):
    """Stops the work once half of a file has come, as Ctrl-C in a user interface does."""

    @override
    def advance(self, fraction: float, detail: str = "") -> None:
        """Stop at the middle."""
        if fraction >= 0.5:
            raise CancelledBuildError("stopped", where=detail)


def test_a_cancelled_download_goes_on_later(
    web: SimpleNamespace, served: Path, folder: Path, write_model: WriteModel
) -> None:
    path = write_model(served / "m.onnx")
    source = ModelSource(uri=f"{web.url}/m.onnx")
    with pytest.raises(CancelledBuildError):
        fetch_model(source, folder, Canceller())
    assert not (folder / "models").exists()
    assert fetch(web, folder).model_digest == sha256(path.read_bytes()).hexdigest()


FETCH = (
    "import sys; from pathlib import Path; from enginesmith_runtime.fetch.model import fetch_model;"
    "from enginesmith_contract.preparation import ModelSource;"
    "from enginesmith_contract.errors import EnginesmithError;"
    "from enginesmith_runtime.progress import SilentReporter\n"
    "try:\n    print(fetch_model(ModelSource(uri=sys.argv[1]), Path(sys.argv[2]), SilentReporter()).source_digest)\n"
    "except EnginesmithError as error:\n    print(error.reason, error)\n"
)


@pytest.mark.slow
def test_processes_that_fetch_the_same_model_share_one_download(
    web: SimpleNamespace, served: Path, folder: Path, write_model: WriteModel
) -> None:
    write_model(served / "m.onnx", weights="weights.bin")
    command = [sys.executable, "-c", FETCH, f"{web.url}/m.onnx", str(folder)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = {process.communicate()[0].strip() for process in processes}
    assert answers == {fetch(web, folder).source_digest}
    assert len(list((folder / "models").iterdir())) == 1


@pytest.mark.slow
def test_a_full_disk_is_named_with_what_is_needed(
    web: SimpleNamespace, served: Path, tmp_path: Path, write_naming: WriteModel
) -> None:
    write_naming(served / "m.onnx", "weights.bin")
    (served / "weights.bin").write_bytes(bytes(3 << 20))
    (tmp_path / "disk").mkdir()
    mount = 'mount -t tmpfs -o size=2m tmpfs "$1" && exec "$0" -c "$2" "$3" "$1"'
    run = subprocess.run(
        [
            *("unshare", "--map-root-user", "--mount", "sh", "-c", mount),
            *(sys.executable, tmp_path / "disk", FETCH, f"{web.url}/m.onnx"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.startswith("DiskFull ")
    assert "3.0 MiB are needed" in run.stdout
