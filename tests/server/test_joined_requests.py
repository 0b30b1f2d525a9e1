"""Requests of several clients as one inference of a real engine: the answers, the failures and the counters."""

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from tests.server.engine_store import EngineStore, Publication
from tests.server.joined_models import MODELS, MOST
from typing_extensions import override

from enginesmith_contract.errors import DeviceFailedError
from enginesmith_contract.preparation import Batching
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.protos import inference_pb2 as pb
from enginesmith_contract.serve_request import BatchingOptions, QueueOptions, ServedModel
from enginesmith_runtime.progress import SilentReporter
from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.job import Job
from enginesmith_runtime.server.loading import Loading, load_model
from enginesmith_runtime.server.model import LoadedModel
from enginesmith_runtime.server.protocol.infer import Inference, InferenceLimits
from enginesmith_runtime.server.protocol.model_description import describe_config, describe_statistics
from enginesmith_runtime.server.protocol.request_plan import RequestPlan
from enginesmith_runtime.server.repository import Repository
from enginesmith_runtime.server.transport.interface import Answer, CallContext

Arrays = Mapping[str, np.ndarray]
_NAMES = {np.dtype(np.float32): "FP32", np.dtype(np.int64): "INT64", np.dtype(np.object_): "BYTES"}


class _Blocker(Job):
    """Holds an instance until the test lets it go."""

    def __init__(self) -> None:
        super().__init__(CallContext())
        self.begun, self.may_end = threading.Event(), threading.Event()

    @override
    def run(self, instance: object) -> None:
        self.begun.set()
        assert self.may_end.wait(120)

    @override
    def refuse(self, error: ProtocolError) -> None:
        raise error


class _Caller(CallContext):
    gone = False

    @property
    @override
    def cancelled(self) -> bool:
        return self.gone


class _Bench:
    """One model in this process, whose only instance a test can keep busy."""

    def __init__(self, model: LoadedModel, path: Path, inference: Inference) -> None:
        self.model = model
        self._inference = inference
        self.session = onnxruntime.InferenceSession(str(path))
        self.outcomes: dict[str, Answer | ProtocolError] = {}
        self._answered = threading.Semaphore(0)
        self.order: list[str] = []

    def send(self, name: str, inputs: Arrays, context: CallContext | None = None, **fields: Any) -> None:
        """Send a request, which waits while the instance is busy."""

        def reply(outcome: Answer | ProtocolError) -> None:
            self.outcomes[name] = outcome
            self.order.append(name)
            self._answered.release()

        self._inference.infer(_request(self.model.name, inputs, **fields), context or CallContext(), reply)

    def join(self, requests: Mapping[str, Arrays], **fields: Any) -> dict[str, Answer | ProtocolError]:
        """Send requests that all wait at once; returns what each got."""
        blocker = self.block()
        for name, inputs in requests.items():
            self.send(name, inputs, **fields)
        assert self.model.pool.waiting == len(requests)
        return self.release(blocker, len(requests))

    def block(self) -> _Blocker:
        blocker = _Blocker()
        self.model.pool.submit(blocker)
        assert blocker.begun.wait(120)
        return blocker

    def release(self, blocker: _Blocker, count: int) -> dict[str, Answer | ProtocolError]:
        blocker.may_end.set()
        for _ in range(count):
            assert self._answered.acquire(timeout=120)
        return self.outcomes

    @property
    def runs(self) -> dict[int, int]:
        """How many runs there were of each size."""
        statistics = describe_statistics(self.model)
        return {batch.batch_size: batch.compute_infer.count for batch in statistics.batch_stats}


Open = Callable[..., _Bench]


def _lose(error: DeviceFailedError) -> None:
    pytest.fail(str(error))


@pytest.fixture
def open_bench(engine_store: EngineStore, tmp_path: Path) -> Iterator[Open]:
    opened: list[LoadedModel] = []

    def open_one(name: str, *, proved: bool = True, **options: Any) -> _Bench:
        make, ranges = MODELS[name]
        path = make(tmp_path)
        profile = Profile(inputs={key: ShapeRange(min=low, opt=low, max=high) for key, (low, high) in ranges.items()})
        batching = Batching(proved=proved, max_batch_size=MOST if proved else 0, reason="" if proved else "y differs")
        key = engine_store.publish(Publication(model=path, profiles=(profile,), batching=batching))
        served = ServedModel(name=name, target="cpu", engine_key=key, store=engine_store.uri, **options)
        repository = Repository((served,))
        loading = Loading(folder=tmp_path / "loaded", queue_limit=64, reporter=SilentReporter())
        model = load_model(served, loading)
        repository.make_ready(model)
        opened.append(model)
        return _Bench(model, path, Inference(repository, InferenceLimits(max_message_bytes=1 << 20), None, _lose))

    yield open_one
    for model in opened:
        model.pool.close(10)


def _request(model: str, inputs: Arrays, **fields: Any) -> bytes:
    def raw(array: np.ndarray) -> bytes:
        if array.dtype != np.object_:
            return array.tobytes()
        return b"".join(len(value).to_bytes(4, "little") + value for value in array)

    return pb.ModelInferRequest(
        model_name=model,
        inputs=[
            pb.ModelInferRequest.InferInputTensor(name=name, datatype=_NAMES[array.dtype], shape=array.shape)
            for name, array in inputs.items()
        ],
        raw_input_contents=[raw(array) for array in inputs.values()],
        **fields,
    ).SerializeToString()


def _body(outcome: Answer | ProtocolError) -> bytes:
    assert isinstance(outcome, Answer), outcome
    return outcome.body


def _answer(outcome: Answer | ProtocolError) -> pb.ModelInferResponse:
    return pb.ModelInferResponse.FromString(_body(outcome))


def _floats(outcome: Answer | ProtocolError, index: int = 0) -> np.ndarray:
    answer = _answer(outcome)
    return np.frombuffer(answer.raw_output_contents[index], np.float32).reshape(answer.outputs[index].shape)


def _rows(seed: int, count: int) -> Arrays:
    return {"x": np.random.default_rng(seed).normal(size=(count, 64)).astype(np.float32)}


def test_what_waits_runs_at_once_and_each_gets_its_own_rows(open_bench: Open) -> None:
    bench = open_bench("mlp")
    requests = {f"{number}": _rows(number, 1 + number % 3) for number in range(6)}
    outcomes = bench.join(requests, id="mine")
    for name, inputs in requests.items():
        (alone,) = bench.session.run(None, dict(inputs))
        np.testing.assert_allclose(_floats(outcomes[name]), alone, rtol=1e-5, atol=1e-6)
        assert _answer(outcomes[name]).id == "mine"
    assert bench.runs == {12: 1}
    statistics = describe_statistics(bench.model)
    assert (statistics.inference_count, statistics.execution_count) == (12, 1)
    stats = statistics.inference_stats
    assert (stats.success.count, stats.queue.count, stats.compute_infer.count) == (6, 6, 6)
    assert stats.compute_infer.ns == 6 * statistics.batch_stats[0].compute_infer.ns


def test_more_than_a_batch_becomes_several(open_bench: Open) -> None:
    bench = open_bench("mlp", batching=BatchingOptions(max_batch_size=4))
    requests = {f"{number}": _rows(number, 1) for number in range(10)}
    outcomes = bench.join(requests)
    assert bench.runs == {2: 1, 4: 2}
    for name, inputs in requests.items():
        (alone,) = bench.session.run(None, dict(inputs))
        np.testing.assert_allclose(_floats(outcomes[name]), alone, rtol=1e-5, atol=1e-6)


def test_only_equal_shapes_and_outputs_are_joined(open_bench: Open) -> None:
    bench = open_bench("texts")

    def inputs(word: bytes, rows: int, width: int) -> Arrays:
        a = np.full((rows, width), len(word), np.float32)
        return {"s": np.array([word] * rows, np.object_), "a": a, "b": a}

    requests = {"one": inputs(b"one", 1, 2), "wide": inputs(b"wide", 1, 3), "three": inputs(b"three", 2, 2)}
    blocker = bench.block()
    for name, one in requests.items():
        bench.send(name, one)
    bench.send("part", inputs(b"part", 1, 2), outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="c")])
    outcomes = bench.release(blocker, 4)
    assert bench.runs == {1: 2, 3: 1}
    for name, one in requests.items():
        answer = _answer(outcomes[name])
        word = name.encode()
        assert answer.raw_output_contents[0] == (len(word).to_bytes(4, "little") + word) * len(one["s"])
        np.testing.assert_array_equal(_floats(outcomes[name], 1), one["a"] + one["b"])
    assert [output.name for output in _answer(outcomes["part"]).outputs] == ["c"]


def test_of_a_batch_that_fails_only_the_guilty_request_does(open_bench: Open) -> None:
    bench = open_bench("lookup")
    requests = {name: {"at": np.array(at, np.int64)} for name, at in (("a", [1, 2]), ("bad", [99]), ("c", [3]))}
    outcomes = bench.join(requests)
    refused = outcomes["bad"]
    assert isinstance(refused, ProtocolError)
    assert refused.code is Code.INTERNAL
    np.testing.assert_array_equal(_floats(outcomes["a"])[:, 0], [4, 8])
    np.testing.assert_array_equal(_floats(outcomes["c"])[:, 0], [12])
    statistics = describe_statistics(bench.model)
    assert (statistics.inference_stats.success.count, statistics.inference_stats.fail.count) == (2, 1)


def test_an_answer_is_the_same_with_others_as_alone(open_bench: Open) -> None:
    bench = open_bench("lookup")
    requests = {f"{number}": {"at": np.arange(1 + number % 3)} for number in range(6)}
    alone = {name: _body(bench.join({name: inputs}, id="mine")[name]) for name, inputs in requests.items()}
    for _ in range(2):
        outcomes = bench.join(requests, id="mine")
        assert {name: _body(outcome) for name, outcome in outcomes.items()} == alone
    assert bench.runs == {1: 2, 2: 2, 3: 2, 12: 2}


def test_a_wrong_request_is_refused_before_it_waits(open_bench: Open) -> None:
    bench = open_bench("mlp")
    blocker = bench.block()
    bench.send("right", _rows(1, 2))
    with pytest.raises(ProtocolError, match="dimension 1"):
        bench.send("wrong", {"x": np.zeros((1, 63), np.float32)})
    with pytest.raises(ProtocolError, match="lies outside"):
        bench.send("large", _rows(1, MOST + 1))
    outcomes = bench.release(blocker, 1)
    assert set(outcomes) == {"right"}
    assert bench.runs == {2: 1}


def test_a_request_that_was_cancelled_or_is_late_costs_the_others_nothing(open_bench: Open) -> None:
    bench = open_bench("mlp")
    blocker = bench.block()
    gone, late = _Caller(), _Caller(deadline=0.0)
    for name, context in (("a", None), ("gone", gone), ("late", late), ("d", None)):
        bench.send(name, _rows(1, 1), context)
    gone.gone = True
    outcomes = bench.release(blocker, 4)
    codes = {name: one.code for name, one in outcomes.items() if isinstance(one, ProtocolError)}
    assert codes == {"gone": Code.CANCELLED, "late": Code.DEADLINE_EXCEEDED}
    assert bench.runs == {2: 1}


def test_an_output_without_a_row_for_each_row_is_not_split(open_bench: Open) -> None:
    bench = open_bench("doubling")
    requests = {f"{number}": {"x": np.full((1, 4), number, np.float32)} for number in range(3)}
    outcomes = bench.join(requests)
    for name, inputs in requests.items():
        np.testing.assert_array_equal(_floats(outcomes[name]), np.concatenate([inputs["x"]] * 2))
    assert bench.runs == {1: 3}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"proved": False}, "the preparation did not prove it: y differs"),
        ({"batching": BatchingOptions(enabled=False)}, "serving.batching.enabled is false"),
        ({"batching": BatchingOptions(max_batch_size=1)}, "one row"),
    ],
)
def test_requests_run_alone_where_nothing_was_proved_or_wanted(
    open_bench: Open, caplog: pytest.LogCaptureFixture, options: dict[str, Any], reason: str
) -> None:
    caplog.set_level("INFO")
    bench = open_bench("mlp", **options)
    bench.join({f"{number}": _rows(number, 1) for number in range(3)})
    assert bench.runs.get(3) is None
    assert describe_statistics(bench.model).execution_count == 3
    assert not describe_config(bench.model).HasField("dynamic_batching")
    assert any("requests are not joined" in line and reason in line for line in caplog.messages)


def test_the_description_tells_a_client_how_requests_are_joined(open_bench: Open) -> None:
    batching = BatchingOptions(max_queue_delay_seconds=0.002, preferred_batch_sizes=(4, 8))
    queue = QueueOptions(timeout_seconds=1.5, priority_levels=3, default_priority_level=2)
    described = describe_config(open_bench("mlp", batching=batching, queue=queue).model).dynamic_batching
    assert described.max_queue_delay_microseconds == 2000
    assert list(described.preferred_batch_size) == [4, 8]
    assert (described.priority_levels, described.default_priority_level) == (3, 2)
    assert described.default_queue_policy.default_timeout_microseconds == 1_500_000
    assert described.default_queue_policy.max_queue_size == 64


def test_requests_run_by_priority_where_the_model_has_levels(open_bench: Open) -> None:
    bench = open_bench(
        "mlp",
        batching=BatchingOptions(enabled=False),
        queue=QueueOptions(priority_levels=3, default_priority_level=2),
    )
    blocker = bench.block()
    for name, level in (("low", 3), ("none", None), ("unknown", 9), ("high", 1)):
        parameter = {"priority": pb.InferParameter(uint64_param=level)} if level else {}
        bench.send(name, _rows(1, 1), parameters=parameter)
    bench.release(blocker, 4)
    assert bench.order == ["high", "none", "unknown", "low"]


def test_a_repeated_request_is_answered_without_a_run(open_bench: Open) -> None:
    bench = open_bench("mlp", response_cache_bytes=1 << 20)
    requests = {f"{number}": _rows(number, 1 + number) for number in range(3)}
    first = {name: _floats(one) for name, one in bench.join(requests).items()}
    # Another request in the instance's memory must not change what was kept.
    bench.join({"other": _rows(9, 4)})
    for name, inputs in requests.items():
        bench.send(f"{name} again", inputs, id="mine")
        answer = _answer(bench.outcomes[f"{name} again"])
        np.testing.assert_array_equal(_floats(bench.outcomes[f"{name} again"]), first[name])
        assert answer.id == "mine"
    statistics = describe_statistics(bench.model)
    assert (statistics.inference_count, statistics.execution_count) == (10, 2)
    stats = statistics.inference_stats
    assert (stats.success.count, stats.cache_hit.count, stats.cache_miss.count) == (7, 3, 4)
    assert describe_config(bench.model).response_cache.enable


def test_the_cache_tells_inputs_shapes_and_outputs_apart(open_bench: Open) -> None:
    bench = open_bench("texts", response_cache_bytes=1 << 20)

    def inputs(words: list[bytes], width: int = 2) -> Arrays:
        a = np.ones((len(words), width), np.float32)
        return {"s": np.array(words, np.object_), "a": a, "b": a}

    only = {"outputs": [pb.ModelInferRequest.InferRequestedOutputTensor(name="c")]}
    for name, one, fields in (
        ("first", inputs([b"ab", b"c"]), {}),
        ("another split of the same bytes", inputs([b"a", b"bc"]), {}),
        ("another width", inputs([b"ab", b"c"], 1), {}),
        ("other outputs", inputs([b"ab", b"c"]), only),
    ):
        bench.join({name: one}, **fields)
    assert describe_statistics(bench.model).inference_stats.cache_hit.count == 0
    assert _answer(bench.outcomes["another split of the same bytes"]).raw_output_contents[0] == (
        b"\x01\0\0\0a\x02\0\0\0bc"
    )


def test_a_failure_is_not_kept(open_bench: Open) -> None:
    bench = open_bench("lookup", response_cache_bytes=1 << 20)
    for _ in range(2):
        outcomes = bench.join({"bad": {"at": np.array([99], np.int64)}})
        assert isinstance(outcomes["bad"], ProtocolError)


@pytest.mark.parametrize(
    ("own_us", "usual", "want"), [(None, None, None), (None, 2.0, 2.0), (10**6, 2.0, 1.0), (3 * 10**6, 2.0, 2.0)]
)
def test_a_request_can_shorten_the_queue_s_timeout_only(
    open_bench: Open, own_us: int | None, usual: float | None, want: float | None
) -> None:
    bench = open_bench("mlp", queue=QueueOptions(timeout_seconds=usual))
    parameters = {"timeout": pb.InferParameter(int64_param=own_us)} if own_us else {}
    message = pb.ModelInferRequest.FromString(_request("mlp", _rows(1, 1), parameters=parameters))
    assert RequestPlan(message, bench.model, raw=True, streamed=False).timeout_seconds == want
