"""Server reflection under both of its names; the package of gRPC serves only v1alpha."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

_OLD, _NEW = "grpc.reflection.v1alpha", "grpc.reflection.v1"
_METHOD = "ServerReflectionInfo"
SERVICE_NAMES = (f"{_OLD}.ServerReflection", f"{_NEW}.ServerReflection")


def handlers(service_names: Sequence[str]) -> list[grpc.GenericRpcHandler]:
    """Returns the handlers of both reflection services, which list `service_names` and themselves."""
    _describe_v1()
    servicer = ReflectionServicer([*service_names, *SERVICE_NAMES])
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return [grpc.method_handlers_generic_handler(name, {_METHOD: method}) for name in SERVICE_NAMES]


def _describe_v1() -> None:
    """Adds the descriptors of v1, which is v1alpha word for word under another package, unless somebody did already."""
    pool = descriptor_pool.Default()
    try:
        pool.FindServiceByName(SERVICE_NAMES[1])
    except KeyError:
        old, new = descriptor_pb2.FileDescriptorProto(), descriptor_pb2.FileDescriptorProto()
        reflection_pb2.DESCRIPTOR.CopyToProto(old)
        text_format.Parse(text_format.MessageToString(old).replace(_OLD, _NEW), new)
        new.name = "grpc/reflection/v1/reflection.proto"
        new.ClearField("options")
        pool.AddSerializedFile(new.SerializeToString())
