"""Reading lines of `key=value` as a program would."""

from __future__ import annotations

import json


def parsed(line: str) -> dict[str, str]:
    """Read one line: bare or JSON-quoted values, one space between pairs, no key twice."""
    pairs: dict[str, str] = {}
    while line:
        key, _, line = line.partition("=")
        if line.startswith('"'):
            text, end = json.JSONDecoder().raw_decode(line)
        else:
            end = line.index(" ") if " " in line else len(line)
            text = line[:end]
        assert line[end : end + 1] in (" ", "")
        assert key not in pairs
        assert '"' not in key
        assert " " not in key
        pairs[key] = text
        line = line[end + 1 :]
    return pairs
