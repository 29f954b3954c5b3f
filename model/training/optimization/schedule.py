"""Learning-rate schedules of a stage. The rate of a step is a function of its number, except for the plateau.

plateau   linear warm-up, then torch's ReduceLROnPlateau on the validation metric, as in the original system
          (SYSU-SAIL, DREAM Challenge 2022)
cosine    linear warm-up, then half a cosine down to 0 at the last step
onecycle  torch's OneCycleLR: half a cosine up from 1/25 of the rate over a tenth of the steps, then one down to 4e-6
          of it; Adam's first beta moves the other way, between 0.95 and 0.85 (Smith and Topin 2018)
"""

import math
from typing import Any

import torch

from model.config import Stage

RISE = 0.1
"""Fraction of the steps in which the rate of onecycle rises."""
FIRST, LAST = 1 / 25, 1 / 25e4
"""First and last rate of onecycle, as fractions of the highest."""
BETAS = 0.85, 0.95
"""Lowest and highest first beta of Adam in onecycle."""


class LearningRate:
    """Learning-rate schedule that sets the rate in the optimizer's groups.

    `rate` is the highest learning rate, which `plateau` lowers. During warm-up, step n uses rate * n / warm_up. A
    checkpoint holds `rate` and the state of `plateau`.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, stage: Stage) -> None:
        self._optimizer = optimizer
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._relative = [rate / rates[0] for rate in rates]
        self._schedule = stage.schedule
        self._warm_up = stage.warm_up
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", **stage.plateau.model_dump())
        self.rate = self.current

    def before_step(self, steps: int, last_step: int) -> None:
        """Set the learning rate of the next step.

        steps: optimizer steps taken so far; last_step: steps of the whole stage, which the plateau does not use.
        """
        if self._schedule == "onecycle":
            share, beta = _one_cycle(steps, last_step)
            self._set(self.rate * share, beta)
        elif self._schedule == "cosine" and steps >= self._warm_up:
            self._set(self.rate * _move(1.0, 0.0, (steps - self._warm_up) / (last_step - self._warm_up)))
        elif steps <= self._warm_up:
            self._set(self.rate * min((steps + 1) / max(self._warm_up, 1), 1.0))

    def after_evaluation(self, metric: float) -> None:
        """Lower the rate of a plateau if the metric has not improved for more than `patience` evaluations."""
        if self._schedule != "plateau":
            return
        self._set(self.rate)  # during warm-up, too, the rate after warm-up is lowered
        self.plateau.step(metric)
        self.rate = self.current

    def load(self, rate: float, plateau_state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self.plateau.load_state_dict(plateau_state)
        self.rate = rate
        self._set(rate)

    @property
    def current(self) -> float:
        """Return the learning rate that is set now: of the last step, or after before_step of the next one."""
        return float(self._optimizer.param_groups[0]["lr"])

    def _set(self, rate: float, beta: float | None = None) -> None:
        """Set the rate of the first group and those in proportion to it, and Adam's first beta where there is one."""
        for group, relative in zip(self._optimizer.param_groups, self._relative, strict=True):
            group["lr"] = rate * relative
            if beta is not None and "betas" in group:
                group["betas"] = (beta, group["betas"][1])


def _one_cycle(steps: int, last_step: int) -> tuple[float, float]:
    """Compute the rate of a step, as a fraction of the highest, and Adam's first beta."""
    top = RISE * last_step - 1
    low, high = BETAS
    if steps < top:
        return _move(FIRST, 1.0, steps / top), _move(high, low, steps / top)
    done = min((steps - top) / max(last_step - 1 - top, 1), 1.0)
    return _move(1.0, LAST, done), _move(low, high, done)


def _move(start: float, end: float, done: float) -> float:
    """Move from start to end along half a cosine. done: fraction of the way, 0 to 1."""
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2
