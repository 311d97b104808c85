"""Secrets: sealed in everything that is stored, opened only on their way to the agent of an engine.

The key is a file outside of the store, so that a copy of the store alone gives nothing away. AES-256-GCM; a sealed
value can be opened under its own deployment, name and version only.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from roundhouse.internal.v1.agent_service_pb2 import EngineAssignment
from roundhouse.internal.v1.engine_spec_pb2 import EngineSpec, SealedValue
from roundhouse.kit.errors import Usage
from roundhouse.kit.files import write_atomically
from roundhouse.v1.deployment_pb2 import EnvVar

KEY_BYTES = 32
_NONCE_BYTES, _TAG_BYTES = 12, 16


class Secrets:
    """Seals and opens, with one key."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self.hash_key = hmac.digest(key, b"hashes of requests", "sha256")

    def seal(self, deployment: str, name: str, version: int, value: str) -> SealedValue:
        """Returns a secret of a deployment, by its bare id, as it may be stored."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, value.encode(), _about(deployment, name, version))
        return SealedValue(name=name, version=version, sealed=nonce + sealed)

    def open(self, deployment: str, sealed: SealedValue) -> str | None:
        """Returns the secret; None if it was sealed with another key, or for something else."""
        nonce, rest = sealed.sealed[:_NONCE_BYTES], sealed.sealed[_NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, rest, _about(deployment, sealed.name, sealed.version)).decode()
        except (InvalidTag, ValueError):
            return None

    def opened(self, engines: Iterable[EngineAssignment]) -> list[EngineAssignment]:
        """Returns what an agent is told: the same, with secrets among the variables."""
        return [each if not each.spec.sealed_env else self._opened(each) for each in engines]

    def _opened(self, engine: EngineAssignment) -> EngineAssignment:
        told = EngineAssignment()
        told.CopyFrom(engine)
        spec: EngineSpec = told.spec
        for sealed in engine.spec.sealed_env:
            value = self.open(spec.deployment, sealed)
            if value is None:
                spec.unopened_names.append(sealed.name)
            else:
                spec.env.append(EnvVar(name=sealed.name, value=value))
                spec.secret_names.append(sealed.name)
        spec.ClearField("sealed_env")
        return told


def secret_bytes(sealed: SealedValue) -> int:
    """Returns how long a secret is that was sealed."""
    return len(sealed.sealed) - _NONCE_BYTES - _TAG_BYTES


def load_key(path: Path) -> bytes:
    """Returns the key in a file, which is made, for its owner alone, if it is not there; raises Usage if that fails."""
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = secrets.token_bytes(KEY_BYTES)
        try:
            write_atomically(path, key, mode=0o600)
        except OSError as error:
            raise Usage(f"the key of secrets {path} cannot be written: {error.strerror}: name another place") from error
    except OSError as error:
        raise Usage(
            f"the key of secrets {path} cannot be read: {error.strerror}: mend that, or name another"
        ) from error
    if len(key) != KEY_BYTES:
        raise Usage(f"{path} is no key of secrets: it has {len(key)} bytes, not {KEY_BYTES}: restore it")
    return key


def _about(deployment: str, name: str, version: int) -> bytes:
    return f"{deployment}\0{name}\0{version}".encode()
