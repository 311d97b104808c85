"""Whatever goes wrong is one readable line and the right exit status."""

import click
import pytest

from roundhouse.cli import program
from roundhouse.kit.errors import NotServed
from tests.unit.cli.conftest import Cli

CASES = {
    "unknown command": (("frobnicate",), 2, "no such command"),
    "unknown option": (("list", "--sizes", "7"), 2, "no such option"),
    "a slip": (("launch", "-n", "demo", "--replicas", "2"), 2, "no such option --replicas: did you mean --replica?"),
    "a flag of Xinference": (("launch", "-n", "demo", "--n-worker", "2"), 2, "--n-worker 2 is not served yet"),
    "two wishes": (("launch", "-n", "demo", "--disable-virtual-env", "-vp", "numpy"), 2, "contradict one another"),
    "a type of model": (("launch", "clip", "-t", "embedding"), 1, "no engine computes embeddings: use LLM"),
    "no such node": (("launch", "-n", "demo", "--worker-ip", "nowhere"), 2, "is 0 nodes: give the id of one, of one"),
    "no such endpoint": (("launch", "-e", "127.0.0.1:1", "demo"), 3, 'start one with "roundhouse up"'),
    "missing argument": (("cancel", "demo"), 2, "missing argument"),
    "no number": (("scale", "demo", "many"), 2, "not a valid int"),
    "no address": (("--address", "nonsense", "list"), 2, "write HOST:PORT"),
    "no such authority": (("--tls-ca", "/nowhere.pem", "list"), 2, "cannot read /nowhere.pem"),
    "no model": (("launch", "-u", "chat"), 2, "no model: name one of the catalog"),
    "no name": (("launch", "--model-path", "/m"), 2, "no name"),
    "two names": (("launch", "chat", "-u", "talk", "-n", "demo"), 2, "two names"),
    "bad size": (("launch", "-n", "demo", "--memory", "5 apples"), 2, '--memory is "5 apples"'),
    "no such secret here": (("launch", "-n", "demo", "--secret-env", "NOT_SET"), 2, "there is no such variable here"),
    "no such file of a secret": (("launch", "-n", "demo", "--secret-env", "A=/nowhere"), 2, "/nowhere cannot be read"),
    "bad label": (("launch", "-n", "demo", "--label", "team"), 2, "write KEY=VALUE"),
    "tour without demo": (("up", "--tour", "--no-demo"), 2, "--tour needs the demo"),
    "nobody answers": (("--address", "127.0.0.1:1", "list"), 3, 'start one with "roundhouse up"'),
    "nobody answers a stream": (("--address", "127.0.0.1:1", "chat", "demo", "hi"), 3, "does not answer"),
    "duplicate name": (("launch", "-n", "demo"), 1, "exists: pick another name"),
    "model not there": (("launch", "lost", "-mp", "/missing"), 1, "no node has /missing"),
    "replicas below 0": (("launch", "less", "-n", "demo", "-r", "-1"), 1, "deployment.replica_count"),
    "does not fit": (("launch", "big", "-n", "demo", "--memory", "30GiB"), 1, "needs 30 GiB"),
    "number out of range": (("generate", "demo", "x", "--max-tokens", "5000000000"), 2, "out of range"),
    "seed out of range": (("generate", "demo", "x", "--seed", "99999999999999999999"), 1, "sampling"),
    "unknown deployment": (("generate", "nowhere", "x"), 1, '"nowhere" is unknown'),
    "unknown deployment's replicas": (("replicas", "nowhere"), 1, '"nowhere" is unknown'),
    "nothing ready": (("chat", "asleep", "hi"), 1, "no replica that is READY"),
    "prompt too long": (("generate", "demo", "word " * 3000), 1, "the context 2048"),
    "broken stream": (("generate", "demo", "break"), 1, "the engine of"),
    "deadline": (("generate", "demo", "wait", "--timeout", "0.2"), 1, "allow more time"),
    "terminate unknown": (("terminate", "nowhere"), 1, '"nowhere" is unknown'),
    "count out of range": (("scale", "demo", "99999999999"), 2, "99999999999 is out of range"),
    "grace of nan": (("terminate", "demo", "--grace", "nan"), 2, "nan is no time to wait"),
    "grace without end": (("terminate", "demo", "--grace", "inf"), 2, "inf is no time to wait"),
    "grace beyond all time": (("terminate", "demo", "--grace", "1e300"), 2, "1e300 is no time to wait"),
    "timeout below 0": (("launch", "early", "-n", "demo", "--timeout", "-5"), 2, "-5 is no time to wait"),
    "timeout of nan": (("launch", "early", "-n", "demo", "--timeout", "nan"), 2, "give seconds from 0"),
    "nothing came of them": (("replicas", "early"), 1, '"early" is unknown'),
    "deadline without end": (("generate", "demo", "x", "--timeout", "inf"), 2, "inf is no time to wait"),
    "prompt that is no text": (("generate", "demo", "\udcff"), 2, '"\\xff" is not UTF-8'),
    "name that is no text": (("replicas", "\udcff"), 2, '"\\xff" is not UTF-8'),
    "request that is no text": (("cancel", "demo", "\udcff"), 2, '"\\xff" is not UTF-8'),
    "authority that is no PEM": (("--tls-ca", __file__, "list"), 2, "test_refusals.py holds no certificate in PEM"),
}


@pytest.mark.parametrize(("arguments", "status", "message"), CASES.values(), ids=CASES.keys())
def test_a_refusal_is_one_line_and_a_status(cli: Cli, arguments: tuple[str, ...], status: int, message: str) -> None:
    ended = cli(*arguments)
    assert ended.status == status, ended.err
    assert ended.err.startswith("roundhouse: ")
    assert len(ended.err.splitlines()) == 1, ended.err
    assert message in ended.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--n-worker", "2"), "use 1"),
        (("-t", "speech"), '"speech" is unknown: use LLM'),
        (
            ("-s", "7"),
            "--size-in-billions is for a model of the catalog, and demo ships with us as it is: leave it out",
        ),
        (("-f", "gptq"), "--model-format gptq is for a model of the catalog"),
        (("-qc", "load_in_4bit", "true"), "give --model-path"),
        (("-lm", "a", "/a", "-lm", "b", "/b"), "--lora-modules is not served yet"),
        (("-ld", "a", "b"), "leave it out"),
        (("-fd", "a", "b"), "leave it out"),
        (("--trust-remote-code", "true"), "use false"),
        (("-ak", "secret"), "leave it out"),
        (("--n-gpu", "all"), '"all" is no count: give a number, auto, or none for the processors'),
        (("--gpu-idx", "0;1"), '--gpu-idx is "0;1": list indexes, as 0,1'),
        (("--gpu-idx", "0", "--allow-gpu", "a"), "--gpu-idx and --allow-gpu both say which GPUs: give one"),
        (("--worker-ip", "a", "--allow-gpu", "a"), "--worker-ip and --allow-gpu both say which nodes: give one"),
        (("--allow-gpu", "a:"), "write NODE or NODE:0,1"),
        (("--node-label", "zone"), "write KEY=VALUE"),
        (("--tolerate", "=x"), "write KEY or KEY=VALUE"),
        (("--apart", "rack"), "write node, gpu, or gpu:LABEL=VALUE"),
        (("--apart", "gpu:team"), "write KEY=VALUE"),
        (("-e", "ftp://10.0.0.1:9997"), "write HOST:PORT or http://HOST:PORT"),
        (("-e", "https://10.0.0.1:9997"), "asks for TLS: give --tls-ca FILE before the command"),
        (("--address", "10.0.0.1:1"), "--address stands before the command"),
        (("--x", "1", "--x", "2"), "--engine-argument x is there twice: give it once"),
        (("--7b", "1"), "no such option --7b"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
)
def test_a_flag_of_xinference_that_cannot_be_had_is_refused_by_name(flags: tuple[str, ...], message: str) -> None:
    with pytest.raises(click.UsageError) as refusal:
        program.cli.main(["launch", "-n", "demo", *flags], standalone_mode=False)
    assert message in refusal.value.message


@pytest.mark.parametrize("kind", ["embedding", "rerank", "image", "audio", "video", "flexible"])
def test_a_type_of_model_that_no_engine_serves_is_refused_with_what_is_missing(kind: str) -> None:
    with pytest.raises(NotServed, match=rf"--model-type {kind} is not served yet, .+: use LLM"):
        program.cli.main(["launch", "-n", "demo", "-t", kind], standalone_mode=False)


@pytest.mark.parametrize(
    ("flags", "cure"),
    [
        (("-q", "4-bit"), "'none', 'int8'"),
        (("--dtype", "int3"), "'auto', 'float32', 'bfloat16', 'float16'"),
        (("--attention", "flash"), "'auto', 'torch', 'c', 'triton'"),
        (("--speculation", "eagle"), "'off', 'ngram', 'draft_model'"),
    ],
    ids=lambda each: each[0] if isinstance(each, tuple) else "",
)
def test_a_word_that_means_nothing_is_refused_with_those_that_do(flags: tuple[str, ...], cure: str) -> None:
    with pytest.raises(click.BadParameter, match=cure):
        program.cli.main(["launch", "-n", "demo", *flags], standalone_mode=False)
