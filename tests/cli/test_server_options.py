"""What a server is told: the documents' fields, and the command line's where it names them."""

import argparse

import pytest

from enginesmith_cli.options import add_home_options, add_server_options
from enginesmith_cli.server_process import serve_request
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


def test_the_command_line_goes_before_the_document() -> None:
    (engine,) = load_documents(_DOCUMENT.format(name="a", queued=9, streams=5), where="engine.yaml")
    request = serve_request([(engine, "cpu", "1" * 64)], _arguments("--max-queued", "0", "--max-streams", "3"))
    assert (request.models[0].max_queued, request.max_streams) == (0, 3)


@pytest.mark.parametrize("words", [("--max-queued", "-1"), ("--max-queued", "4097"), ("--max-streams", "0")])
def test_a_number_that_no_server_has_is_refused(words: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _arguments(*words)
    assert "not a whole number" in capsys.readouterr().err
