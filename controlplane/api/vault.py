"""Puts secret variables of deployments away."""

from __future__ import annotations

from collections.abc import Iterable

from controlplane import wire
from controlplane.secrets import Secrets
from controlplane.store.protocol import Store
from roundhouse.internal.v1.store_pb2 import DeploymentRecord
from roundhouse.kit.errors import NotReady, Usage
from roundhouse.v1 import errors_pb2
from roundhouse.v1.deployment_pb2 import EnvVar


async def require_no_secrets(store: Store) -> None:
    """Raises Usage if a deployment has secrets: they would go to agents where others can listen."""
    listing = await store.list(wire.DEPLOYMENTS)
    for entry in listing.entries:
        record = DeploymentRecord.FromString(entry.value)
        if record.sealed_env:
            raise Usage(
                f"{record.deployment.name} has secrets, which would be sent where others can listen: give --tls-cert "
                "and --tls-key, or listen on 127.0.0.1"
            )


class Vault:
    """Takes secrets, unless others may have heard them.

    is_private: what clients and agents say goes over TLS, or stays on this host.
    """

    def __init__(self, secrets: Secrets, *, is_private: bool) -> None:
        self._secrets, self._is_private = secrets, is_private

    def seal_env(self, record: DeploymentRecord, env: Iterable[EnvVar]) -> None:
        """Puts an environment into the record of a new deployment, its secrets sealed.

        Raises NotReady (SECRETS_NEED_TLS) for those that others may have heard.
        """
        (deployment,) = wire.DEPLOYMENT.parse(record.deployment.name)
        for each in env:
            if not each.HasField("secret_value"):
                record.deployment.env.add(name=each.name, value=each.value)
                continue
            if not self._is_private:
                raise NotReady(
                    f'the secret "{each.name}" came without TLS, so others may have read it: use another one, and '
                    "start the control plane with --tls-cert and --tls-key",
                    reason=errors_pb2.ERROR_REASON_SECRETS_NEED_TLS,
                )
            record.deployment.env.add(name=each.name, secret_version=1)
            record.sealed_env.append(self._secrets.seal(deployment, each.name, 1, each.secret_value))
