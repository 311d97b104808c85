"""What loading the package costs, and what it gives."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import roundhouse
import roundhouse.client


def test_servers_and_engines_do_not_load_the_client() -> None:
    program = (
        "import sys, roundhouse.kit.server, roundhouse.v1.node_pb2; "
        "print([name for name in sys.modules if name.startswith(('roundhouse.cl', 'click'))])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_the_package_gives_the_clients_and_its_version() -> None:
    assert roundhouse.Client is roundhouse.client.Client
    assert roundhouse.SyncClient is roundhouse.client.SyncClient
    assert roundhouse.__version__ == version("roundhouse-serve")


def test_a_misspelt_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Clent"):
        roundhouse.Clent  # type: ignore[attr-defined] # noqa: B018


def test_what_the_client_exports_is_what_it_names() -> None:
    assert sorted(roundhouse.client.__all__) == list(roundhouse.client.__all__)
    assert all(hasattr(roundhouse.client, name) for name in roundhouse.client.__all__)
