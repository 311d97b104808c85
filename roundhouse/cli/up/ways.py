"""What to type next, so that it works when it is copied."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from rich.text import Text

from roundhouse.cli.up.demo import DEMO
from roundhouse.cli.up.tour import QUESTION
from roundhouse.client.client import DEFAULT_ADDRESS

_WAYS = """
# command line
{roundhouse} chat {deployment}
{roundhouse} nodes --watch
{roundhouse} terminate {deployment}

# Python
{python} - <<'END'
from roundhouse import SyncClient
with SyncClient("{address}") as client:
    print(client.chat("{deployment}", "{question}").text())
END

# any gRPC client, for example grpcurl or buf
grpcurl -plaintext -d '{{"deployment": "{deployment}",
    "messages": [{{"role": "ROLE_USER", "content": [{{"text": "{question}"}}]}}]}}' \\
    {address} roundhouse.v1.InferenceService/Chat
buf curl --protocol grpc --http2-prior-knowledge -d '{{"deployment": "{deployment}",
    "messages": [{{"role": "ROLE_USER", "content": [{{"text": "{question}"}}]}}]}}' \\
    http://{address}/roundhouse.v1.InferenceService/Chat
"""


def ways_on(address: str) -> Text:
    """Returns lines for the command line, for Python and for gRPC clients, flush left so that they can be copied."""
    roundhouse = _program("roundhouse", sys.argv[0])
    shown = Text(
        _WAYS.format(
            roundhouse=roundhouse if address == DEFAULT_ADDRESS else f"{roundhouse} --address {address}",
            python=_program("python", sys.executable),
            address=address,
            deployment=DEMO,
            question=QUESTION,
        )
    )
    shown.highlight_regex(r"(?m)^#.*$", "dim")
    return shown


def _program(name: str, path: str) -> str:
    """Returns how a program is called from here: by its bare name if the shell finds this very one."""
    found = shutil.which(name)
    if not Path(path).name.startswith(name):
        return name
    return name if found is not None and Path(found).samefile(path) else os.path.relpath(path)
