"""Opens what stands between the network and the services: the gate, the tokens, the authority of nodes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from controlplane import wire
from controlplane.auth.enrolling import Enrolling
from controlplane.auth.epochs import Epochs
from controlplane.auth.gate import Guard
from controlplane.auth.keys import operator_secret
from controlplane.auth.tokens import Tokens
from controlplane.config import AuthSettings, Config
from controlplane.store.protocol import Store
from roundhouse.kit.certificates import Authority
from roundhouse.kit.clock import Clock
from roundhouse.kit.errors import Usage
from roundhouse.kit.server import Listen

CA, CA_KEY = "ca.pem", "ca.key"  # in a directory of `roundhouse certs init`
_OWN_CA, _OWN_CA_KEY = "node-ca.pem", "node-ca.key"  # in the state directory, where there is no such directory
_OPERATOR_TOKEN = "operator.token"


@dataclass(frozen=True, slots=True)
class Edge:
    """Who may come in. Without a guard everybody may do everything.

    enrolling: None where agents join without certificates. beside: where the same is served with their certificates.
    """

    tokens: Tokens
    guard: Guard | None = None
    enrolling: Enrolling | None = None
    beside: tuple[Listen, ...] = ()


@contextlib.asynccontextmanager
async def open_edge(config: Config, store: Store, clock: Clock, is_known: Callable[[str], bool]) -> AsyncIterator[Edge]:
    """Gives the edge for the block; raises Usage if a token or an authority cannot be read or made.

    is_known: whether the fleet knows a node of this id.
    """
    settings = config.auth
    if settings is None:
        tokens = Tokens(store, clock)
        async with tokens.kept():
            yield Edge(tokens)
        return
    tokens = Tokens(store, clock, operator_secret(config.state_dir / _OPERATOR_TOKEN))
    epochs = Epochs(store)
    guard = Guard(tokens, epochs, clock)
    authority, ca = _authority(settings, config.state_dir, clock)
    enrolling = Enrolling(store, clock, authority, epochs, is_known, life_s=settings.certificate_life_s)
    assert settings.agents.tls is not None, "checked with the settings"
    agents = replace(settings.agents, tls=replace(settings.agents.tls, client_ca=ca))
    async with tokens.kept(), epochs.kept():
        with tokens.ended.to(guard.end), epochs.ended.to(lambda node: guard.end(wire.NODE.format(node))):
            yield Edge(tokens, guard, enrolling, (agents,))


def _authority(settings: AuthSettings, state_dir: Path, clock: Clock) -> tuple[Authority, Path]:
    if settings.certs is not None:
        certificate, key = settings.certs / CA, settings.certs / CA_KEY
    else:
        certificate, key = state_dir / _OWN_CA, state_dir / _OWN_CA_KEY
        if not certificate.exists():  # the key is written first, so without the certificate nothing was signed with it
            try:
                Authority.make("roundhouse nodes", clock.now()).save(certificate, key)
            except OSError as error:
                raise Usage(f"{certificate} cannot be written: {error.strerror}: choose another --state-dir") from error
    return Authority.load(certificate, key), certificate
