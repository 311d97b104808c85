"""Secrets of tokens: how they are made, and the hashes that are kept of them."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

from roundhouse.kit.errors import Usage
from roundhouse.kit.files import write_atomically

# What begins like this is found by those who look for secrets in repositories and logs.
ACCESS_PREFIX = "rha_"
JOIN_PREFIX = "rhj_"
_RANDOM_BYTES = 32  # so many that one round of a fast hash keeps them


def new_secret(prefix: str) -> str:
    """Returns a new secret, in URL-safe base64 behind its prefix."""
    return prefix + secrets.token_urlsafe(_RANDOM_BYTES)


def hash_of(secret: str) -> bytes:
    """Returns the SHA-256 of a secret."""
    return hashlib.sha256(secret.encode()).digest()


def operator_secret(path: Path) -> str:
    """Returns the secret in a file, which is made, for its owner alone, if it is not there; raises Usage."""
    try:
        secret = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        secret = new_secret(ACCESS_PREFIX)
        try:
            write_atomically(path, f"{secret}\n".encode(), mode=0o600)
        except OSError as error:
            raise Usage(f"the token {path} cannot be written: {error.strerror}: choose another --state-dir") from error
    except (OSError, UnicodeError) as error:
        raise Usage(f"the token {path} cannot be read ({error}): mend it, or delete it to have it made anew") from error
    if not (secret.startswith(ACCESS_PREFIX) and len(secret) >= len(new_secret(ACCESS_PREFIX))):
        raise Usage(f"{path} holds no token: delete it to have it made anew")
    return secret
