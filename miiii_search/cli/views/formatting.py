"""Text for the values that several views show: durations, ages, sizes, and curves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

BARS = "▁▂▃▄▅▆▇█"

ENDED_STATES = ("complete", "pruned", "fail")

STATE_STYLES = {"complete": "green", "pruned": "yellow", "fail": "red", "running": "cyan", "waiting": "dim"}
"""Rich style of each trial state."""


def format_duration(seconds: float | None) -> str:
    """Return a duration in seconds, minutes, hours or days, whichever reads best; "unknown" for None."""
    if seconds is None:
        return "unknown"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} days"


def format_age(moment: datetime | None) -> str:
    """Return how long ago a moment was, such as "5 min ago"; nothing for None."""
    if moment is None:
        return ""
    return f"{format_duration(max((datetime.now(UTC) - moment).total_seconds(), 0.0))} ago"


def format_megabytes(size: int) -> str:
    """Return a number of bytes in megabytes."""
    return f"{size / 1e6:,.1f} MB"


def sparkline(values: Sequence[float], width: int = 16) -> str:
    """Draw values between 0 and 1 as one line of bars.

    Args:
        values: The values. Values outside of [0, 1] are drawn as 0 or 1.
        width: Maximum number of bars. If there are more values, evenly spaced ones are drawn, the first and the last
            included.

    Returns:
        One character per bar.
    """
    last = len(values) - 1
    shown = values if last < width else [values[round(k * last / (width - 1))] for k in range(width)]
    return "".join(BARS[min(max(int(value * len(BARS)), 0), len(BARS) - 1)] for value in shown)
