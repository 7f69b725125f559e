"""A value that must not be seen, and the search for it."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

CANARY = 'hunter2/@ "ü%\\'


def forms(value: str) -> set[str]:
    """Return what a value may look like."""
    data = value.encode()
    return {
        value,
        repr(value)[1:-1],
        quote(value),
        quote(value, safe=""),
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        base64.b64encode(data).decode(),
        base64.urlsafe_b64encode(data).decode(),
    }


def leaks(text: str, value: str = CANARY) -> set[str]:
    """Return the forms of a value that stand in a text."""
    return {form for form in forms(value) if form in text}
