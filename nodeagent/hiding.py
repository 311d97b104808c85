"""Takes the secrets of a deployment out of what its engine wrote, before anybody else sees it."""

from __future__ import annotations

from roundhouse.internal.v1.engine_spec_pb2 import EngineSpec

_SHORTEST_SECRET = 4  # as the control plane takes them
_SHOWN = "[secret]"


class Hiding:
    """The secrets of one specification: whole values, and their single lines, since an engine may write them so."""

    def __init__(self, spec: EngineSpec) -> None:
        values = {each.value for each in spec.env if each.name in spec.secret_names}
        parts = {part for value in values for part in (value, *value.splitlines()) if len(part) >= _SHORTEST_SECRET}
        self._parts = sorted(parts, key=len, reverse=True)  # one may be part of another

    def __bool__(self) -> bool:
        return bool(self._parts)

    def hide(self, text: str, *, mark: str = "") -> str:
        """Returns a text without them, nor a part of one at its beginning or end, where it may have been cut.

        mark: stands behind a text that is known to have been cut off.
        """
        text = text.removesuffix(mark)
        for part in self._parts:
            text = text.replace(part, _SHOWN)
        for part in self._parts:
            for length in range(len(part) - 1, _SHORTEST_SECRET - 1, -1):
                if text.startswith(part[-length:]):
                    text = _SHOWN + text[length:]
                if text.endswith(part[:length]):
                    text = text[:-length] + _SHOWN
        return text + mark
