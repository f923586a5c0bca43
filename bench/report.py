"""How a benchmark says what it measured."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence


class Emitter:
    """Prints one JSON line a figure.

    Args:
        benchmark: goes into every line.
    """

    def __init__(self, benchmark: str) -> None:
        self._benchmark = benchmark

    def __call__(
        self,
        name: str,
        values: Sequence[float],
        unit: str,
        *,
        target: float | None = None,
        at_least: bool = False,
        **more: object,
    ) -> None:
        """Report a figure.

        Args:
            name: what was measured.
            values: one a repetition.
            unit: such as "s" or "MB".
            target: what the median should be at most, or with `at_least` at least.
            more: whatever belongs beside it.
        """
        median = statistics.median(values)
        line: dict[str, object] = {
            "benchmark": self._benchmark,
            "name": name,
            "unit": unit,
            "n": len(values),
            "min": _rounded(min(values)),
            "median": _rounded(median),
            "max": _rounded(max(values)),
        }
        if target is not None:
            line["target"] = target
            line["met"] = median >= target if at_least else median <= target
        print(json.dumps(line | more), flush=True)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
