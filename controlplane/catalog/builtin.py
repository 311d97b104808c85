"""The families that ship with Roundhouse, in `families.json` beside this file."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path

from google.protobuf import json_format

from roundhouse.v1.catalog_pb2 import ModelFamily

FILE = Path(__file__).with_name("families.json")


@functools.cache
def builtin_families() -> Mapping[str, ModelFamily]:
    """Returns them by bare id, in the order of their ids."""
    families = [json_format.ParseDict(each, ModelFamily(is_builtin=True)) for each in json.loads(FILE.read_bytes())]
    return {each.name.removeprefix("families/"): each for each in families}
