"""
Small drawings: a line for what was used, a strip for what happened when.

Owns the geometry.  Pure: numbers in, SVG out, without a style of its own; every drawing says in words what it shows.
"""

from __future__ import annotations

from launcher.observer.page.markup import Markup, escape
from launcher.observer.samples import WINDOW

WIDTH, HEIGHT = 90, 20  # of a line, in its own units
STRIP, BARS = 40, 60  # height of a strip, and into how many pieces it divides its time
_EDGE = 2  # so that a line's breadth is not cut off
_HOLE = 7.0  # seconds: with nothing for longer, nothing is drawn


def line(points: list[tuple[float, float]], now: float, scale: tuple[float, float], words: str) -> Markup:
    """Draw the values of the last two minutes; `scale` is the lowest and the highest that there is room for."""
    low, high = scale
    pieces: list[list[str]] = []
    before = float("-inf")
    height = HEIGHT - 2 * _EDGE
    for at, value in points:
        if at - before > _HOLE:
            pieces.append([])
        before = at
        x = round((WIDTH - _EDGE) * max(0.0, 1 - (now - at) / WINDOW))
        y = round(_EDGE + height * (1 - (value - low) / (high - low)), 1) if high > low else HEIGHT // 2
        pieces[-1].append(f"{x},{y:g}")
    drawn = "".join(f'<polyline points="{" ".join(piece)}"/>' for piece in pieces if len(piece) > 1)
    dot = ""
    if pieces:
        left, _, top = pieces[-1][-1].partition(",")
        dot = f'<circle cx="{left}" cy="{top}" r="2"/>'
    floor = f'<path d="M0 {HEIGHT - 0.5}H{WIDTH}"/>'
    return _svg(f"{floor}{drawn}{dot}", "line", HEIGHT, WIDTH, words)


def strip(times: list[float], now: float, window: float, words: str) -> Markup:
    """Draw how many things happened when; the highest bar is the busiest piece of time."""
    counts = [0] * BARS
    for at in times:
        place = int((1 - (now - at) / window) * BARS)
        if 0 <= place <= BARS:
            counts[min(place, BARS - 1)] += 1
    most = max(counts)
    bars = "".join(
        f'<rect x="{place * 10 + 1}" y="{STRIP - tall:g}" width="8" height="{tall:g}"/>'
        for place, tall in enumerate(round((STRIP - 2) * number / most, 1) if most else 0 for number in counts)
        if tall
    )
    floor = f'<path d="M0 {STRIP - 0.5}H{BARS * 10}"/>'
    return _svg(f"{floor}{bars}", "strip", STRIP, BARS * 10, words)


def _svg(inner: str, kind: str, height: int, width: int, words: str) -> Markup:
    shape = ' preserveAspectRatio="none"' if kind == "strip" else ""
    said = escape(words)
    return Markup(
        f'<svg class="{kind}" viewBox="0 0 {width} {height}"{shape} role="img" aria-label="{said}">'
        f"<title>{said}</title>{inner}</svg>"
    )
