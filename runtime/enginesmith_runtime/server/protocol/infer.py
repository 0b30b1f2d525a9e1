"""ModelInfer and ModelStreamInfer: a request's bytes become a job, the job's outputs become the answer's bytes."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from typing_extensions import override

from enginesmith_contract.errors import EngineRefusedError, SpecError
from enginesmith_contract.protos.inference_pb2 import (
    InferParameter,
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)
from enginesmith_contract.tensors import TensorSpec
from enginesmith_runtime.engines.interface import Array, Instance
from enginesmith_runtime.server.instance_pool import Job
from enginesmith_runtime.server.model import LoadedModel
from enginesmith_runtime.server.protocol.errors import Code, ProtocolError, internal_error
from enginesmith_runtime.server.protocol.messages import parse
from enginesmith_runtime.server.protocol.tensor_decoding import decode_inputs
from enginesmith_runtime.server.protocol.tensor_encoding import encode_response, string_parameters
from enginesmith_runtime.server.protocol.wire import split_raw_inputs, wrap_message
from enginesmith_runtime.server.repository import Repository
from enginesmith_runtime.server.statistics import RunTimes
from enginesmith_runtime.server.transport.interface import Answer, CallContext, Reply

__all__ = ["DeviceLost", "Inference", "InferenceLimits"]

DeviceLost = Callable[[EngineRefusedError], None]
_MICROSECONDS = 1e-6
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

    def infer(self, data: bytes, context: CallContext, reply: Reply) -> None:
        """Handle ModelInfer.

        Raises:
            ProtocolError: the request was refused before it was queued.
        """
        head, raw = split_raw_inputs(data)
        self._submit(parse(ModelInferRequest, head), raw, context, reply, streamed=False)

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
            self._submit(request, raw, context, reply_in_stream, streamed=True)
        except ProtocolError as error:
            reply_in_stream(error)

    def _submit(
        self, request: ModelInferRequest, raw: list[memoryview], context: CallContext, reply: Reply, *, streamed: bool
    ) -> None:
        began_ns = time.perf_counter_ns()
        model = self._repository.find_ready(request.model_name, request.model_version)
        try:
            _apply_parameters(request, context)
            inputs = decode_inputs(request, raw, model.inputs)
            profile = model.profiles.choose({name: array.shape for name, array in inputs.items()})
            job = _InferJob(
                model=model,
                inputs=inputs,
                profile=profile,
                outputs=_requested_outputs(request, model),
                response=_response_head(request, model, streamed=streamed),
                typed=bool(request.inputs) and not raw,
                context=context,
                reply=reply,
                limits=self._limits,
                device_lost=self._device_lost,
                decode_ns=time.perf_counter_ns() - began_ns,
            )
            model.pool.submit(job)
        except ProtocolError as error:
            model.statistics.record_failure(error.code, time.perf_counter_ns() - began_ns)
            raise


class _InferJob(Job):
    def __init__(  # noqa: PLR0913 - all that the instance's thread needs; by keyword
        self,
        *,
        model: LoadedModel,
        inputs: dict[str, Array],
        profile: int,
        outputs: tuple[TensorSpec, ...],
        response: ModelInferResponse,
        typed: bool,
        context: CallContext,
        reply: Reply,
        limits: InferenceLimits,
        device_lost: DeviceLost,
        decode_ns: int,
    ) -> None:
        super().__init__(context)
        self._model = model
        self._inputs = inputs
        self._profile = profile
        self._outputs = outputs
        self._response = response
        self._typed = typed
        self._reply = reply
        self._limits = limits
        self._device_lost = device_lost
        self._decode_ns = decode_ns

    @override
    def run(self, instance: Instance) -> None:
        started_ns = time.perf_counter_ns()
        try:
            self._reply(self._answer(instance, started_ns))
        except ProtocolError as error:
            self.refuse(error)
        except SpecError as error:
            self.refuse(ProtocolError(Code.INVALID_ARGUMENT, error.sentence()))
        except EngineRefusedError as error:
            self.refuse(ProtocolError(Code.UNAVAILABLE, "the device failed; send the request to another replica"))
            self._device_lost(error)
        except Exception as error:  # noqa: BLE001 - a backend may raise anything, and the client must be answered
            self.refuse(internal_error(error))

    @override
    def refuse(self, error: ProtocolError) -> None:
        self._model.statistics.record_failure(error.code, time.perf_counter_ns() - self.queued_ns)
        self._reply(error)

    def _answer(self, instance: Instance, started_ns: int) -> Answer:
        names = [spec.name for spec in self._outputs]
        outputs = instance.infer(self._inputs, profile=self._profile, outputs=names)
        inferred_ns = time.perf_counter_ns()
        body = encode_response(self._response, outputs, self._outputs, typed=self._typed)
        if len(body) > self._limits.max_message_bytes:
            raise ProtocolError(
                Code.RESOURCE_EXHAUSTED,
                f"the answer has {len(body)} bytes, more than this server's limit of {self._limits.max_message_bytes}; "
                "ask for fewer outputs or send a smaller batch",
            )
        times = RunTimes(
            queue=started_ns - self.queued_ns,
            compute_input=self._decode_ns,
            compute_infer=inferred_ns - started_ns,
            compute_output=time.perf_counter_ns() - inferred_ns,
        )
        self._model.statistics.record_success(times, self._batch_size())
        return Answer(body, self._model.metadata)

    def _batch_size(self) -> int:
        if not self._model.max_batch_size:
            return 1
        return int(next(iter(self._inputs.values())).shape[0])


def _requested_outputs(request: ModelInferRequest, model: LoadedModel) -> tuple[TensorSpec, ...]:
    if not request.outputs:
        return tuple(model.outputs.values())
    wanted: dict[str, TensorSpec] = {}
    for output in request.outputs:
        spec = model.outputs.get(output.name)
        if spec is None:
            known = ", ".join(f"'{name}'" for name in model.outputs)
            raise ProtocolError(
                Code.INVALID_ARGUMENT, f"output '{output.name}' is not one of the model's outputs: {known}"
            )
        if output.name in wanted:
            raise ProtocolError(Code.INVALID_ARGUMENT, f"output '{output.name}' is asked for twice")
        for parameter, remedy in _REFUSED_OUTPUT_PARAMETERS:
            if parameter in output.parameters:
                raise ProtocolError(Code.UNIMPLEMENTED, f"output '{output.name}': {remedy}")
        wanted[output.name] = spec
    return tuple(wanted.values())


_REFUSED_OUTPUT_PARAMETERS = (
    ("classification", "classification is not offered; ask for the tensor and sort it in the client"),
    ("shared_memory_region", "shared memory is not offered; the tensor comes with the answer"),
)


def _apply_parameters(request: ModelInferRequest, context: CallContext) -> None:
    """Honour `timeout` (microseconds in the queue). `priority` and the sequence parameters change nothing here."""
    timeout = request.parameters.get("timeout")
    if timeout is None:
        return
    microseconds = timeout.int64_param or timeout.uint64_param
    if microseconds < 0:
        raise ProtocolError(Code.INVALID_ARGUMENT, f"parameter 'timeout' is {microseconds} microseconds")
    if microseconds:
        deadline = time.monotonic() + microseconds * _MICROSECONDS
        context.deadline = deadline if context.deadline is None else min(deadline, context.deadline)


def _response_head(request: ModelInferRequest, model: LoadedModel, *, streamed: bool) -> ModelInferResponse:
    response = ModelInferResponse(
        model_name=model.name,
        model_version=model.version,
        id=request.id,
        parameters=string_parameters({"engine": model.manifest.engine_key, "target": model.target}),
    )
    if streamed:
        # One answer a request, so each is the last; clients of decoupled models look for it.
        response.parameters["triton_final_response"].CopyFrom(InferParameter(bool_param=True))
    return response
