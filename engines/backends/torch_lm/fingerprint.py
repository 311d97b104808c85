"""Digests of all that decides an engine's output: those with equal ones give equal tokens; and of its tokenizer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import metadata
from pathlib import Path

import torch

from engines.loading import Count

_NUMERICS = "3"  # raised by every change of ours after which a token may come out differently
_READING = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_DESCRIBING = ("config.json", "generation_config.json", *_READING)
_CHUNK_BYTES = 1 << 20
_THREADS = 8  # hashing leaves the interpreter's lock, and one thread hashes slower than a disk reads


def fingerprint(
    directory: Path,
    *,
    dtype: str,
    device: torch.device,
    numerics: str = "",
    quantization: str = "",
    template_variables: Mapping[str, object] | None = None,
    chat_template: str = "",
    count: Count | None = None,
) -> str:
    """Returns a SHA-256 in hexadecimal, over the files of the model and how this machine computes.

    numerics: which of our ways to compute was chosen, in any words. template_variables: what the chat template is told.
    chat_template: in place of that of the files, if any. count: counts what is hashed.
    """
    paths = sorted(directory.glob("*.safetensors")) + [directory / name for name in _DESCRIBING]
    present = [path for path in paths if path.is_file()]
    counted = count or Count()
    counted.expect(sum(path.stat().st_size for path in present))
    with ThreadPoolExecutor(_THREADS) as threads:
        digests = list(threads.map(partial(_digest, count=counted), present))
    lines = [f"{path.name} {digest}" for path, digest in zip(present, digests, strict=True)]
    lines += [f"dtype {dtype}", f"quantization {quantization}", f"computed by {numerics}"]
    lines += [f"numerics {_NUMERICS} torch {torch.__version__}", f"device {_device_class(device)}"]
    return _digest_of([*lines, *_reading(template_variables or {}, chat_template)])


def tokenizer_fingerprint(
    directory: Path, *, template_variables: Mapping[str, object] | None = None, chat_template: str = ""
) -> str:
    """Returns a SHA-256 in hexadecimal, over what turns text into ids and back. Arguments as of `fingerprint`."""
    present = [path for name in _READING if (path := directory / name).is_file()]
    lines = [f"{path.name} {_digest(path, Count())}" for path in present]
    return _digest_of([*lines, *_reading(template_variables or {}, chat_template)])


def _reading(template_variables: Mapping[str, object], chat_template: str) -> Sequence[str]:
    """Returns what beside its files decides how a model's text is read."""
    lines = [f"{name} {metadata.version(name)}" for name in ("tokenizers", "transformers")]
    lines += [f"template {name} {value}" for name, value in sorted(template_variables.items())]
    lines += [f"chat_template {hashlib.sha256(chat_template.encode()).hexdigest()}"] if chat_template else []
    return lines


def _digest_of(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _digest(path: Path, count: Count) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            count.add(len(chunk))
    return digest.hexdigest()


def _device_class(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu {torch.backends.cpu.get_cpu_capability()}"
