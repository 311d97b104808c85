"""The blocking client: the same names and the same ends."""

import inspect
import threading
from collections.abc import Iterator
from itertools import islice

import pytest

from roundhouse.client import Client, SyncClient, deployment
from roundhouse.kit.errors import InvalidArgument, NotFound, TooLong
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


def test_leaving_sends_a_cancel_with_a_receipt_and_detaching_does_not(client: SyncClient) -> None:
    with client.generate("demo", "on and on", ignore_eos=True) as generation:
        for _ in generation:
            break
    receipt = generation.left()
    assert receipt is not None
    assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_CANCELLED
    with client.generate("demo", "one two three", request_id="detached") as generation:
        for delta in generation:
            assert delta.text == "one"
            generation.detach()
    assert generation.left() is None
    rest = client.attach("demo", "detached", after=generation.positions)
    assert rest.text() == " two three"
    assert rest.finished is not None
    assert rest.finished.exactness == generation_pb2.EXACTNESS_EXACT
    assert client.request("demo", "detached").finishes[0].token_hash == rest.finished.token_hash
    assert client.requests("demo").requests[0].request_id == "detached"


def test_an_answer_goes_on_when_its_engine_is_lost(client: SyncClient) -> None:
    with client.chat("demo", "one two lost four") as generation:
        events = list(generation.events())
    assert [each.WhichOneof("event") for each in events].count("resumed") == len(generation.resumes) == 1
    assert "".join(each.delta.text for each in events) == "one two lost four"


def test_several_addresses_are_tried_one_after_another(address: str) -> None:
    with SyncClient(["127.0.0.1:1", address]) as client:
        assert client.chat("demo", "one two").text() == "one two"
        assert client.address == address


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


def test_logs_are_read_line_by_line_and_left_at_any(client: SyncClient) -> None:
    assert [line.text for line in client.replicas.logs("demo-1", stream="stderr")][1] == "aside"
    for line in client.replicas.logs("deployments/demo/replicas/1", follow=True):
        assert "follow=True" in line.text
        break
    with pytest.raises(NotFound):
        list(client.replicas.logs("demo-7"))
    with pytest.raises(InvalidArgument, match="write it as chat-0"):
        client.replicas.logs("demo")


def test_events_are_listed_and_watched(client: SyncClient) -> None:
    assert [each.reason for each in client.events.list("demo").events] == ["Created", "Died"]
    assert [each.object for each in client.events.list("nodes/one").events] == ["nodes/one"]
    listing = client.events.list()
    assert len(listing.events) == 3
    for notice in client.events.watch(cursor=listing.cursor):
        assert notice.changed.reason == "Returned"
        break
    with pytest.raises(TooLong):
        next(iter(client.events.watch(cursor="old")))


def test_nothing_runs_on_after_the_client_is_closed(address: str) -> None:
    with SyncClient(address) as client:
        iterator = iter(client.generate("demo", "on and on", ignore_eos=True))
        next(iterator)
    assert "roundhouse client" not in {thread.name for thread in threading.enumerate()}


def test_a_call_from_a_callback_is_refused_and_not_waited_for_without_end(client: SyncClient) -> None:
    with pytest.raises(RuntimeError, match=r"callback .* cannot wait.* when the method that called back has returned"):
        client.deployments.wait_ready("demo", 30, on_event=lambda progress: client.deployments.get("demo"))
    assert client.deployments.get("demo").name == "deployments/demo"


def test_a_callback_may_cancel_a_watch(client: SyncClient) -> None:
    with client.nodes.watch() as watch:
        events = iter(watch)
        next(events)
        client.deployments.wait_ready("demo", 30, on_event=lambda progress: watch.cancel())
        list(events)  # ends


def test_closing_twice_does_nothing(address: str) -> None:
    with SyncClient(address) as client:
        client.close()
    client.close()


def test_what_a_closed_client_began_can_be_left_and_cancelled(address: str) -> None:
    with SyncClient(address) as client, client.nodes.watch() as watch, client.generate("demo", "wait") as generation:
        events = iter(watch)
        next(events)
        client.close()
        events.close()  # type: ignore[attr-defined]
        watch.cancel()
        generation.cancel()


def test_a_closed_client_says_that_it_is_not_open(address: str) -> None:
    with SyncClient(address) as client:
        watch, generation = client.nodes.watch(), client.generate("demo", "wait")
    for use in (client.nodes.list, lambda: next(iter(watch)), generation.text, client.__enter__):
        with pytest.raises(RuntimeError, match="the client is not open: use it inside"):
            use()


def test_a_client_closed_under_its_iterators_ends_them_in_peace(address: str, caplog: pytest.LogCaptureFixture) -> None:
    with SyncClient(address) as client:
        iterators = [iter(client.generate("demo", "on and on", ignore_eos=True)) for _ in range(8)]
        for each in iterators:
            next(each)
    assert caplog.messages == []


@pytest.mark.parametrize("part", ["", "deployments", "replicas", "nodes"])
def test_the_blocking_client_has_every_name_of_the_other_one(part: str, client: SyncClient) -> None:
    twin, original = (getattr(each, part) if part else each for each in (client, Client()))
    names = {name for name, _ in inspect.getmembers(original) if not name.startswith("_")}
    assert names - set(dir(twin)) == set()


def test_the_blocking_generation_has_every_name_of_the_other_one(client: SyncClient) -> None:
    generation, original = client.generate("demo", "x"), Client().generate("demo", "x")
    assert {name for name in dir(original) if not name.startswith("_")} - set(dir(generation)) == set()
