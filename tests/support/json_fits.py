"""As much of JSON Schema as the tests of grammars use."""

from __future__ import annotations

import re
from typing import Any

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Tells whether a value is what a schema describes."""
    if "anyOf" in schema and not any(fits(value, each) for each in schema["anyOf"]):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "type" in schema:
        is_boolean = isinstance(value, bool) and schema["type"] != "boolean"
        if is_boolean or not isinstance(value, _TYPES[schema["type"]]):
            return False
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        return (
            all(name in value for name in schema.get("required", []))
            and (schema.get("additionalProperties", True) or value.keys() <= properties.keys())
            and all(fits(each, properties.get(name, {})) for name, each in value.items())
        )
    if isinstance(value, list):
        is_sized = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
        return is_sized and all(fits(each, schema.get("items", {})) for each in value)
    if isinstance(value, str):
        is_sized = schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
        return is_sized and re.search(schema.get("pattern", ""), value) is not None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
    return True
