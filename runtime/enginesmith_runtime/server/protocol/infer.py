"""ModelInfer and ModelStreamInfer: a request's bytes become a job, the job's outputs become the answer's bytes."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from typing_extensions import override

from enginesmith_contract.errors import DeviceFailedError, InferenceError, SpecError
from enginesmith_contract.protos.inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)
from enginesmith_runtime.engines.interface import Array, Instance
from enginesmith_runtime.server.instance_pool import Job
from enginesmith_runtime.server.protocol.errors import (
    Code,
    ProtocolError,
    device_failed,
    inference_failed,
    internal_error,
)
from enginesmith_runtime.server.protocol.messages import parse
from enginesmith_runtime.server.protocol.request_plan import PlanCache, RequestPlan
from enginesmith_runtime.server.protocol.wire import split_raw_inputs, wrap_message
from enginesmith_runtime.server.repository import Repository
from enginesmith_runtime.server.statistics import RunTimes
from enginesmith_runtime.server.transport.interface import Answer, CallContext, Reply

__all__ = ["DeviceLost", "Inference", "InferenceLimits"]

DeviceLost = Callable[[DeviceFailedError], None]
_FIELD_INFER_RESPONSE = ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER


@dataclass(frozen=True, kw_only=True)
class InferenceLimits:
    """What a server bears; see ServeRequest."""

    max_message_bytes: int


class Inference:
    """Answers inference requests for the models of a repository.

    Args:
        device_lost: called when an engine says that its device is broken; the process must end.
    """

    def __init__(self, repository: Repository, limits: InferenceLimits, device_lost: DeviceLost) -> None:
        self._repository = repository
        self._limits = limits
        self._device_lost = device_lost
        self._plans = PlanCache()

    def infer(self, data: bytes, context: CallContext, reply: Reply) -> None:
        """Handle ModelInfer.

        Raises:
            ProtocolError: the request was refused before it was queued.
        """
        head, raw = split_raw_inputs(data)
        plan = self._plans.find(head) if raw else None
        if plan is None:
            request = parse(ModelInferRequest, head)
            plan = self._plan(request, raw=bool(raw), streamed=False)
            # A request that tells itself apart by an id does not come again.
            if raw and not request.id:
                self._plans.keep(head, plan)
        self._submit(plan, raw, context, reply)

    def stream_infer(self, data: bytes, context: CallContext, reply: Reply) -> None:
        """Handle one request of ModelStreamInfer: every failure is an answer, so that the stream goes on."""
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
            head, raw = split_raw_inputs(data)
            request = parse(ModelInferRequest, head)
            request_id = request.id
            plan = self._plan(request, raw=bool(raw), streamed=True)
            self._submit(plan, raw, context, reply_in_stream)
        except ProtocolError as error:
            reply_in_stream(error)

    def _plan(self, request: ModelInferRequest, *, raw: bool, streamed: bool) -> RequestPlan:
        began_ns = time.perf_counter_ns()
        model = self._repository.find_ready(request.model_name, request.model_version)
        try:
            return RequestPlan(request, model, raw=raw, streamed=streamed)
        except ProtocolError as error:
            model.statistics.record_failure(error.code, time.perf_counter_ns() - began_ns)
            raise

    def _submit(self, plan: RequestPlan, raw: list[memoryview], context: CallContext, reply: Reply) -> None:
        began_ns = time.perf_counter_ns()
        try:
            if plan.timeout_seconds is not None:
                until = time.monotonic() + plan.timeout_seconds
                context.deadline = until if context.deadline is None else min(until, context.deadline)
            job = _InferJob(
                plan=plan,
                inputs=plan.read_inputs(raw),
                context=context,
                reply=reply,
                limits=self._limits,
                device_lost=self._device_lost,
                began_ns=began_ns,
            )
            plan.model.pool.submit(job)
        except ProtocolError as error:
            plan.model.statistics.record_failure(error.code, time.perf_counter_ns() - began_ns)
            raise


class _InferJob(Job):
    def __init__(  # noqa: PLR0913 - all that another thread needs; by keyword
        self,
        *,
        plan: RequestPlan,
        inputs: dict[str, Array],
        context: CallContext,
        reply: Reply,
        limits: InferenceLimits,
        device_lost: DeviceLost,
        began_ns: int,
    ) -> None:
        super().__init__(context)
        self._plan = plan
        self._inputs = inputs
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
            self.refuse(ProtocolError(Code.INVALID_ARGUMENT, error.sentence()))
        except DeviceFailedError as error:
            # First: no later request may reach the engine while this one is answered.
            self._device_lost(error)
            self.refuse(device_failed(error))
        except InferenceError as error:
            self.refuse(inference_failed(error))
        except Exception as error:  # noqa: BLE001 - a backend may raise anything, and the client must be answered
            self.refuse(internal_error(error))
        else:
            self._reply(answer)

    @override
    def refuse(self, error: ProtocolError) -> None:
        self._plan.model.statistics.record_failure(error.code, time.perf_counter_ns() - self.queued_ns)
        self._reply(error)

    def _answer(self, instance: Instance, started_ns: int) -> Answer:
        plan = self._plan
        outputs = instance.infer(self._inputs, profile=plan.profile, outputs=plan.output_names)
        inferred_ns = time.perf_counter_ns()
        body = plan.encode(outputs)
        if len(body) > self._limits.max_message_bytes:
            raise ProtocolError(
                Code.RESOURCE_EXHAUSTED,
                f"the answer has {len(body)} bytes, more than this server's limit of {self._limits.max_message_bytes}; "
                "ask for fewer outputs or send a smaller batch",
                reason="AnswerTooLarge",
            )
        times = RunTimes(
            queue=started_ns - self.queued_ns,
            compute_input=self._decode_ns,
            compute_infer=inferred_ns - started_ns,
            compute_output=time.perf_counter_ns() - inferred_ns,
        )
        plan.model.statistics.record_success(times, plan.batch)
        return Answer(body, plan.model.metadata)
