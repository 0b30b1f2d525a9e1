"""gRPC server reflection, so that grpcurl needs no .proto files. Answers come from the loaded descriptors."""

from collections.abc import Iterator
from typing import Final

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import Default
from grpc_reflection.v1alpha.reflection_pb2 import (
    ErrorResponse,
    ExtensionNumberResponse,
    FileDescriptorResponse,
    ListServiceResponse,
    ServerReflectionRequest,
    ServerReflectionResponse,
    ServiceResponse,
)

from enginesmith_runtime.server.errors import Code
from enginesmith_runtime.server.transport.interface import Answer, Body, CallContext, Methods, Reply, StreamMethod
from enginesmith_runtime.server.transport.messages import parse

__all__ = ["Reflection"]

# The messages of both versions have the same numbers; only the older one's descriptor is at hand to be listed.
_SERVICES: Final = ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection")


class Reflection:
    """Describes `services` (full names) and what they refer to."""

    def __init__(self, services: tuple[str, ...]) -> None:
        self._services = tuple(sorted((*services, _SERVICES[0])))
        self._pool = Default()

    def methods(self) -> Methods:
        """Return the handlers of both versions of the service."""
        return {f"/{service}/ServerReflectionInfo": StreamMethod(self._answer, 1) for service in _SERVICES}

    def _answer(self, data: Body, _context: CallContext, reply: Reply) -> None:
        request = parse(ServerReflectionRequest, data)
        try:
            response = self._describe(request)
        except KeyError:
            response = ServerReflectionResponse(
                error_response=ErrorResponse(error_code=Code.NOT_FOUND.value, error_message="unknown name")
            )
        response.valid_host = request.host
        response.original_request.CopyFrom(request)
        reply(Answer(response.SerializeToString()))

    def _describe(self, request: ServerReflectionRequest) -> ServerReflectionResponse:
        match request.WhichOneof("message_request"):
            case "file_by_filename":
                return _files(self._pool.FindFileByName(request.file_by_filename))
            case "file_containing_symbol":
                return _files(self._pool.FindFileContainingSymbol(request.file_containing_symbol))
            case "all_extension_numbers_of_type":
                name = self._pool.FindMessageTypeByName(request.all_extension_numbers_of_type).full_name
                return ServerReflectionResponse(
                    all_extension_numbers_response=ExtensionNumberResponse(base_type_name=name)
                )
            case "list_services":
                services = [ServiceResponse(name=name) for name in self._services]
                return ServerReflectionResponse(list_services_response=ListServiceResponse(service=services))
            case _:  # extensions: proto3 services have none
                raise KeyError


def _files(descriptor: FileDescriptor) -> ServerReflectionResponse:
    files = {file.name: file.serialized_pb for file in _with_dependencies(descriptor)}
    return ServerReflectionResponse(
        file_descriptor_response=FileDescriptorResponse(file_descriptor_proto=list(files.values()))
    )


def _with_dependencies(descriptor: FileDescriptor) -> Iterator[FileDescriptor]:
    yield descriptor
    for dependency in descriptor.dependencies:
        yield from _with_dependencies(dependency)
