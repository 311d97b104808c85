"""What is wrong with the environment that a deployment asks for. Pure; every violation is named at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from roundhouse.kit.fields import FieldCheck
from roundhouse.kit.urls import HIDDEN, redacted
from roundhouse.v1.deployment_pb2 import VirtualEnv

MAX_PACKAGES, MAX_CONSTRAINTS, MAX_FIND_LINKS = 64, 256, 16
MAX_REQUIREMENT, MAX_INDEX_URL, MAX_FIND_LINK = 512, 2048, 1024  # characters
MAX_BYTES = 16 * 1024  # of all texts; see MAX_SPECS_BYTES
OURS = "roundhouse-serve"
_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f-\x9f]*\Z")
_FILES = (".whl", ".zip", ".tar.gz", ".txt")


def check_virtual_env(check: FieldCheck, asked: VirtualEnv, field: str) -> None:
    """Notes what is wrong with an environment that is asked for."""
    texts = [*asked.packages, *asked.constraints, *asked.find_links, asked.index_url]
    size = sum(len(each.encode()) for each in texts)
    if not check.require(size <= MAX_BYTES, field, f"{size} bytes are too many: use at most {MAX_BYTES} in all"):
        return
    _check_requirements(check, asked.packages, f"{field}.packages", MAX_PACKAGES, is_constraint=False)
    _check_requirements(check, asked.constraints, f"{field}.constraints", MAX_CONSTRAINTS, is_constraint=True)
    if asked.index_url:
        wrong = _wrong_url(asked.index_url, MAX_INDEX_URL)
        check.require(not wrong, f"{field}.index_url", wrong)
    if _check_count(check, asked.find_links, f"{field}.find_links", MAX_FIND_LINKS):
        for index, link in enumerate(asked.find_links):
            wrong = _wrong_link(link)
            check.require(not wrong, f"{field}.find_links[{index}]", wrong)


def _check_requirements(
    check: FieldCheck, requirements: Sequence[str], field: str, most: int, *, is_constraint: bool
) -> None:
    if _check_count(check, requirements, field, most):
        for index, text in enumerate(requirements):
            wrong = _wrong_requirement(text, is_constraint=is_constraint)
            check.require(not wrong, f"{field}[{index}]", wrong)


def _check_count(check: FieldCheck, texts: Sequence[str], field: str, most: int) -> bool:
    return check.require(len(texts) <= most, field, f"{len(texts)} are too many: use at most {most}")


def _wrong_requirement(text: str, *, is_constraint: bool) -> str:
    """Returns what is wrong with a requirement, and the cure; empty if nothing is."""
    if wrong := _wrong_text(text, MAX_REQUIREMENT):
        return wrong
    shown = f'"{redacted(text)[:100]}"'
    if text.lstrip().startswith("-"):
        return f"{shown} is an option: use the fields of virtual_env, and requirements here"
    if "://" in text or "@" in text.partition(";")[0]:
        return f"{shown} names a URL: name the package, and where it is in find_links or index_url"
    if "/" in text or "\\" in text or text.endswith(_FILES):
        return f"{shown} is a path: name the package, and its directory in find_links"
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        return f"{shown} is no requirement ({str(error).splitlines()[0]}): write it as transformers==5.16.1"
    if canonicalize_name(requirement.name) == OURS:
        return f"{shown} would replace the engine, which is of its agent's version: leave it out"
    if is_constraint and requirement.extras:
        return f"{shown} has extras, and constrains nothing by them: leave them out"
    return ""


def _wrong_link(text: str) -> str:
    if "://" in text:
        wrong = _wrong_url(text, MAX_FIND_LINK)
        secret = (
            ""
            if wrong or redacted(text) == text
            else "holds a user or a password, which only index_url may: leave it out"
        )
        wrong = wrong or secret
    else:
        wrong = _wrong_text(text, MAX_FIND_LINK)
        if not wrong and not PurePosixPath(text).is_absolute():
            wrong = f'"{text[:100]}" is no absolute path: name a directory on the nodes, or a URL'
    return wrong or (f'"{redacted(text)[:100]}" holds a comma: name a path or a URL without one' if "," in text else "")


def _wrong_url(text: str, most: int) -> str:
    if wrong := _wrong_text(text, most):
        return wrong
    if not _is_address(text):
        return f'"{redacted(text)[:100]}" is no address: use one that begins with http:// or https://'
    if f"://{HIDDEN}@" in text:
        return f'"{text[:100]}" was read back, without the user and the password: give it as it was'
    return ""


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and " " not in text
    except ValueError:  # such as a port that is no number
        return False


def _wrong_text(text: str, most: int) -> str:
    if not text.strip():
        return "is empty: leave it out"
    if len(text) > most:
        return f"has {len(text)} characters: use at most {most}"
    if not _PRINTABLE.match(text):
        return "holds a line break or another control character: leave it out"
    return ""
