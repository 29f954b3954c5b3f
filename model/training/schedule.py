"""Learning-rate schedule of a stage: linear warm-up, then torch's ReduceLROnPlateau on the validation metric.

ReduceLROnPlateau and its settings in config.yaml follow the original system (SYSU-SAIL, DREAM Challenge 2022).
"""

from typing import Any

import torch

from model.config import Stage


class LearningRate:
    """Learning-rate schedule that sets the rate in the optimizer's groups.

    `rate` is the learning rate after warm-up, which `plateau` lowers. During warm-up, step n uses rate * n / warm_up. A
    checkpoint holds `rate` and the state of `plateau`.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, stage: Stage) -> None:
        self._optimizer = optimizer
        self._warm_up = stage.warm_up
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", **stage.plateau.model_dump())
        self.rate = self.current

    def before_step(self, steps: int) -> None:
        """Set the learning rate of the next step. steps: optimizer steps taken so far."""
        if steps <= self._warm_up:
            self._set(self.rate * min((steps + 1) / max(self._warm_up, 1), 1.0))

    def after_evaluation(self, metric: float) -> None:
        """Lower the learning rate if the metric has not improved for more than `patience` evaluations."""
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

    def _set(self, rate: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = rate
