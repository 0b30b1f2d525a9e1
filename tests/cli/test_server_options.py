"""What a server is told: the documents' fields, and the command line's where it names them."""

import argparse
from pathlib import Path

import pytest

from enginesmith_cli.options import add_home_options, add_server_options, require_usable_access
from enginesmith_cli.server_process import secrets_note, serve_request
from enginesmith_contract.errors import ServeError
from enginesmith_contract.serve_request import BatchingOptions, ClientLimits, QueueOptions, TlsFiles
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.api.load import load_documents

_DOCUMENT = """\
apiVersion: enginesmith.io/v1alpha1
kind: InferenceEngine
metadata: {{name: {name}}}
spec:
  model: {{uri: model.onnx}}
  serving: {{maxQueued: {queued}, maxStreams: {streams}}}
  targets:
    - {{name: gpu, backendOptions: {{spin: "false"}}}}
    - {{name: cpu, backend: onnxruntime, backendOptions: {{intraOpThreads: "2", spinning: "false"}}}}
"""


def _arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_server_options(parser)
    add_home_options(parser)
    return parser.parse_args(["--store", "/store", *words])


def test_each_model_has_its_target_s_options_and_its_own_queue() -> None:
    text = "---\n".join(
        _DOCUMENT.format(name=name, queued=queued, streams=streams)
        for name, queued, streams in (("a", 0, 7), ("b", 9, 5))
    )
    first, second = load_documents(text, where="engine.yaml")
    request = serve_request([(first, "cpu", "1" * 64), (second, "gpu", "2" * 64)], _arguments())
    assert [model.max_queued for model in request.models] == [0, 9]
    assert [model.backend_options for model in request.models] == [
        {"intraOpThreads": "2", "spinning": "false"},
        {"spin": "false"},
    ]
    assert request.max_streams == 7


def test_a_model_has_its_document_s_batching_and_queue_and_defaults_are_left_out() -> None:
    text = "---\n".join(_DOCUMENT.format(name=name, queued=1, streams=1) for name in ("a", "b"))
    settings = """batching: {maxQueueDelay: 2ms, preferredBatchSizes: [4, 8], maxBatchSize: 16},
      queue: {timeout: 500ms, priorityLevels: 3, defaultPriorityLevel: 2}, responseCache: {size: 1Mi}, """
    own = text.replace("serving: {", f"serving: {{{settings}", 1)
    first, second = load_documents(own.replace("serving: {max", "serving: {batching: {}, max"), where="engine.yaml")
    served, other = serve_request([(first, "cpu", "1" * 64), (second, "cpu", "2" * 64)], _arguments()).models
    assert served.batching == BatchingOptions(
        max_queue_delay_seconds=0.002, preferred_batch_sizes=(4, 8), max_batch_size=16
    )
    assert served.queue == QueueOptions(timeout_seconds=0.5, priority_levels=3, default_priority_level=2)
    assert served.response_cache_bytes == 1 << 20
    # A default is in no request, so that an upgrade changes no pod.
    assert other.batching is None
    assert (other.queue, other.response_cache_bytes) == (None, None)
    assert b"atching" not in other.to_json()


def test_the_command_line_goes_before_the_document() -> None:
    (engine,) = load_documents(_DOCUMENT.format(name="a", queued=9, streams=5), where="engine.yaml")
    request = serve_request([(engine, "cpu", "1" * 64)], _arguments("--max-queued", "0", "--max-streams", "3"))
    assert (request.models[0].max_queued, request.max_streams) == (0, 3)


@pytest.mark.parametrize("words", [("--max-queued", "-1"), ("--max-queued", "4097"), ("--max-streams", "0")])
def test_a_number_that_no_server_has_is_refused(words: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _arguments(*words)
    assert "not a whole number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("http", "words", "want"),
    [
        ("", (), None),
        ("http: {enabled: true}", (), "127.0.0.1:8000"),
        ("http: {enabled: true}", ("--http-address", "none"), None),
        ("", ("--http-address", "0.0.0.0:9000"), "0.0.0.0:9000"),
    ],
)
def test_http_is_offered_where_it_is_asked_for(http: str, words: tuple[str, ...], want: str | None) -> None:
    text = _DOCUMENT.format(name="a", queued=9, streams=5).replace(
        "maxQueued", f"{http}, maxQueued" if http else "maxQueued"
    )
    (engine,) = load_documents(text, where="engine.yaml")
    assert serve_request([(engine, "cpu", "1" * 64)], _arguments(*words)).http_address == want


def _with_access(serving: str, name: str = "a") -> InferenceEngine:
    text = _DOCUMENT.format(name=name, queued=1, streams=1).replace("serving: {", f"serving: {{{serving}, ")
    (engine,) = load_documents(text, where="engine.yaml")
    return engine


def test_files_take_the_place_of_the_secrets_of_a_document(tmp_path: Path) -> None:
    engine = _with_access("tls: {secretName: a-tls}, auth: {tokensSecretName: a-tokens}")
    words = ("--tls-cert", str(tmp_path / "tls.crt"), "--tls-key", str(tmp_path / "tls.key"), "--tokens", str(tmp_path))
    request = serve_request([(engine, "cpu", "1" * 64)], _arguments(*words))
    assert request.tls == TlsFiles(certificate=str(tmp_path / "tls.crt"), key=str(tmp_path / "tls.key"))
    assert request.tokens == str(tmp_path)
    assert secrets_note([engine], _arguments(*words)) == ""
    plain = serve_request([(engine, "cpu", "1" * 64)], _arguments())
    assert (plain.tls, plain.tokens) == (None, None)
    note = secrets_note([engine], _arguments())
    assert "speaks plaintext; give --tls-cert and --tls-key" in note
    assert "calls need no token; give --tokens" in note


def test_the_largest_client_limits_hold_and_a_document_without_any_has_none() -> None:
    first = _with_access("clientLimits: {maxInFlight: 4, requestsPerSecond: 10}")
    second = _with_access("clientLimits: {maxInFlight: 8}", "b")
    third = _with_access("http: {enabled: true}", "c")
    chosen = [(engine, "cpu", "1" * 64) for engine in (first, second, third)]
    assert serve_request(chosen[:1], _arguments()).client_limits == ClientLimits(
        max_in_flight=4, requests_per_second=10
    )
    assert serve_request(chosen[:2], _arguments()).client_limits == ClientLimits(max_in_flight=8)
    assert serve_request(chosen, _arguments()).client_limits is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--tls-cert", "tls.crt"), "one of --tls-cert and --tls-key is missing"),
        (("--tls-client-ca", "ca.crt"), "one of --tls-cert and --tls-key is missing"),
        (("--tls-cert", "no.crt", "--tls-key", "no.key"), "no.crt: cannot serve TLS: there is no such file"),
        (("--tokens", "/nowhere"), "/nowhere: there are no tokens to check calls with: No such file or directory"),
        (("--tokens", "."), "it has no file"),
    ],
)
def test_files_that_no_server_takes_are_refused_before_anything_is_built(
    words: tuple[str, ...], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ServeError) as caught:
        require_usable_access(_arguments(*words))
    assert sentence in caught.value.sentence()
