"""ModelInfer and ModelStreamInfer: from the bytes of a request to a job, and from its outputs to the response."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from typing_extensions import override

from enginesmith_contract.errors import DeviceFailedError, InferenceError, SpecError
from enginesmith_contract.protos.inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)
from enginesmith_runtime.engines.interface import Array, DeviceArray, Instance, no_device_memory
from enginesmith_runtime.server.errors import (
    Code,
    ProtocolError,
    device_failed,
    inference_failed,
    internal_error,
)
from enginesmith_runtime.server.instance_pool import Job
from enginesmith_runtime.server.model import LoadedModel
from enginesmith_runtime.server.protocol.joined_run import run_joined
from enginesmith_runtime.server.protocol.joining import RowBytes
from enginesmith_runtime.server.protocol.plan_cache import Layout, PlanCache
from enginesmith_runtime.server.protocol.request_plan import RequestPlan
from enginesmith_runtime.server.protocol.shared_memory_calls import SWITCHED_OFF
from enginesmith_runtime.server.protocol.shared_tensors import SharedTensors
from enginesmith_runtime.server.protocol.tensor_decoding import align
from enginesmith_runtime.server.protocol.wire import split_request, wrap_message
from enginesmith_runtime.server.repository import Repository
from enginesmith_runtime.server.response_cache import ResponseCache
from enginesmith_runtime.server.shared_memory.region_table import RegionTable
from enginesmith_runtime.server.statistics import RunTimes
from enginesmith_runtime.server.tracing import trace_id
from enginesmith_runtime.server.transport.compiling import mypyc_attr
from enginesmith_runtime.server.transport.interface import Answer, Body, Call, CallContext, Reply
from enginesmith_runtime.server.transport.messages import parse

__all__ = ["DeviceLost", "InferJob", "Inference", "InferenceLimits"]

_PlanT = TypeVar("_PlanT", bound=RequestPlan)
DeviceLost = Callable[[DeviceFailedError], None]
_NOTHING: Final[Mapping[str, int]] = {}
_NS_PER_US: Final = 1000

_FIELD_INFER_RESPONSE = ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER


@dataclass(frozen=True, kw_only=True)
class InferenceLimits:
    """The limits of a server; see ServeRequest."""

    max_message_bytes: int


@mypyc_attr(allow_interpreted_subclasses=True)
class Inference:
    """Answers inference requests for the models of a repository.

    Args:
        regions: Shared memory regions; None if shared memory is disabled.
        device_lost: Function to call when an engine reports a device failure. The process must end.
    """

    def __init__(
        self, repository: Repository, limits: InferenceLimits, regions: RegionTable | None, device_lost: DeviceLost
    ) -> None:
        self._repository = repository
        self._limits = limits
        self._regions = regions
        self._device_lost = device_lost
        self._plans = PlanCache()
        self._job = InferJob

    def infer(self, data: Body, context: CallContext, reply: Reply) -> None:
        """Handle ModelInfer.

        Raises:
            ProtocolError: The request was refused before it was queued.
        """
        self._check_size(data)
        layout = self._plans.find(data)
        if layout is not None:
            self._infer_again(layout, data, context, reply)
            return
        parts = split_request(data)
        id_field = parts.id_field
        plan = self._plans.find_plan(parts.head)
        if plan is None:
            plan = self._plan(parse(ModelInferRequest, parts.head), raw=bool(parts.raw), streamed=False)
            if plan.repeatable:
                self._plans.keep(parts.head, plan)
        elif parts.raw:
            self._plans.keep_layout(parts, plan, data)
        self.submit(plan, partial(plan.read_inputs, parts.raw), context, reply, id_field)

    def brief(self, data: Body) -> Call | None:
        """Return a handler for a request whose elements need not be read, or None if only `infer` can handle it."""
        layout = self._plans.find(data)
        return partial(self._infer_again, layout) if layout is not None and layout.is_brief else None

    def _infer_again(self, layout: Layout, data: Body, context: CallContext, reply: Reply) -> None:
        self.submit(layout.plan, partial(layout.read_inputs, data), context, reply, layout.read_id(data))

    def stream_infer(self, data: Body, context: CallContext, reply: Reply) -> None:
        """Handle one request of ModelStreamInfer. A failure is sent as a response, so that the stream continues."""
        request_id = ""

        def reply_in_stream(answer: Answer | ProtocolError) -> None:
            if isinstance(answer, Answer):
                reply(Answer(wrap_message(_FIELD_INFER_RESPONSE, answer.body)))
                return
            failure = ModelStreamInferResponse(
                error_message=answer.message, infer_response=ModelInferResponse(id=request_id)
            )
            reply(Answer(failure.SerializeToString()))

        try:
            self._check_size(data)
            parts = split_request(data)
            request = parse(ModelInferRequest, parts.head + parts.id_field)
            request_id = request.id
            plan = self._plan(request, raw=bool(parts.raw), streamed=True)
            self.submit(plan, partial(plan.read_inputs, parts.raw), context, reply_in_stream)
        except ProtocolError as error:
            reply_in_stream(error)

    def _check_size(self, data: Body) -> None:
        most = self._limits.max_message_bytes
        if len(data) > most:
            raise ProtocolError(
                Code.RESOURCE_EXHAUSTED,
                f"the request has {len(data)} bytes, more than serving.maxMessageBytes allows: {most}; send a "
                "smaller batch or raise the field",
                reason="RequestTooLarge",
            )

    def plan(self, request: ModelInferRequest, make: Callable[[LoadedModel], _PlanT]) -> _PlanT:
        """Return the plan that `make` creates for the model of the request.

        Raises:
            ProtocolError: The model does not exist, or `make` raised the error.
        """
        began_ns = time.perf_counter_ns()
        model = self._repository.find_ready(request.model_name, request.model_version)
        try:
            return make(model)
        except ProtocolError as error:
            model.statistics.record_failure(error, time.perf_counter_ns() - began_ns)
            raise

    def _plan(self, request: ModelInferRequest, *, raw: bool, streamed: bool) -> RequestPlan:
        return self.plan(request, lambda model: RequestPlan(request, model, raw=raw, streamed=streamed))

    def submit(
        self,
        plan: RequestPlan,
        read_inputs: Callable[[], dict[str, Array]],
        context: CallContext,
        reply: Reply,
        id_field: bytes = b"",
    ) -> None:
        """Queue a request. `read_inputs` returns the inputs that are not in shared memory, by name.

        Raises:
            ProtocolError: The request was refused before it was queued.
        """
        began_ns = time.perf_counter_ns()
        try:
            if plan.timeout_seconds is not None:
                until = time.monotonic() + plan.timeout_seconds
                context.deadline = until if context.deadline is None else min(until, context.deadline)
            inputs = read_inputs()
            shared = self._take_shared(plan) if plan.shares_memory else None
            job = self._job(
                plan=plan,
                inputs=inputs,
                shared=shared,
                context=context,
                reply=reply,
                limits=self._limits,
                device_lost=self._device_lost,
                began_ns=began_ns,
            )
            job.id_field = id_field
            if plan.model.cache is not None and shared is None and job.answer_from(plan.model.cache):
                return
            try:
                plan.model.pool.submit(job)
            except ProtocolError:
                job.release()
                raise
        except ProtocolError as error:
            plan.model.statistics.record_failure(error, time.perf_counter_ns() - began_ns)
            raise

    def _take_shared(self, plan: RequestPlan) -> SharedTensors:
        if self._regions is None:
            raise ProtocolError(Code.UNIMPLEMENTED, SWITCHED_OFF)
        shared = SharedTensors(self._regions, plan.headers, plan.output_places, plan.model.outputs)
        if shared.on_device and plan.model.engine.device_memory is None:
            shared.release()
            error = no_device_memory(str(plan.model.manifest.toolchain.backend))
            raise ProtocolError(Code.INVALID_ARGUMENT, error.sentence(), reason=error.reason)
        return shared


@mypyc_attr(allow_interpreted_subclasses=True)
class InferJob(Job):
    """The inference of one request. For `id_field` see `RequestPlan.encode`."""

    def __init__(
        self,
        *,
        plan: RequestPlan,
        inputs: dict[str, Array],
        shared: SharedTensors | None,
        context: CallContext,
        reply: Reply,
        limits: InferenceLimits,
        device_lost: DeviceLost,
        began_ns: int,
    ) -> None:
        super().__init__(context)
        self.id_field = b""
        self.plan = plan
        self.inputs = inputs
        self.join_key, self.most_rows = plan.joins
        self.rows = plan.batch
        self.priority = plan.priority
        self._shared = shared
        self._reply = reply
        self._limits = limits
        self._device_lost = device_lost
        self._decode_ns = self.queued_ns - began_ns
        self._cache_key: bytes | None = None

    def answer_from(self, cache: ResponseCache) -> bool:
        """Answer with the cached outputs of an earlier request; return whether there are any."""
        statistics = self.plan.model.statistics
        self._cache_key = self.plan.cache_key(self.inputs)
        outputs = cache.find(self._cache_key)
        searched_ns = time.perf_counter_ns() - self.queued_ns
        if outputs is None:
            statistics.record_miss(searched_ns)
            return False
        self._cache_key = None
        answer = self._encode(outputs, _NOTHING, self.queued_ns, 0)
        statistics.record_hit(self._decode_ns + searched_ns)
        self.send(answer)
        return True

    @property
    @override
    def is_quick(self) -> bool:
        return self.plan.pace.is_quick

    @property
    @override
    def is_short(self) -> bool:
        return self.plan.pace.is_short

    @property
    @override
    def joining_pays(self) -> bool | None:
        return self.plan.pace.joining_pays

    @override
    def run(self, instance: Instance) -> None:
        started_ns = time.perf_counter_ns()
        try:
            answer = self._answer(instance, started_ns)
        except Exception as error:  # noqa: BLE001 - a backend may raise any exception, and the client needs a response
            self.fail(error)
        else:
            self.send(answer)

    @override
    def run_joined(self, others: Sequence[Job], instance: Instance) -> None:
        run_joined([self, *(job for job in others if isinstance(job, InferJob))], instance)

    @override
    def refuse(self, error: ProtocolError) -> None:
        self.release()
        self.plan.model.statistics.record_failure(error, time.perf_counter_ns() - self.queued_ns)
        self._reply(error)

    def release(self) -> None:
        """Release the shared memory regions."""
        if self._shared is not None:
            self._shared.release()

    def send(self, answer: Answer) -> None:
        """Answer the request."""
        # Release first: a client that has its response may unregister the region and free its memory.
        self.release()
        self._reply(answer)

    def fail(self, error: Exception) -> None:
        """Answer the request with the error of its inference."""
        match error:
            case ProtocolError():
                self.refuse(error)
            case SpecError():
                self.refuse(ProtocolError(Code.INVALID_ARGUMENT, error.sentence(), reason=error.reason))
            case DeviceFailedError():
                # Do this first: no later request may reach the engine while this one is answered.
                self._device_lost(error)
                self.refuse(device_failed(error))
            case InferenceError():
                self.refuse(inference_failed(error))
            case _:
                self.refuse(internal_error(error, trace_id(self.context.metadata())))

    def _answer(self, instance: Instance, started_ns: int) -> Answer:
        plan, shared, profile = self.plan, self._shared, self.plan.profile
        inputs: dict[str, Array | DeviceArray] = {
            name: align(array, name, instance) for name, array in self.inputs.items()
        }
        if shared is not None:
            inputs |= shared.read_inputs(instance)
        if plan.reads_values:
            profile = plan.profile_of_values(inputs)
        if shared is None:
            read_ns = time.perf_counter_ns()
            outputs = instance.infer(inputs, profile=profile, outputs=plan.output_names)
            inferred_ns, left = time.perf_counter_ns(), _NOTHING
        else:
            read_ns = time.perf_counter_ns()
            outputs = shared.infer(instance, inputs, profile=profile, outputs=plan.output_names)
            inferred_ns = time.perf_counter_ns()
            left = shared.write_outputs(outputs)
        plan.pace.note(inferred_ns - read_ns)
        answer = self._encode(outputs, left, started_ns, inferred_ns - read_ns, outputs_last=instance.outputs_last)
        times = self.times(started_ns, read_ns, inferred_ns, time.perf_counter_ns())
        plan.model.statistics.record_success(times, plan.batch)
        return answer

    def encode_rows(self, rows: RowBytes, start: int) -> Answer | None:
        """Return the response with this job's rows of a joined run, or None if only `encode_part` can create it."""
        plan = self.plan
        if plan.wants_timings or self._cache_key is not None:
            return None
        content = plan.encode_rows(rows, start, self.id_field)
        if content is None or len(content) > self._limits.max_message_bytes:
            return None
        return Answer(content, plan.model.metadata)

    def encode_part(
        self, outputs: Mapping[str, Array | DeviceArray], started_ns: int, run_ns: int
    ) -> Answer | Exception:
        """Return the response with this job's rows of a joined run, or the error."""
        try:
            return self._encode(outputs, _NOTHING, started_ns, run_ns)
        except Exception as error:  # noqa: BLE001 - a failed response must not affect the others
            return error

    def _encode(
        self,
        outputs: Mapping[str, Array | DeviceArray],
        left: Mapping[str, int],
        started_ns: int,
        run_ns: int,
        *,
        outputs_last: bool = False,
    ) -> Answer:
        plan = self.plan
        timings = self._timings(started_ns, run_ns) if plan.wants_timings else _NOTHING
        content = plan.encode(outputs, left, timings, id_field=self.id_field, outputs_last=outputs_last)
        answer = Answer(content, plan.model.metadata)
        most = self._limits.max_message_bytes
        if answer.size > most:
            raise ProtocolError(
                Code.RESOURCE_EXHAUSTED,
                f"the answer has {answer.size} bytes, more than serving.maxMessageBytes allows: {most}; ask for "
                "fewer outputs, send a smaller batch or raise the field",
                reason="AnswerTooLarge",
            )
        if self._cache_key is not None and plan.model.cache is not None:
            plan.model.cache.keep(self._cache_key, outputs)
        return answer

    def times(self, started_ns: int, read_ns: int, inferred_ns: int, ended_ns: int) -> RunTimes:
        """Return the durations of the parts of this job, from the times at which they ended."""
        return RunTimes(
            started_ns - self.queued_ns,
            self._decode_ns + read_ns - started_ns,
            inferred_ns - read_ns,
            ended_ns - inferred_ns,
        )

    def _timings(self, started_ns: int, run_ns: int) -> dict[str, int]:
        """Return the time that the request waited for an instance, and the run time of the engine, in microseconds."""
        return {"queue_us": (started_ns - self.queued_ns) // _NS_PER_US, "compute_us": run_ns // _NS_PER_US}
