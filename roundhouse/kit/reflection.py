"""Server reflection under both of its names; the package of gRPC serves only v1alpha."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf.descriptor import ServiceDescriptor
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

from roundhouse.kit.service import Context, Service

_messages: Any = reflection_pb2
_OLD, _NEW = "grpc.reflection.v1alpha", "grpc.reflection.v1"
SERVICE_NAMES = (f"{_OLD}.ServerReflection", f"{_NEW}.ServerReflection")


def services(service_names: Sequence[str]) -> list[Service]:
    """Returns both reflection services, which list `service_names` and themselves."""
    _describe_v1()
    servicer = _Reflection([*service_names, *SERVICE_NAMES])
    # The messages of both are those of v1alpha: the servicer answers with what it was asked.
    descriptor: ServiceDescriptor = _messages.DESCRIPTOR.services_by_name["ServerReflection"]
    return [Service(descriptor, servicer, name) for name in SERVICE_NAMES]


class _Reflection:
    """The servicer of gRPC's package, whose method is a generator, as our services have theirs."""

    def __init__(self, service_names: Sequence[str]) -> None:
        self._servicer: Any = ReflectionServicer(service_names)

    async def ServerReflectionInfo(self, requests: Any, context: Context) -> None:  # noqa: N802 - named by the contract
        async with contextlib.aclosing(self._servicer.ServerReflectionInfo(requests, context)) as answers:
            async for each in answers:
                await context.write(each)


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
