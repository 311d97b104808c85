"""Roundhouse, from its step loop on: without the wire. Option `budget`: tokens of a step."""

import torch

from benchmarks.support.child import serve
from benchmarks.support.engine import Engine

if __name__ == "__main__":
    serve(Engine, threads=torch.get_num_threads)
