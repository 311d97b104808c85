"""Finds elements of the contract that have no comment above them.

It asks the compiler, which keeps comments beside descriptors, and so needs the environment of the stub generator.
Use: python scripts/proto_docs.py FOLDER
"""

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

# A place in a descriptor is a list of field numbers and indexes: (4, 0, 2, 1) is the second field of the first message.
Place = tuple[int, ...]

KINDS = ("service", "rpc", "message", "field", "oneof", "enum", "value")


@dataclass(frozen=True, slots=True)
class Element:
    """One thing that wants a comment."""

    kind: str
    name: str
    place: Place


def compile_protos(root: Path) -> FileDescriptorSet:
    """Compiles every .proto below `root`, keeping comments. Raises CalledProcessError if one is broken."""
    files = sorted(str(path.relative_to(root)) for path in root.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "descriptors")
        command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(root), "--include_source_info"]
        subprocess.run([*command, f"--descriptor_set_out={out}", *files], check=True)
        return FileDescriptorSet.FromString(out.read_bytes())


def elements(file: FileDescriptorProto) -> Iterator[Element]:
    """Yields everything in a file that wants a comment."""
    for i, service in enumerate(file.service):
        yield from _of_service(service, (FileDescriptorProto.SERVICE_FIELD_NUMBER, i))
    for i, message in enumerate(file.message_type):
        yield from _of_message(message, message.name, (FileDescriptorProto.MESSAGE_TYPE_FIELD_NUMBER, i))
    for i, enum in enumerate(file.enum_type):
        yield from _of_enum(enum, enum.name, (FileDescriptorProto.ENUM_TYPE_FIELD_NUMBER, i))


def commented(file: FileDescriptorProto) -> set[Place]:
    """Tells the places that have a comment directly above them."""
    return {tuple(at.path) for at in file.source_code_info.location if at.leading_comments.strip()}


def _of_service(service: ServiceDescriptorProto, place: Place) -> Iterator[Element]:
    yield Element("service", service.name, place)
    for i, method in enumerate(service.method):
        at = (*place, ServiceDescriptorProto.METHOD_FIELD_NUMBER, i)
        yield Element("rpc", f"{service.name}.{method.name}", at)


def _of_message(message: DescriptorProto, name: str, place: Place) -> Iterator[Element]:
    if message.options.map_entry:  # made by the compiler for a map
        return
    yield Element("message", name, place)
    # An optional field is kept as the only member of a oneof that nobody wrote.
    unwritten = {field.oneof_index for field in message.field if field.proto3_optional}
    for i, field in enumerate(message.field):
        yield Element("field", f"{name}.{field.name}", (*place, DescriptorProto.FIELD_FIELD_NUMBER, i))
    for i, oneof in enumerate(message.oneof_decl):
        if i not in unwritten:
            yield Element("oneof", f"{name}.{oneof.name}", (*place, DescriptorProto.ONEOF_DECL_FIELD_NUMBER, i))
    for i, nested in enumerate(message.nested_type):
        yield from _of_message(nested, f"{name}.{nested.name}", (*place, DescriptorProto.NESTED_TYPE_FIELD_NUMBER, i))
    for i, enum in enumerate(message.enum_type):
        yield from _of_enum(enum, f"{name}.{enum.name}", (*place, DescriptorProto.ENUM_TYPE_FIELD_NUMBER, i))


def _of_enum(enum: EnumDescriptorProto, name: str, place: Place) -> Iterator[Element]:
    yield Element("enum", name, place)
    for i, value in enumerate(enum.value):
        yield Element("value", f"{name}.{value.name}", (*place, EnumDescriptorProto.VALUE_FIELD_NUMBER, i))


def main() -> int:
    """Prints what has no comment, then a count by kind. Returns 1 if anything has none."""
    root = Path(sys.argv[1])
    found: Counter[str] = Counter()
    bare: Counter[str] = Counter()
    for file in compile_protos(root).file:
        places = commented(file)
        lines = {tuple(at.path): at.span[0] + 1 for at in file.source_code_info.location}
        for element in elements(file):
            found[element.kind] += 1
            if element.place not in places:
                bare[element.kind] += 1
                print(f"{root / file.name}:{lines[element.place]}: {element.kind} {element.name} has no comment")
    print("commented:", ", ".join(f"{kind} {found[kind] - bare[kind]}/{found[kind]}" for kind in KINDS))
    return 1 if bare else 0


if __name__ == "__main__":
    sys.exit(main())
