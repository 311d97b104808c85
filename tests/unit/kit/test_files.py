"""A directory has one owner, who says which process it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from roundhouse.kit.errors import Usage
from roundhouse.kit.files import own_directory
from tests.support.full_disk import without_room

OWNS_AND_WAITS = """
import sys
from pathlib import Path
from roundhouse.kit.files import own_directory

with own_directory(Path(sys.argv[1]), "test"):
    print("mine", flush=True)
    sys.stdin.read()
"""


def own(directory: Path) -> None:
    with own_directory(directory, "test"):
        pass


def test_who_comes_second_is_told_which_process_is_the_owner(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("123456789012345")  # of an owner before, with a longer name
    command = [sys.executable, "-c", OWNS_AND_WAITS, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"mine\n"
        with pytest.raises(Usage, match=rf"in use by another test \(pid {owner.pid}\): stop it"):
            own(tmp_path)
        owner.communicate()
    with own_directory(tmp_path, "test"):
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_a_directory_without_room_for_the_lock_is_refused_in_one_line(tmp_path: Path) -> None:
    with without_room(), pytest.raises(Usage, match=r"the state directory .* cannot be used: .*: choose another"):
        own(tmp_path)
