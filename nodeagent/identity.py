"""Who this node is: an id and a uid that live with the state directory."""

from __future__ import annotations

import json
import re
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path

from roundhouse.kit.errors import Usage
from roundhouse.kit.files import write_atomically
from roundhouse.kit.names import ID_RULE, is_id

_FILE = "node.json"
_MACHINE_ID = Path("/etc/machine-id")
_SUFFIX_LENGTH = 6
_ID_LENGTH = 63


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """Names a node in its cluster (`node_id`) and over all time (`node_uid`)."""

    node_id: str
    node_uid: str


def load(state_dir: Path, wanted_id: str | None) -> NodeIdentity:
    """Returns who the node of this state directory is; the first call decides it.

    Raises Usage if `wanted_id` breaks the rule for ids or differs from what was decided, or if the file is broken.
    """
    if wanted_id is not None and not is_id(wanted_id):
        raise Usage(f'--node-id is "{wanted_id}": use {ID_RULE}')
    path = state_dir / _FILE
    try:
        kept = json.loads(path.read_bytes())
        identity = NodeIdentity(kept["node_id"], kept["node_uid"])
    except FileNotFoundError:
        node_uid = str(uuid.uuid4())
        identity = NodeIdentity(wanted_id or default_id(socket.gethostname(), node_uid), node_uid)
        text = json.dumps({"node_id": identity.node_id, "node_uid": identity.node_uid})
        write_atomically(path, text.encode())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Usage(f"{path} cannot be read ({error!r}): mend it, or choose another --state-dir") from error
    if wanted_id not in (None, identity.node_id):
        raise Usage(
            f'the state directory {state_dir} belongs to node "{identity.node_id}", not to "{wanted_id}": '
            "leave --node-id out, or choose another --state-dir"
        )
    return identity


def default_id(hostname: str, node_uid: str) -> str:
    """Returns the host's name if it is an id, else what is left of it and a suffix: two names must not become one."""
    if is_id(hostname):
        return hostname
    suffix = node_uid.replace("-", "")[:_SUFFIX_LENGTH]
    left = re.sub(r"[^a-z0-9]+", "-", hostname.lower()).strip("-")
    if not left[:1].isalpha():
        left = f"node-{left}".rstrip("-")
    return f"{left[: _ID_LENGTH - _SUFFIX_LENGTH - 1].rstrip('-')}-{suffix}"


def machine_id(boot_id: str, path: Path = _MACHINE_ID) -> str:
    """Returns the id of the machine; where it has none, as a bare container, the id of its present boot stands in."""
    try:
        return path.read_text().strip() or boot_id
    except OSError:
        return boot_id
