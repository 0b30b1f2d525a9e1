"""ModelInfer and ModelStreamInfer: a request's bytes become a job, the job's outputs become the answer's bytes."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
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
from enginesmith_runtime.server.protocol.request_plan import PlanCache, RequestPlan
from enginesmith_runtime.server.protocol.shared_memory_calls import SWITCHED_OFF
from enginesmith_runtime.server.protocol.shared_tensors import SharedTensors
from enginesmith_runtime.server.protocol.wire import split_raw_inputs, wrap_message
from enginesmith_runtime.server.repository import Repository
from enginesmith_runtime.server.shared_memory.region_table import RegionTable
from enginesmith_runtime.server.statistics import RunTimes
from enginesmith_runtime.server.transport.interface import Answer, Body, CallContext, Reply
from enginesmith_runtime.server.transport.messages import parse

__all__ = ["DeviceLost", "Inference", "InferenceLimits"]

DeviceLost = Callable[[DeviceFailedError], None]
_NOTHING: Final[Mapping[str, int]] = {}
_NS_PER_US: Final = 1000
_FIELD_INFER_RESPONSE = ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER


@dataclass(frozen=True, kw_only=True)
class InferenceLimits:
    """The limits of a server; see ServeRequest."""

    max_message_bytes: int


class Inference:
    """Answers inference requests for the models of a repository.

    Args:
        regions: of shared memory; None: switched off.
        device_lost: called when an engine says that its device is broken; the process must end.
    """

    def __init__(
        self, repository: Repository, limits: InferenceLimits, regions: RegionTable | None, device_lost: DeviceLost
    ) -> None:
        self._repository = repository
        self._limits = limits
        self._regions = regions
        self._device_lost = device_lost
        self._plans = PlanCache()

    def infer(self, data: Body, context: CallContext, reply: Reply) -> None:
        """Handle ModelInfer.

        Raises:
            ProtocolError: the request was refused before it was queued.
        """
        self._check_size(data)
        head, raw = split_raw_inputs(data)
        plan = self._plans.find(head)
        if plan is None:
            request = parse(ModelInferRequest, head)
            plan = self._plan(request, raw=bool(raw), streamed=False)
            # A request that tells itself apart by an id does not come again.
            if plan.repeatable and not request.id:
                self._plans.keep(head, plan)
        self._submit(plan, raw, context, reply)

    def stream_infer(self, data: Body, context: CallContext, reply: Reply) -> None:
        """Handle one request of ModelStreamInfer: every failure is an answer, so that the stream continues."""
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
            head, raw = split_raw_inputs(data)
            request = parse(ModelInferRequest, head)
            request_id = request.id
            plan = self._plan(request, raw=bool(raw), streamed=True)
            self._submit(plan, raw, context, reply_in_stream)
        except ProtocolError as error:
            reply_in_stream(error)

    def _check_size(self, data: Body) -> None:
        most = self._limits.max_message_bytes
        if len(data) > most:
            raise ProtocolError(
                Code.RESOURCE_EXHAUSTED,
                f"the request has {len(data)} bytes, more than serving.maxMessageBytes allows here: {most}; send a "
                "smaller batch or raise the field",
                reason="RequestTooLarge",
            )

    def _plan(self, request: ModelInferRequest, *, raw: bool, streamed: bool) -> RequestPlan:
        began_ns = time.perf_counter_ns()
        model = self._repository.find_ready(request.model_name, request.model_version)
        try:
            return RequestPlan(request, model, raw=raw, streamed=streamed)
        except ProtocolError as error:
            model.statistics.record_failure(error, time.perf_counter_ns() - began_ns)
            raise

    def _submit(self, plan: RequestPlan, raw: list[memoryview], context: CallContext, reply: Reply) -> None:
        began_ns = time.perf_counter_ns()
        try:
            if plan.timeout_seconds is not None:
                until = time.monotonic() + plan.timeout_seconds
                context.deadline = until if context.deadline is None else min(until, context.deadline)
            inputs = plan.read_inputs(raw)
            shared = self._take_shared(plan)
            job = _InferJob(
                plan=plan,
                inputs=inputs,
                shared=shared,
                context=context,
                reply=reply,
                limits=self._limits,
                device_lost=self._device_lost,
                began_ns=began_ns,
            )
            try:
                plan.model.pool.submit(job)
            except ProtocolError:
                job.release()
                raise
        except ProtocolError as error:
            plan.model.statistics.record_failure(error, time.perf_counter_ns() - began_ns)
            raise

    def _take_shared(self, plan: RequestPlan) -> SharedTensors | None:
        if not plan.shares_memory:
            return None
        if self._regions is None:
            raise ProtocolError(Code.UNIMPLEMENTED, SWITCHED_OFF)
        shared = SharedTensors(self._regions, plan.headers, plan.output_places, plan.model.outputs)
        if shared.on_device and plan.model.engine.device_memory is None:
            shared.release()
            error = no_device_memory(str(plan.model.manifest.toolchain.backend))
            raise ProtocolError(Code.INVALID_ARGUMENT, error.sentence(), reason=error.reason)
        return shared


class _InferJob(Job):
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
        self._plan = plan
        self._inputs = inputs
        self._shared = shared
        self._reply = reply
        self._limits = limits
        self._device_lost = device_lost
        self._decode_ns = self.queued_ns - began_ns

    @override
    def run(self, instance: Instance) -> None:
        started_ns = time.perf_counter_ns()
        try:
            answer = self._answer(instance, started_ns)
        except ProtocolError as error:
            self.refuse(error)
        except SpecError as error:
            self.refuse(ProtocolError(Code.INVALID_ARGUMENT, error.sentence(), reason=error.reason))
        except DeviceFailedError as error:
            # First: no later request may reach the engine while this one is answered.
            self._device_lost(error)
            self.refuse(device_failed(error))
        except InferenceError as error:
            self.refuse(inference_failed(error))
        except Exception as error:  # noqa: BLE001 - a backend may raise anything, and the client must be answered
            self.refuse(internal_error(error))
        else:
            # First: a client that has its answer may unregister the region and free its memory.
            self.release()
            self._reply(answer)

    @override
    def refuse(self, error: ProtocolError) -> None:
        self.release()
        self._plan.model.statistics.record_failure(error, time.perf_counter_ns() - self.queued_ns)
        self._reply(error)

    def release(self) -> None:
        """Give shared memory back."""
        if self._shared is not None:
            self._shared.release()

    def _answer(self, instance: Instance, started_ns: int) -> Answer:
        plan, shared, profile = self._plan, self._shared, self._plan.profile
        inputs: dict[str, Array | DeviceArray] = {
            name: _aligned(array, name, instance) for name, array in self._inputs.items()
        }
        if shared is not None:
            inputs |= shared.read_inputs(instance)
        if plan.model.profiles.value_inputs:
            profile = plan.profile_of_values(inputs)
        if shared is None:
            read_ns = time.perf_counter_ns()
            outputs = instance.infer(inputs, profile=profile, outputs=plan.output_names)
            inferred_ns, left = time.perf_counter_ns(), _NOTHING
        else:
            places = shared.device_places()
            read_ns = time.perf_counter_ns()
            outputs = instance.infer(inputs, profile=profile, outputs=plan.output_names, into=places)
            inferred_ns = time.perf_counter_ns()
            left = shared.write_outputs(outputs)
        timings = self._timings(started_ns, inferred_ns - read_ns) if plan.wants_timings else _NOTHING
        body = plan.encode(outputs, left, timings)
        most = self._limits.max_message_bytes
        if len(body) > most:
            raise ProtocolError(
                Code.RESOURCE_EXHAUSTED,
                f"the answer has {len(body)} bytes, more than serving.maxMessageBytes allows here: {most}; ask for "
                "fewer outputs, send a smaller batch or raise the field",
                reason="AnswerTooLarge",
            )
        times = RunTimes(
            queue=started_ns - self.queued_ns,
            compute_input=self._decode_ns + read_ns - started_ns,
            compute_infer=inferred_ns - read_ns,
            compute_output=time.perf_counter_ns() - inferred_ns,
        )
        plan.model.statistics.record_success(times, plan.batch)
        return Answer(body, plan.model.metadata)

    def _timings(self, started_ns: int, run_ns: int) -> dict[str, int]:
        """Return how long the request waited for an instance, and how long the engine ran; in microseconds."""
        return {"queue_us": (started_ns - self.queued_ns) // _NS_PER_US, "compute_us": run_ns // _NS_PER_US}


def _aligned(array: Array, name: str, instance: Instance) -> Array:
    """Return `array`, or a copy where it does not start at a multiple of its elements' size.

    The copy goes to the instance's own memory, where an engine on a GPU would copy it anyway.
    """
    if array.flags.aligned:
        return array
    staged = instance.staging(name, array.shape)
    # As bytes: plain memory to plain memory, without the interpreter's lock.
    staged.reshape(-1).view(np.uint8)[:] = array.reshape(-1).view(np.uint8)
    return staged
