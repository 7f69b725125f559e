"""
Small drawings: a line for what was used, a strip for what happened when.

Owns the geometry.  Pure: numbers in, SVG out, without a style of its own; every drawing says in words what it shows.
"""

from __future__ import annotations

from itertools import pairwise

from launcher.observer.page.markup import Markup, escape
from launcher.observer.samples import WINDOW

WIDTH, HEIGHT = 180, 40  # of a line, in its own units
STRIP, BARS = 40, 60  # height of a strip, and into how many pieces it divides its time
_EDGE = 4  # so that a line's breadth is not cut off
_HOLE = 9.0  # seconds: with nothing for longer, nothing is drawn


def line(points: list[tuple[float, float]], now: float, scale: tuple[float, float], words: str) -> Markup:
    """Draw the values of the last two minutes; `scale` is the lowest and the highest that there is room for."""
    low, high = scale
    across, up = (WIDTH - _EDGE) / WINDOW, (HEIGHT - 2 * _EDGE) / (high - low)
    begin, bottom = now - WINDOW, HEIGHT - _EDGE
    places = [f"{int((at - begin) * across)},{int(bottom - (value - low) * up)}" for at, value in points]
    first, drawn = 0, []
    for index in [n for n, ((before, _), (at, _)) in enumerate(pairwise(points), 1) if at - before > _HOLE]:
        drawn.append(places[first:index])
        first = index
    lines = "".join(f'<polyline points="{" ".join(piece)}"/>' for piece in (*drawn, places[first:]) if len(piece) > 1)
    x, _, y = places[-1].partition(",")
    floor = f'<path d="M0 {HEIGHT - 1}H{WIDTH}"/>'
    return _svg(f'{floor}{lines}<circle cx="{x}" cy="{y}" r="4"/>', "line", HEIGHT, WIDTH, words)


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
