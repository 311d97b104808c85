"""Puts secret variables of deployments away."""

from __future__ import annotations

from collections.abc import Iterable

from controlplane import wire
from controlplane.secrets import Secrets
from controlplane.store.protocol import Store
from roundhouse.internal.v1.store_pb2 import DeploymentRecord
from roundhouse.kit.errors import NotReady, Usage
from roundhouse.kit.fields import FieldCheck
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


def check_kept(check: FieldCheck, record: DeploymentRecord, env: Iterable[EnvVar]) -> None:
    """Notes variables that are to keep a secret which the deployment does not have."""
    names = {each.name for each in record.sealed_env}
    for index, each in enumerate(env):
        has_some = each.WhichOneof("source") is not None or each.name in names
        cure = "set value or secret_value"
        check.require(has_some, f"deployment.env[{index}]", f'"{each.name[:100]}" has no secret to keep: {cure}')


class Vault:
    """Takes secrets, unless others may have heard them.

    is_private: what clients and agents say goes over TLS, or stays on this host.
    """

    def __init__(self, secrets: Secrets, *, is_private: bool) -> None:
        self._secrets, self._is_private = secrets, is_private

    def seal_env(self, record: DeploymentRecord, env: Iterable[EnvVar]) -> None:
        """Puts an environment into the record of a deployment in place of the one it has, its secrets sealed.

        A variable with neither value nor secret value keeps the secret that it has: `check_kept` has looked. Raises
        NotReady (SECRETS_NEED_TLS) for secrets that others may have heard.
        """
        (deployment,) = wire.DEPLOYMENT.parse(record.deployment.name)
        before = {each.name: each for each in record.sealed_env}
        record.deployment.ClearField("env")
        record.ClearField("sealed_env")
        for each in env:
            if each.HasField("value"):
                record.deployment.env.add(name=each.name, value=each.value)
                continue
            kept = before.get(each.name)
            if not each.HasField("secret_value") and kept is not None:
                record.deployment.env.add(name=each.name, secret_version=kept.version)
                record.sealed_env.append(kept)
                continue
            if not self._is_private:
                raise NotReady(
                    f'the secret "{each.name}" came without TLS, so others may have read it: use another one, and '
                    "start the control plane with --tls-cert and --tls-key",
                    reason=errors_pb2.ERROR_REASON_SECRETS_NEED_TLS,
                )
            version = 1 if kept is None else kept.version + 1
            record.deployment.env.add(name=each.name, secret_version=version)
            record.sealed_env.append(self._secrets.seal(deployment, each.name, version, each.secret_value))
