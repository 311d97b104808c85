"""Names: of resources from what people type, and of values of enums."""

from __future__ import annotations

from typing import Any

from roundhouse.kit.fields import invalid


def deployment_name(deployment: str) -> str:
    """Returns `deployments/chat` for `chat`; what is a name already stays as it is, and the server judges it."""
    return deployment if "/" in deployment else f"deployments/{deployment}"


def deployment_id(deployment: str) -> str:
    """Returns `chat` for `deployments/chat`, as inference requests want it."""
    return deployment.removeprefix("deployments/")


def node_name(node: str) -> str:
    """Returns `nodes/a` for `a`."""
    return node if "/" in node else f"nodes/{node}"


def node_id(node: str) -> str:
    """Returns `a` for `nodes/a`."""
    return node.removeprefix("nodes/")


def family_name(family: str) -> str:
    """Returns `families/qwen3` for `qwen3`."""
    return family if "/" in family else f"families/{family}"


def access_token_name(token: str) -> str:
    """Returns `accessTokens/ada` for `ada`."""
    return token if "/" in token else f"accessTokens/{token}"


def access_token_id(token: str) -> str:
    """Returns `ada` for `accessTokens/ada`."""
    return token.removeprefix("accessTokens/")


def replica_label(name: str) -> str:
    """Returns `chat-0` for `deployments/chat/replicas/0`, as logs and people say it."""
    parts = name.split("/")
    return f"{parts[1]}-{parts[3]}" if len(parts) == 4 else name


def replica_name(label: str) -> str:
    """Returns `deployments/chat/replicas/0` for `chat-0`; raises InvalidArgument for what ends with no index."""
    if "/" in label:
        return label
    deployment, _, index = label.rpartition("-")
    if not (deployment and index.isdecimal()):
        raise invalid("replica", f'"{label[:100]}" is no replica: write it as chat-0, or deployments/chat/replicas/0')
    return f"deployments/{deployment}/replicas/{index}"


def enum_name(enum: Any, number: int) -> str:
    """Returns the name of a value of an enum; its number if a newer server sent one that is not known here."""
    return str(enum.Name(number)) if number in enum.values() else str(number)
