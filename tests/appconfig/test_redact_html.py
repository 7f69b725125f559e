"""A value in a page or a document: HTML and XML libraries differ in what they escape, and how."""

from __future__ import annotations

import html
import xml.sax.saxutils

import pytest

from launcher.appconfig.redact import Redactor

HARD = ["a<b>c&d\"e'f", "&amp;lt;&", "''''''", "plain-old-password", "<<<>>>", "ü&😀<x>%41"]


def markupsafe(text: str) -> str:
    """Escape as Jinja's library does."""
    return (
        text.replace("&", "&amp;").replace(">", "&gt;").replace("<", "&lt;").replace("'", "&#39;").replace('"', "&#34;")
    )


@pytest.mark.parametrize(
    "escape", [html.escape, lambda text: html.escape(text, quote=False), xml.sax.saxutils.escape, markupsafe]
)
@pytest.mark.parametrize("value", HARD)
def test_an_escaped_value_is_hidden_whole(value: str, escape: object) -> None:
    """And nothing of it stays behind the mask, such as the end of an entity."""
    assert Redactor({"TOKEN": value}).mask(f"<p>{escape(value)};</p>") == "<p><secret TOKEN>;</p>"  # type: ignore[operator]


def test_a_page_without_it_is_untouched() -> None:
    """Entities are no secrets."""
    page = "<p>&amp;&lt;&#39; a&quot;b</p>"

    assert Redactor({"TOKEN": "a<b>c&d\"e'f"}).mask(page) == page
