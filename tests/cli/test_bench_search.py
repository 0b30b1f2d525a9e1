"""What `bench` tries and what it recommends, without a server: the search gets its figures from a function."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml

from enginesmith_cli.bench.candidates import Place, candidates
from enginesmith_cli.bench.client import Report
from enginesmith_cli.bench.measure import Load, measured_from
from enginesmith_cli.bench.plot import plot
from enginesmith_cli.bench.report import page, report_document
from enginesmith_cli.bench.search import Found, Measured, Trial, search
from enginesmith_cli.bench.settings import FROM_FILE, Settings
from enginesmith_cli.bench.wanted import DIMENSIONS, Objective
from enginesmith_contract.backends import Backend
from enginesmith_contract.errors import SpecError
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.api.load import load_documents

_DOCUMENT = """\
apiVersion: enginesmith.io/v1alpha1
kind: InferenceEngine
metadata: {name: mlp}
spec:
  model: {uri: mlp.onnx}
  serving: {instances: 2, drainDelay: 100ms}
  targets:
    - {name: gpu}
    - {name: cpu, backend: onnxruntime, backendOptions: {cpuArena: "false"}}
"""


def _engine() -> InferenceEngine:
    (engine,) = load_documents(_DOCUMENT, where="engine.yaml")
    return engine


def _place(backend: Backend = Backend.ONNXRUNTIME, *, cpus: int = 4, joins: bool = True) -> Place:
    target = "cpu" if backend is Backend.ONNXRUNTIME else "gpu"
    return Place(engine=_engine(), target=target, backend=backend, joins=joins, cpus=cpus)


def _measured(rate: float, *, p99_ms: float = 10.0, load: float = 0.2, refused: int = 0) -> Measured:
    refusal = "RESOURCE_EXHAUSTED: the queue is full" if refused else ""
    return Measured(
        requests_per_second=rate, p50_ms=5.0, p99_ms=p99_ms, cpu_us=300.0, client_load=load, refused=refused,
        refusal=refusal,
    )  # fmt: skip


def _labels(found: Found) -> list[str]:
    return [trial.settings.label for trial in found.trials]


def _search(rate: Callable[[Settings], float], place: Place, objective: Objective = Objective.THROUGHPUT) -> Found:
    def measure(dimension: str, settings: Settings) -> Trial:
        return Trial(dimension=dimension, settings=settings, measured=_measured(rate(settings), p99_ms=rate(settings)))

    return search(DIMENSIONS, lambda dimension, best: candidates(dimension, place, best), measure, objective)


def test_each_dimension_starts_from_the_best_of_the_one_before_and_the_winner_is_measured_again() -> None:
    def rate(settings: Settings) -> float:
        four = settings.serving.get("instances") == 4
        return 100.0 + 50 * four + 20 * (settings.backend_options.get("spinning") == "true")

    found = _search(rate, _place())
    assert found.settings.serving == {"instances": 4}
    assert found.settings.backend_options == {"spinning": "true"}
    assert found.gain == pytest.approx(1.7)
    best = "instances=4 spinning=true"
    assert _labels(found)[0] == "as in the file"
    assert _labels(found)[-2:] == ["as in the file", best]
    assert f"instances=4 frontEnds=1 {best.partition(' ')[2]}" in _labels(found)


def test_the_file_s_settings_stay_where_nothing_is_clearly_better() -> None:
    found = _search(lambda settings: 102.0 if settings.serving else 100.0, _place())
    assert (found.settings, found.gain) == (FROM_FILE, 1.0)
    assert "again" not in {trial.dimension for trial in found.trials}


def test_a_winner_that_does_not_win_again_is_not_recommended() -> None:
    seen: set[str] = set()

    def lucky_once(settings: Settings) -> float:
        first = settings.label not in seen
        seen.add(settings.label)
        return 150.0 if first and settings.serving.get("instances") == 1 else 100.0

    found = _search(lucky_once, _place())
    assert found.trials[-1].settings.serving == {"instances": 1}
    assert found.settings == FROM_FILE


def test_the_latency_objective_looks_for_the_lowest_p99() -> None:
    found = _search(
        lambda settings: 5.0 if settings.serving.get("instances") == 1 else 10.0, _place(), Objective.LATENCY
    )
    assert found.settings.serving == {"instances": 1}
    assert found.gain == pytest.approx(2.0)


def test_settings_that_fail_or_refuse_requests_are_shown_and_never_recommended() -> None:
    def measure(dimension: str, settings: Settings) -> Trial:
        match settings.serving.get("instances"):
            case 1:
                return Trial(dimension=dimension, settings=settings, failure="the server did not start: no memory")
            case 4:
                return Trial(dimension=dimension, settings=settings, measured=_measured(900.0, refused=7))
            case _:
                return Trial(dimension=dimension, settings=settings, measured=_measured(100.0))

    place = _place()
    propose = lambda dimension, best: candidates(dimension, place, best)  # noqa: E731 - as the command does
    found = search(["instances"], propose, measure, Objective.THROUGHPUT)
    text = "\n".join(page(found, "cpu", Objective.THROUGHPUT))
    assert found.settings == FROM_FILE
    assert "no memory" in text
    assert "7 refused" in text
    assert "serving.maxQueued" in text


@pytest.mark.parametrize(
    ("backend", "cpus", "dimension", "want"),
    [
        (Backend.ONNXRUNTIME, 1, "instances", ["instances=1"]),
        (Backend.ONNXRUNTIME, 16, "instances", ["instances=1", "instances=4", "instances=8"]),
        (Backend.TENSORRT, 2, "instances", ["instances=1", "instances=3", "instances=4"]),
        (Backend.ONNXRUNTIME, 4, "threads", ["intraOpThreads=1", "intraOpThreads=2", "spinning=true"]),
        (Backend.TENSORRT, 4, "threads", ["spin=true", "spin=false"]),
        (Backend.ONNXRUNTIME, 1, "frontEnds", ["frontEnds=1"]),
        (Backend.ONNXRUNTIME, 16, "frontEnds", ["frontEnds=1", "frontEnds=2", "frontEnds=4"]),
    ],
)
def test_candidates_fit_the_machine_and_the_backend(
    backend: Backend, cpus: int, dimension: str, want: list[str]
) -> None:
    found = candidates(dimension, _place(backend, cpus=cpus), FROM_FILE)
    assert [one.label for one in found] == want


def test_threads_that_the_document_states_are_shared_out_among_the_instances() -> None:
    stated = Settings(backend_options={"intraOpThreads": "4"})
    found = candidates("instances", _place(), stated)
    want = ["instances=1 intraOpThreads=4", "instances=2 intraOpThreads=2", "instances=4 intraOpThreads=1"]
    assert [one.label for one in found] == want


def test_a_model_that_was_not_proved_to_batch_gets_no_candidate_for_batching() -> None:
    assert candidates("batching", _place(joins=False), FROM_FILE) == ()


@pytest.mark.parametrize(
    ("stated", "want"),
    [
        ("", [{"enabled": False}, {"maxQueueDelay": "1ms"}, {"maxQueueDelay": "5ms"}]),
        (
            "batching: {enabled: false}",
            [{"enabled": True, "maxQueueDelay": delay} for delay in ("0s", "1ms", "5ms")],
        ),
        (
            "batching: {maxQueueDelay: 1ms, maxBatchSize: 4}",
            [{"enabled": False}, *({"maxQueueDelay": delay, "maxBatchSize": 4} for delay in ("0s", "5ms"))],
        ),
    ],
)
def test_batching_is_tried_with_other_delays_and_without(stated: str, want: list[dict[str, object]]) -> None:
    (engine,) = load_documents(_DOCUMENT.replace("drainDelay: 100ms", stated), where="engine.yaml")
    place = replace(_place(), engine=engine)
    found = candidates("batching", place, FROM_FILE)
    assert [one.serving["batching"] for one in found] == want
    enabled = [one.applied_to(engine, "cpu").spec.serving.batching.enabled for one in found]
    assert enabled == [one.get("enabled", True) for one in want]


def test_every_candidate_is_a_document_that_can_be_served() -> None:
    place = _place()
    for dimension in DIMENSIONS:
        for settings in candidates(dimension, place, FROM_FILE):
            changed = settings.applied_to(place.engine, "cpu")
            gpu, cpu = changed.spec.targets
            assert changed.spec.serving.drain_delay_seconds == pytest.approx(0.1)
            assert cpu.backend_options == {"cpuArena": "false", **settings.backend_options}
            assert gpu == place.engine.spec.targets[0]


def test_settings_that_no_document_can_have_are_refused_with_their_names() -> None:
    with pytest.raises(SpecError, match="cpu: instances=99"):
        Settings(serving={"instances": 99}).applied_to(_engine(), "cpu")


def test_the_recommendation_is_yaml_that_works_when_pasted() -> None:
    settings = Settings(serving={"instances": 4}, backend_options={"intraOpThreads": "1"})
    trial = Trial(dimension="file", settings=FROM_FILE, measured=_measured(100.0, load=0.97))
    found = Found(trials=(trial,), settings=settings, gain=1.5)
    text = "\n".join(page(found, "cpu", Objective.THROUGHPUT))
    pasted = yaml.safe_load(text[text.index("spec:") :])
    assert pasted == {
        "spec": {"serving": {"instances": 4}, "targets": [{"name": "cpu", "backendOptions": {"intraOpThreads": "1"}}]}
    }
    assert "1.50 times better" in text
    assert "--clients" in text
    document = report_document(found, "cpu", {"model": "mlp"})
    assert document["recommendation"] == {"gain": 1.5, "document": pasted}


def test_the_figures_of_several_clients_are_put_together() -> None:
    reports = [
        Report(latencies_us=tuple(range(1000, 1100)), cpu_seconds=0.5),
        Report(latencies_us=tuple(range(2000, 2100)), cpu_seconds=1.9, refused=2, refusal="UNAVAILABLE: gone"),
    ]
    found = measured_from(reports, 2.0, 0.04)
    assert found.requests_per_second == pytest.approx(100.0)
    assert found.p50_ms == pytest.approx(2.0)
    assert found.p99_ms == pytest.approx(2.098)
    assert found.cpu_us == pytest.approx(200.0)
    assert found.client_load == pytest.approx(0.95)
    assert (found.refused, found.refusal) == (2, "UNAVAILABLE: gone")


def test_clients_share_requests_and_connections() -> None:
    load = Load(in_flight=7, clients=3, connections=2, warm_up_seconds=0.1, seconds=1.0, timeout_seconds=1.0)
    orders = list(load.orders("127.0.0.1:1", Path("message")))
    assert [order.in_flight for order in orders] == [3, 2, 2]
    assert [order.connections for order in orders] == [1, 1, 1]


def test_the_picture_has_two_bars_for_each_setting_that_was_measured() -> None:
    trials = [
        Trial(dimension="file", settings=FROM_FILE, measured=_measured(100.0)),
        Trial(dimension="instances", settings=Settings(serving={"instances": 4}), measured=_measured(200.0)),
        Trial(dimension="instances", settings=Settings(serving={"instances": 8}), failure="no <memory>"),
    ]
    root = ET.fromstring(plot(trials, "mlp & others"))  # noqa: S314 - our own
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{space}rect")) == 1 + 2 * 2
    texts = [element.text for element in root.findall(f"{space}text")]
    assert "mlp & others" in texts
    assert "instances=8" not in texts
