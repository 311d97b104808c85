"""Compares the engine with vLLM, transformers' own batching, Xinference and `generate`, all in one run, in turn.

`python -m benchmarks.engine`; `--quick` for a look. Makes its models and the environments of its peers by itself, and
writes raw results and tables to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.support import machine
from benchmarks.support.environments import python_of
from benchmarks.support.loads import LOADS
from benchmarks.support.match import BATCH_SIZE, KV_CACHE_BYTES, Match, Rules
from benchmarks.support.models import MODELS, made
from benchmarks.support.paths import LOGS_DIRECTORY, MODELS_DIRECTORY, RESULTS_DIRECTORY, ROOT, result_path
from benchmarks.support.records import Records
from benchmarks.support.report import written
from benchmarks.support.roster import ENTRANTS, chosen
from engines.demo_model import MODEL_DIR

LIMIT_MIN, QUICK_LIMIT_MIN = 45.0, 4.0
LONGEST_S = 45.0
RESERVE_MIN = 1.0  # what is running when the time is over may still end
_QUICK_MODELS, _QUICK_LOADS = "demo", "decode-1,decode-8,decode-32,open-80"
_QUICK_PEERS = "roundhouse,vllm-compiled,roundhouse-grpc,transformers-sdpa,xinference,generate"


def main(arguments: list[str] | None = None) -> Path:
    """Runs what the command line asks for; returns the file of raw results."""
    asked = _parsed(arguments)
    limit_min = asked.limit_min or (QUICK_LIMIT_MIN if asked.quick else LIMIT_MIN)
    cores = sorted(os.sched_getaffinity(0))[: asked.threads or None]
    entrants = chosen(asked.peers or (_QUICK_PEERS if asked.quick else ""))
    now = datetime.now(UTC)
    records = Records(result_path(asked.results, "engine"))
    models = [
        MODELS[name] for name in (asked.models or (_QUICK_MODELS if asked.quick else ",".join(MODELS))).split(",")
    ]
    loads = [LOADS[name] for name in (asked.loads or (_QUICK_LOADS if asked.quick else ",".join(LOADS))).split(",")]
    directories = {model.name: made(model, MODELS_DIRECTORY, MODEL_DIR) for model in models}
    for entrant in entrants:
        python_of(entrant.environment, ROOT)  # takes minutes, which are not those of the run
    bandwidth = _bandwidth(len(cores))
    end_s = time.monotonic() + (limit_min - RESERVE_MIN) * 60
    rules = Rules(
        root=ROOT,
        records=records,
        logs=LOGS_DIRECTORY,
        cores=cores,
        rounds=asked.rounds or (1 if asked.quick else 2),
        bandwidth=bandwidth,
        deadline_s=end_s,
        open_fraction=0.5 if asked.quick else 1.0,
        longest_s=asked.longest_s,
        seed=asked.seed or f"{now:%Y%m%d%H%M%S}",
    )
    records.add(
        "run",
        **machine.described(ROOT, cores),
        bandwidth=bandwidth,
        threads=len(cores),
        kv_cache_bytes=KV_CACHE_BYTES,
        batch_size=BATCH_SIZE,
        seed=rules.seed,
        arguments=sys.argv[1:] if arguments is None else arguments,
    )
    for number, model in enumerate(models):
        print(f"{model.name}: {', '.join(entrant.name for entrant in entrants)}", flush=True)
        # Each model has its share of the time that is left, so that none goes without.
        share_s = (end_s - time.monotonic()) / (len(models) - number)
        match = Match(model, directories[model.name], replace(rules, deadline_s=time.monotonic() + share_s))
        match.play(entrants, loads)
    table = written(records.all)
    records.path.with_suffix(".md").write_text(table, encoding="utf-8")
    print(f"\n{table}\nraw results: {records.path}")
    return records.path


def _parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one model, four loads, a mode of each peer: four minutes")
    parser.add_argument("--models", default="", metavar="A,B", help=", ".join(MODELS))
    parser.add_argument("--peers", default="", metavar="A,B", help="names or families of " + ", ".join(ENTRANTS))
    parser.add_argument("--loads", default="", metavar="A,B", help=", ".join(LOADS))
    parser.add_argument(
        "--rounds", type=int, default=0, help="how often each load is run, in turn; 2, or 1 with --quick"
    )
    parser.add_argument("--threads", type=int, default=0, help="cores for every engine; all if 0")
    parser.add_argument("--seed", default="", help="of the requests; the time if empty")
    parser.add_argument("--limit-min", type=float, default=0.0, help="minutes after which nothing begins; 45, or 4")
    parser.add_argument(
        "--longest-s", type=float, default=LONGEST_S, help="of one load for any but the first two peers (default: 45)"
    )
    parser.add_argument("--results", type=Path, default=RESULTS_DIRECTORY, help="directory of the results")
    return parser.parse_args(arguments)


def _bandwidth(threads: int) -> float:
    """Measures it in a process of its own: this one is to stay small and still."""
    command = [sys.executable, "-m", "benchmarks.support.bandwidth"]
    variables = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True)
    return float(done.stdout)


if __name__ == "__main__":
    main()
