"""The blocking client: the same names and the same ends."""

import inspect
import threading
from collections.abc import Iterator
from itertools import islice

import pytest

from roundhouse.client import Client, SyncClient, deployment
from roundhouse.kit.errors import NotFound
from roundhouse.v1 import generation_pb2, receipt_pb2
from tests.support.scripted_process import scripted_process


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with scripted_process() as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[SyncClient]:
    with SyncClient(address) as client:
        yield client


def test_an_answer_is_a_plain_iterator(client: SyncClient) -> None:
    with client.chat("demo", "one two three") as generation:
        assert [delta.text for delta in generation] == ["one", " two", " three"]
    assert generation.finished is not None
    assert generation.finished.output_token_count == 3
    assert generation.usage is not None
    assert client.generate("demo", "four five").text() == "four five"


def test_leaving_a_loop_cancels_the_request_and_the_client_goes_on(client: SyncClient) -> None:
    for _ in client.generate("demo", "on and on", ignore_eos=True):
        break
    with client.generate("demo", "on and on", ignore_eos=True) as generation:
        for _ in generation:
            break
    assert list(generation) == []
    assert client.chat("demo", "still here").text() == "still here"


def test_a_request_is_cancelled_by_its_id(client: SyncClient) -> None:
    receipt = None
    with client.generate("demo", "on and on", ignore_eos=True) as generation:
        for _ in generation:
            receipt = receipt or client.cancel("demo", generation.request_id, generation.location)
    assert receipt is not None
    assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_CANCELLED
    assert generation.finished is not None
    assert generation.finished.reason == generation_pb2.FINISH_REASON_CANCELLED


def test_another_thread_may_cancel_what_this_one_reads(client: SyncClient) -> None:
    with client.generate("demo", "wait") as generation:
        for event in generation.events():
            assert event.HasField("started")
            threading.Thread(target=generation.cancel).start()


def test_deployments_are_created_waited_for_watched_and_deleted(client: SyncClient) -> None:
    client.deployments.create(deployment("sync", builtin="demo", replica_count=2))
    assert client.deployments.wait_ready("sync", 30).deployment.ready_replica_count == 2
    assert [each.name for each in client.deployments.list().deployments] == ["deployments/demo", "deployments/sync"]
    with client.replicas.watch("sync") as watch:
        assert [event.WhichOneof("event") for event in islice(watch, 3)][-1] == "bookmark"
    client.deployments.delete("sync")
    client.deployments.wait_gone("sync", 30)
    with pytest.raises(NotFound):
        client.deployments.get("sync")


def test_nothing_runs_on_after_the_client_is_closed(address: str) -> None:
    with SyncClient(address) as client:
        iterator = iter(client.generate("demo", "on and on", ignore_eos=True))
        next(iterator)
    assert "roundhouse client" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("part", ["", "deployments", "replicas", "nodes"])
def test_the_blocking_client_has_every_name_of_the_other_one(part: str, client: SyncClient) -> None:
    twin, original = (getattr(each, part) if part else each for each in (client, Client()))
    names = {name for name, _ in inspect.getmembers(original) if not name.startswith("_")}
    assert names - set(dir(twin)) == set()
