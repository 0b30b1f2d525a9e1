"""Handlers of every call of `inference.GRPCInferenceService`, by full name."""

from collections.abc import Callable
from typing import Final, TypeVar

from google.protobuf.message import Message

from enginesmith_contract.protos import inference_pb2 as pb
from enginesmith_contract.release import RELEASE
from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.protocol.infer import Inference
from enginesmith_runtime.server.protocol.model_description import (
    describe_config,
    describe_metadata,
    describe_statistics,
)
from enginesmith_runtime.server.protocol.shared_memory_calls import SharedMemoryCalls
from enginesmith_runtime.server.repository import ModelState, Repository
from enginesmith_runtime.server.shared_memory.region_table import RegionTable
from enginesmith_runtime.server.transport.interface import (
    Answer,
    Body,
    Call,
    CallContext,
    Methods,
    Reply,
    StreamMethod,
    UnaryMethod,
)
from enginesmith_runtime.server.transport.messages import parse

__all__ = ["SERVICE", "inference_methods"]

SERVICE: Final = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name

_EXTENSIONS: Final = ("model_configuration", "model_repository", "statistics", "binary_tensor_data", "parameters")

_SHARING_EXTENSIONS: Final = ("system_shared_memory", "cuda_shared_memory")

_FREE: Final = frozenset({"ServerLive", "ServerReady", "ModelReady"})
"""Calls that need no token, because probes and load balancers have none."""

_STREAM_IN_FLIGHT: Final = 32
"""Limit of unanswered requests of one stream. With it one client can keep every instance of a GPU busy."""

_RequestT = TypeVar("_RequestT", bound=Message)


def inference_methods(
    repository: Repository, inference: Inference, regions: RegionTable | None, *, traced: bool = False
) -> Methods:
    """Return the handlers of the whole service. For `regions` see `Inference`. `traced`: send spans of requests."""
    extensions = _EXTENSIONS if regions is None else (*_EXTENSIONS, *_SHARING_EXTENSIONS)
    answers = _Answers(repository, extensions, "TIMESTAMPS" if traced else "OFF")
    shared = SharedMemoryCalls(repository, regions)
    unary: dict[str, Call] = {
        "ServerLive": _call(pb.ServerLiveRequest, answers.server_live),
        "ServerReady": _call(pb.ServerReadyRequest, answers.server_ready),
        "ServerMetadata": _call(pb.ServerMetadataRequest, answers.server_metadata),
        "ModelReady": _call(pb.ModelReadyRequest, answers.model_ready),
        "ModelMetadata": _call(pb.ModelMetadataRequest, answers.model_metadata),
        "ModelConfig": _call(pb.ModelConfigRequest, answers.model_config),
        "ModelStatistics": _call(pb.ModelStatisticsRequest, answers.model_statistics),
        "RepositoryIndex": _call(pb.RepositoryIndexRequest, answers.repository_index),
        "RepositoryModelLoad": _refuse(pb.RepositoryModelLoadRequest, _FIXED_MODELS),
        "RepositoryModelUnload": _refuse(pb.RepositoryModelUnloadRequest, _FIXED_MODELS),
        "SystemSharedMemoryStatus": _call(pb.SystemSharedMemoryStatusRequest, shared.system_status),
        "SystemSharedMemoryRegister": _call(pb.SystemSharedMemoryRegisterRequest, shared.system_register),
        "SystemSharedMemoryUnregister": _call(pb.SystemSharedMemoryUnregisterRequest, shared.system_unregister),
        "CudaSharedMemoryStatus": _call(pb.CudaSharedMemoryStatusRequest, shared.cuda_status),
        "CudaSharedMemoryRegister": _call(pb.CudaSharedMemoryRegisterRequest, shared.cuda_register),
        "CudaSharedMemoryUnregister": _call(pb.CudaSharedMemoryUnregisterRequest, shared.cuda_unregister),
        "TraceSetting": _call(pb.TraceSettingRequest, answers.trace_setting),
        "LogSettings": _call(pb.LogSettingsRequest, answers.log_settings),
    }
    return {
        **{f"/{SERVICE}/{name}": UnaryMethod(call, free=name in _FREE) for name, call in unary.items()},
        f"/{SERVICE}/ModelInfer": UnaryMethod(inference.infer, waits=True, brief=inference.brief),
        f"/{SERVICE}/ModelStreamInfer": StreamMethod(inference.stream_infer, _STREAM_IN_FLIGHT),
    }


_FIXED_MODELS: Final = (
    "a server's models are fixed when it starts; change the InferenceEngine, and it is rolled out without a gap"
)


class _Answers:
    """The calls that need no inference."""

    def __init__(self, repository: Repository, extensions: tuple[str, ...], trace_level: str) -> None:
        self._repository = repository
        self._extensions = extensions
        self._trace_level = trace_level

    def server_live(self, _request: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    def server_ready(self, _request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._repository.ready)

    def server_metadata(self, _request: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name="enginesmith", version=RELEASE, extensions=self._extensions)

    def model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        entry = self._repository.find(request.name, request.version)
        return pb.ModelReadyResponse(ready=entry.state is ModelState.READY and not self._repository.draining)

    def model_metadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        return describe_metadata(self._repository.find_ready(request.name, request.version))

    def model_config(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        model = self._repository.find_ready(request.name, request.version)
        return pb.ModelConfigResponse(config=describe_config(model))

    def model_statistics(self, request: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        if request.name:
            models = [self._repository.find_ready(request.name, request.version)]
        else:
            models = [entry.model for entry in self._repository if entry.model is not None]
        return pb.ModelStatisticsResponse(model_stats=[describe_statistics(model) for model in models])

    def repository_index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        return pb.RepositoryIndexResponse(
            models=[
                pb.RepositoryIndexResponse.ModelIndex(
                    name=entry.served.name, version=entry.served.version, state=entry.state.value, reason=entry.reason
                )
                for entry in self._repository
                if entry.state is ModelState.READY or not request.ready
            ]
        )

    def trace_setting(self, request: pb.TraceSettingRequest) -> pb.TraceSettingResponse:
        if any(setting.value for setting in request.settings.values()):
            raise ProtocolError(
                Code.UNIMPLEMENTED,
                "the environment of the server sets its traces (OTEL_*); the settings can be read, not changed",
            )
        response = pb.TraceSettingResponse()
        response.settings["trace_level"].value.append(self._trace_level)
        return response

    def log_settings(self, request: pb.LogSettingsRequest) -> pb.LogSettingsResponse:
        if request.settings:
            raise ProtocolError(Code.UNIMPLEMENTED, "the log's settings are fixed when the server starts")
        return pb.LogSettingsResponse()


def _call(kind: type[_RequestT], answer: Callable[[_RequestT], Message]) -> Call:
    def call(data: Body, _context: CallContext, reply: Reply) -> None:
        reply(Answer(answer(parse(kind, data)).SerializeToString()))

    return call


def _refuse(kind: type[Message], sentence: str) -> Call:
    def refuse(_request: Message) -> Message:
        raise ProtocolError(Code.UNIMPLEMENTED, sentence)

    return _call(kind, refuse)
