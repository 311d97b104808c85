"""A digest of all that decides an engine's output. Engines with equal ones give equal tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import torch

_NUMERICS = "3"  # raised by every change of ours after which a token may come out differently
_DESCRIBING = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
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
) -> str:
    """Returns a SHA-256 in hexadecimal, over the files of the model and how this machine computes.

    numerics: which of our ways to compute was chosen, in any words. template_variables: what the chat template is told.
    chat_template: in place of that of the files, if any.
    """
    paths = sorted(directory.glob("*.safetensors")) + [directory / name for name in _DESCRIBING]
    present = [path for path in paths if path.is_file()]
    with ThreadPoolExecutor(_THREADS) as threads:
        digests = list(threads.map(_digest, present))
    lines = [f"{path.name} {digest}" for path, digest in zip(present, digests, strict=True)]
    lines += [f"dtype {dtype}", f"quantization {quantization}", f"computed by {numerics}"]
    lines += [f"numerics {_NUMERICS} torch {torch.__version__}", f"device {_device_class(device)}"]
    lines += [f"{name} {metadata.version(name)}" for name in ("tokenizers", "transformers")]
    lines += [f"template {name} {value}" for name, value in sorted((template_variables or {}).items())]
    lines += [f"chat_template {hashlib.sha256(chat_template.encode()).hexdigest()}"] if chat_template else []
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _device_class(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu {torch.backends.cpu.get_cpu_capability()}"
