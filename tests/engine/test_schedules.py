"""Schedules: each equals torch's own scheduler, stepped as the published loop does."""

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, OneCycleLR, PolynomialLR

from rwkvlib.engine.schedules import SCHEDULES, make_schedule

EPOCHS, PER_EPOCH = 8, 7
TOTAL = EPOCHS * PER_EPOCH


def rates(make_scheduler, every):
    """The rates of all iterations with a scheduler that is stepped after every `every` of them."""
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler, found = make_scheduler(optimiser), []
    for i in range(TOTAL):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        if (i + 1) % every == 0:
            scheduler.step()
    return found


EXPECTED = {
    "constant": (lambda o: LambdaLR(o, lambda step: 1.0), 1),
    "cosine": (lambda o: CosineAnnealingLR(o, TOTAL), 1),
    "one_cycle": (lambda o: OneCycleLR(o, 0.1, total_steps=TOTAL + 1), 1),
    "synapse_as_written": (lambda o: CosineAnnealingLR(o, EPOCHS), PER_EPOCH),
    "synapse_as_executed": (lambda o: PolynomialLR(o, TOTAL, power=0.9), 1),
    "acdc_as_written": (lambda o: CosineAnnealingLR(o, 3 * EPOCHS // 4), PER_EPOCH),
    "acdc_as_executed": (lambda o: CosineAnnealingLR(o, 3 * EPOCHS // 4), 1),
    "acdc_before_october_2025_as_written": (lambda o: CosineAnnealingLR(o, EPOCHS), PER_EPOCH),
    "acdc_before_october_2025_as_executed": (lambda o: CosineAnnealingLR(o, EPOCHS), 1),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_equals_torchs(name):
    make, every = EXPECTED[name]
    total = TOTAL + 1 if name == "one_cycle" else TOTAL  # torch's refuses the step after its last one
    factor = make_schedule(name, total, PER_EPOCH, EPOCHS)
    assert rates(lambda o: LambdaLR(o, factor), 1) == pytest.approx(rates(make, every), abs=1e-9)


def test_what_is_executed_is_not_what_is_written():
    """The poly rule overwrites the cosine; the cosine per iteration swings, and is back at its top within the run."""
    written, executed = (make_schedule(f"synapse_as_{x}", TOTAL, PER_EPOCH) for x in ("written", "executed"))

    class Loop:  # the published one: the scheduler is stepped, and then the rate is set by hand
        def __init__(self, optimiser):
            self.optimiser, self.it = optimiser, 0
            self.scheduler = LambdaLR(optimiser, written)

        def step(self):
            self.scheduler.step()
            self.it += 1
            self.optimiser.param_groups[0]["lr"] = 0.1 * (1 - self.it / TOTAL) ** 0.9

    assert rates(Loop, 1) == pytest.approx([0.1 * executed(i) for i in range(TOTAL)])
    assert max(abs(written(i) - executed(i)) for i in range(TOTAL)) > 0.1
    acdc = make_schedule("acdc_as_executed", TOTAL, PER_EPOCH)
    assert [acdc(i) for i in (0, 6, 12, 18)] == pytest.approx([1, 0, 1, 0])
    assert make_schedule("acdc_as_written", TOTAL, PER_EPOCH)(TOTAL) == pytest.approx(0.25)


def test_the_recipes_epochs_count_where_the_run_is_shorter():
    assert make_schedule("acdc_as_executed", 10, 5, epochs=8)(6) == pytest.approx(0)


def test_a_schedule_names_bad_input():
    with pytest.raises(ValueError, match=r"schedule: expected one of constant, cosine, .* got 'poly'"):
        make_schedule("poly", 10, 5)
    with pytest.raises(ValueError, match="steps_per_epoch: expected at least 1, got 0"):
        make_schedule("cosine", 10, 0, 2)
    with pytest.raises(ValueError, match="total_steps: expected at least 1, got 0"):
        make_schedule("cosine", 0, 5, 2)
    with pytest.raises(ValueError, match="epochs: expected more than 0, got 0"):
        make_schedule("cosine", 10, 5, 0)
    assert make_schedule("cosine", 2, 5)(2) == pytest.approx(0), "a run may be shorter than an epoch"
