"""Learning-rate schedules by name, the published ones both as they are written and as they are executed.

Each is a function of (step, total_steps, steps_per_epoch, epochs), step 0 being the first, that gives the factor of
the base rate; `make_schedule` fixes all but the step, which may be fractional.
"""

import math
from collections.abc import Callable


def _cosine(time: float, t_max: float) -> float:
    """torch's CosineAnnealingLR with eta_min 0: beyond t_max it rises again, with the period 2 t_max."""
    return 0.5 * (1 + math.cos(math.pi * time / t_max))


def constant(step, total_steps, steps_per_epoch, epochs) -> float:
    """The base rate throughout."""
    return 1.0


def cosine(step, total_steps, steps_per_epoch, epochs) -> float:
    """From 1 to 0 in half a cosine over all steps."""
    return _cosine(min(step, total_steps), total_steps)


def one_cycle(step, total_steps, steps_per_epoch, epochs) -> float:
    """torch's OneCycleLR with its defaults: from 1/25 up to 1 in the first 30 % of the steps, then down to 4e-6."""
    top, end = 0.3 * total_steps - 1, total_steps - 1
    if step <= top:
        return 1 + (1 / 25 - 1) * _cosine(step, top)
    return 4e-6 + (1 - 4e-6) * _cosine(min(step, end) - top, end - top)


def synapse_as_written(step, total_steps, steps_per_epoch, epochs) -> float:
    """A cosine over the epochs, stepped after each: what the Synapse recipe sets up, and then overwrites."""
    return _cosine(step // steps_per_epoch, epochs)


def synapse_as_executed(step, total_steps, steps_per_epoch, epochs) -> float:
    """(1 - step / total)^0.9: TransUNet's poly rule, written into the optimiser in every iteration, so that nothing of
    the cosine is left."""
    return max(0.0, 1 - step / total_steps) ** 0.9


def acdc_as_written(step, total_steps, steps_per_epoch, epochs) -> float:
    """A cosine with T_max = 3/4 of the epochs, stepped after each: 0 after three quarters, and then up to 1/4."""
    return _cosine(step // steps_per_epoch, 0.75 * epochs)


def acdc_as_executed(step, total_steps, steps_per_epoch, epochs) -> float:
    """The same cosine stepped after each *iteration*: it swings between 1 and 0 with a period of 1.5 x `epochs`
    iterations."""
    return _cosine(step, 0.75 * epochs)


def acdc_before_october_2025_as_written(step, total_steps, steps_per_epoch, epochs) -> float:
    """A cosine with T_max = the epochs, stepped after each: from 1 to 0."""
    return _cosine(step // steps_per_epoch, epochs)


def acdc_before_october_2025_as_executed(step, total_steps, steps_per_epoch, epochs) -> float:
    """The same cosine stepped after each iteration: a period of 2 x `epochs` iterations."""
    return _cosine(step, epochs)


SCHEDULES = {
    f.__name__: f
    for f in (
        constant,
        cosine,
        one_cycle,
        synapse_as_written,
        synapse_as_executed,
        acdc_as_written,
        acdc_as_executed,
        acdc_before_october_2025_as_written,
        acdc_before_october_2025_as_executed,
    )
}


def make_schedule(
    name: str, total_steps: int, steps_per_epoch: int, epochs: float | None = None
) -> Callable[[float], float]:
    """The factor of the base rate as a function of the step: what the trainer multiplies the rate by.

    Args:
        epochs: of the recipe; total_steps / steps_per_epoch where it is None. They differ where a number of iterations
            ends the run first.

    Raises: ValueError for an unknown name, for steps below 1, and for epochs of 0 or less.
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule: expected one of {', '.join(SCHEDULES)}, got {name!r}")
    for argument, value in (("total_steps", total_steps), ("steps_per_epoch", steps_per_epoch)):
        if value < 1:
            raise ValueError(f"{argument}: expected at least 1, got {value}")
    length = total_steps / steps_per_epoch if epochs is None else epochs
    if not length > 0:
        raise ValueError(f"epochs: expected more than 0, got {epochs}")
    return lambda step: SCHEDULES[name](step, total_steps, steps_per_epoch, length)
