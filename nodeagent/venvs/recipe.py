"""Says what decides what an environment holds, and names it by that. Builds nothing."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import site
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from roundhouse.kit.urls import redacted
from roundhouse.v1.deployment_pb2 import VirtualEnv

OWN = ("engines", "roundhouse")  # of which an engine is made; always those of the agent
# Variables of the agent's environment that say where uv finds packages, and which it takes.
_SOURCES = (
    "UV_CONSTRAINT", "UV_DEFAULT_INDEX", "UV_EXCLUDE_NEWER", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_INDEX",
    "UV_INDEX_STRATEGY", "UV_INDEX_URL", "UV_NO_BINARY", "UV_NO_BUILD", "UV_NO_INDEX", "UV_OVERRIDE", "UV_PRERELEASE",
    "UV_RESOLUTION", "UV_TORCH_BACKEND",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides what an environment holds."""

    packages: tuple[str, ...]  # normalized, in order
    constraints: tuple[str, ...]
    index_url: str  # may hold a password
    find_links: tuple[str, ...]
    sources: tuple[tuple[str, str], ...]  # variables of the agent's environment, without passwords
    python: str  # the executable that it is made of
    python_version: str
    platform: str
    own: tuple[tuple[str, str], ...]  # our packages, and their directories
    inherited: tuple[str, ...] | None  # directories whose packages are found behind its own; None: no others are
    inherited_packages: tuple[str, ...] = ()  # what they hold, as `name-version`

    def key(self) -> str:
        """Returns the name of the environment: the same for the same, whatever the password of the index."""
        described = asdict(self) | {"index_url": redacted(self.index_url)}
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:32]


def recipe_of(wanted: VirtualEnv, environ: Mapping[str, str]) -> Recipe:
    """Returns how an environment is made for the Python of this process. Reads directories.

    Raises ValueError for a requirement that is none; the control plane lets none in.
    """
    inherits = wanted.inherit if wanted.HasField("inherit") else True
    directories = inherited_directories(environ) if inherits else None
    return Recipe(
        packages=normalized(wanted.packages),
        constraints=normalized(wanted.constraints),
        index_url=wanted.index_url,
        find_links=tuple(wanted.find_links),
        sources=tuple((each, redacted(environ[each])) for each in _SOURCES if each in environ),
        python=sys.executable,
        python_version=f"{platform.python_implementation()} {platform.python_version()}",
        platform=sysconfig.get_platform(),
        own=tuple((each, _directory(each)) for each in OWN),
        inherited=directories,
        inherited_packages=tuple(sorted(each.stem for each in distributions(directories or ()))),
    )


def normalized(requirements: Iterable[str]) -> tuple[str, ...]:
    """Returns requirements in one spelling and in order, each once; raises ValueError for one that is none."""
    return tuple(sorted({_normalized(each) for each in requirements}))


def inherited_directories(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Returns where this Python finds packages beside its own library, the first to be looked at first.

    Not the working directory, in which a process that was started by `-m` looks, too.
    """
    found = [*environ.get("PYTHONPATH", "").split(os.pathsep), *site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        found.append(site.getusersitepackages())
    there = [str(Path(each).absolute()) for each in found if each and Path(each).is_dir()]
    return tuple(dict.fromkeys(there))


def distributions(directories: Sequence[str]) -> Sequence[Path]:
    """Returns the `*.dist-info` of every package that is found in these, the first of each name."""
    found: dict[str, Path] = {}
    for directory in directories:
        for path in sorted(Path(directory).glob("*.dist-info")):
            found.setdefault(canonicalize_name(path.name.partition("-")[0]), path)
    return list(found.values())


def _normalized(text: str) -> str:
    requirement = Requirement(text)
    requirement.name = canonicalize_name(requirement.name)
    return str(requirement)


def _directory(package: str) -> str:
    spec = find_spec(package)
    assert spec is not None, package
    assert spec.submodule_search_locations, package
    return str(Path(spec.submodule_search_locations[0]).absolute())
