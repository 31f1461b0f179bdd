"""Schedules by name, as factors of the peak rate."""

import math
from collections.abc import Callable


def make_schedule(name: str, steps: int, steps_per_epoch: int) -> Callable[[float], float]:
    """The factor of the rate as a function of the step, of `steps` in all. Raises ValueError: unknown name."""

    def one_cycle(step: float) -> float:
        done = step / steps
        if done < 0.3:
            return 0.04 + 0.96 * (1 - math.cos(math.pi * done / 0.3)) / 2
        return 0.5 * (1 + math.cos(math.pi * (done - 0.3) / 0.7))

    known = {
        "constant": lambda step: 1.0,
        "one_cycle": one_cycle,
        "poly": lambda step: max(0.0, 1 - step / steps) ** 0.9,
        "cosine": lambda step: 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))),
        "acdc": lambda step: 0.5 * (1 + math.cos(math.pi * step / (0.75 * steps / steps_per_epoch))),
    }
    if name not in known:
        raise ValueError(f"schedule: expected one of {', '.join(known)}, got {name!r}")
    return known[name]
