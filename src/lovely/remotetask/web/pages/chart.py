# SPDX-License-Identifier: ZPL-2.1
"""The chart of the jobs that were done and failed over the last hour, as numbers for an SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

#: The units in which the bars are drawn; the page stretches them.
WIDTH = 600
HEIGHT = 100

_GAP = 2.0

#: Few are seen too.
_LEAST = 2.0


def chart(done: Sequence[int], failed: Sequence[int]) -> dict[str, Any]:
    """Return what the template draws.

    :param done: how many jobs were completed in each part of the time, the earliest first.
    :param failed: how many became errors; they stand on top.
    """
    highest = max((d + f for d, f in zip(done, failed, strict=True)), default=0)
    top = _round_up(highest)
    width = WIDTH / max(1, len(done))
    bars = []
    for number, (good, bad) in enumerate(zip(done, failed, strict=True)):
        base = float(HEIGHT)
        for kind, count in (("done", good), ("failed", bad)):
            if count:
                height = max(_LEAST, count / top * HEIGHT)
                base -= height
                bars.append(
                    {
                        "kind": kind,
                        "x": f"{number * width + _GAP / 2:.1f}",
                        "y": f"{base:.1f}",
                        "width": f"{width - _GAP:.1f}",
                        "height": f"{height:.1f}",
                    }
                )
    return {"bars": bars, "top": top if highest else None, "width": WIDTH, "height": HEIGHT}


def _round_up(number: int) -> int:
    """Return the next number that reads well: 1, 2, 5, 10, 20, 50 ..."""
    if number <= 1:
        return 1
    power: int = 10 ** int(math.log10(number))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= number)
