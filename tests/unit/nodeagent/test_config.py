"""What the agent may be started with, and what it says to the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.config import Config, Simulation, parse, parse_simulation
from roundhouse.kit.errors import Usage

GIB = 1024**3
HOME = {"XDG_STATE_HOME": "/state"}
ADDRESS = ("--control-plane", "127.0.0.1:50050")


def parsed(*arguments: str) -> Config:
    return parse([*ADDRESS, *arguments], HOME)


def test_only_the_control_plane_must_be_named() -> None:
    assert parsed() == Config(
        "127.0.0.1:50050", Path("/state/roundhouse/nodeagent"), labels={}, simulates_only_if_none=True
    )


def test_everything_can_be_said() -> None:
    config = parsed(
        *("--state-dir", "/s", "--node-id", "a", "--simulate-gpus", "2x24GiB", "--label", "zone=x", "--label", "rack="),
        *("--engine-host", "10.0.0.5", "--insecure", "--engine-ports", "6000-6010", "--sample-period", "0.1"),
        *("--venv-dir", "/v"),
        *("--taint", "spot", "--taint", "owner=me", "--taint", "spot"),
        *("--tls-ca", "/ca.pem", "--log-level", "debug", "--stop-engines-on-exit", "10"),
    )
    assert config == Config(
        "127.0.0.1:50050",
        Path("/s"),
        node_id="a",
        simulation=Simulation(2, 24 * GIB),
        stop_grace_s=10.0,
        labels={"zone": "x", "rack": ""},
        taints=(("owner", "me"), ("spot", "")),
        engine_host="10.0.0.5",
        engine_ports=(6000, 6010),
        sample_period_s=0.1,
        venv_dir=Path("/v"),
        tls_ca=Path("/ca.pem"),
        log_level="debug",
    )


def test_a_relative_directory_is_meant_from_here() -> None:
    config = parsed("--state-dir", "s", "--venv-dir", "v")
    assert (config.state_dir, config.venv_dir) == (Path.cwd() / "s", Path.cwd() / "v")


@pytest.mark.parametrize(
    ("text", "simulation"),
    [
        ("2x24GiB", Simulation(2, 24 * GIB)),
        ("1x80G", Simulation(1, 80_000_000_000)),
        ("64x1MiB", Simulation(64, 1024**2)),
    ],
)
def test_simulated_gpus_are_a_count_and_a_size(text: str, simulation: Simulation) -> None:
    assert parse_simulation(text) == simulation


def test_a_file_that_is_there_is_a_script_of_simulated_gpus(tmp_path: Path) -> None:
    script = tmp_path / "gpus.jsonl"
    script.write_text("")
    assert parsed("--simulate-gpus", str(script)).simulation == script


@pytest.mark.parametrize("text", ["", "2", "x24GiB", "2x", "0x24GiB", "65x24GiB", "2x24parsec", "-1x24GiB", "2x1KiB"])
def test_other_ways_to_write_simulated_gpus_are_refused(text: str) -> None:
    with pytest.raises(Usage, match=r"simulated|size"):
        parse_simulation(text)


REFUSED = {
    "an option that does not exist": (["--gpus", "2"], "unrecognized arguments"),
    "a period that is too short": (["--sample-period", "0.09"], "0.1 to 60"),
    "a period that is too long": (["--sample-period", "61"], "0.1 to 60"),
    "a period that is no number": (["--sample-period", "often"], "--sample-period"),
    "a period that is not a number": (["--sample-period", "nan"], "0.1 to 60"),
    "a label without a value": (["--label", "zone"], "KEY=VALUE"),
    "a label without a key": (["--label", "=x"], "KEY=VALUE"),
    "a taint without a key": (["--taint", "=x"], "KEY=VALUE"),
    "a taint that is too long": (["--taint", "k" * 64], "KEY=VALUE"),
    "too many taints": ([f"--taint=k{number}" for number in range(65)], "at most 64"),
    "a range of ports that is empty": (["--engine-ports", "6010-6000"], "LOW-HIGH"),
    "a port that cannot be": (["--engine-ports", "65535-65536"], "LOW-HIGH"),
    "one port": (["--engine-ports", "6000"], "LOW-HIGH"),
    "engines that everybody can reach": (["--engine-host", "0.0.0.0"], "--insecure"),
    "two opinions on GPUs": (["--simulate-gpus", "1x1GiB", "--simulate-gpus-if-none", "1x1GiB"], "contradict"),
    "a negative grace": (["--stop-engines-on-exit", "-1"], "seconds from 0"),
    "a log level that does not exist": (["--log-level", "loud"], "--log-level"),
}


@pytest.mark.parametrize(("arguments", "said"), REFUSED.values(), ids=REFUSED)
def test_a_mistake_is_one_readable_line(arguments: list[str], said: str) -> None:
    with pytest.raises(Usage, match=said) as caught:
        parsed(*arguments)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--control-plane"),
        (["--control-plane", "here"], "HOST:PORT"),
        (["--control-plane", "10.0.0.1:50050"], "--tls-ca"),
    ],
    ids=["none", "no address", "one that is far and in the clear"],
)
def test_the_control_plane_must_be_one_that_may_be_told_keys(arguments: list[str], said: str) -> None:
    with pytest.raises(Usage, match=said):
        parse(arguments, HOME)


@pytest.mark.parametrize("allowed", [["--tls-ca", "/ca.pem"], ["--insecure"]])
def test_a_far_control_plane_is_called_with_tls_or_on_demand(allowed: list[str]) -> None:
    assert parse(["--control-plane", "10.0.0.1:50050", *allowed], HOME).control_plane == "10.0.0.1:50050"


def test_a_join_token_comes_by_flag_by_file_or_by_variable(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("rhj_file\n")
    tls = (*ADDRESS, "--tls-ca", "/ca.pem")
    assert parse(tls, HOME).join_token is None
    assert parse((*tls, "--join-token", "rhj_flag"), HOME).join_token == "rhj_flag"
    assert parse((*tls, "--join-token-file", str(tmp_path / "token")), HOME).join_token == "rhj_file"
    assert parse(tls, {**HOME, "ROUNDHOUSE_JOIN_TOKEN": "rhj_variable"}).join_token == "rhj_variable"
    assert "rhj_" not in repr(parse((*tls, "--join-token", "rhj_flag"), HOME))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--join-token", "x"), "goes over TLS only"),
        (("--tls-ca", "c", "--join-token", "x", "--join-token-file", "y"), "give one of them"),
        (("--tls-ca", "c", "--join-token-file", "/nowhere"), "cannot be read"),
    ],
)
def test_a_join_token_that_cannot_be_sent_is_refused(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(Usage, match=message):
        parsed(*arguments)
