"""All that a training needs to go on after a finished epoch, in and out of a checkpoint."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

from clipcifar.core.errors import DataError
from clipcifar.methods.trained.training import Epoch, best
from clipcifar.studies.finetune.train.checkpoint import Checkpoints, Parts

_MOMENTS = {"means": "exp_avg", "squares": "exp_avg_sq", "steps": "step"}  # our parts, AdamW's names


class TrainingState:
    """The curve so far and the best parameters, the model and its optimiser brought to where they were.

    Args:
        model: parameters that are trained require gradients; others are not kept.
        optimiser: new, of those parameters.
        scaler: of the loss; its scale is kept where it is enabled.
        checkpoints: read at once, written by `finish`.
        start: epoch 0, the model as it is, where there is no checkpoint yet.
    """

    def __init__(
        self,
        model: nn.Module,
        optimiser: torch.optim.AdamW,
        scaler: GradScaler,
        checkpoints: Checkpoints,
        start: Epoch,
    ) -> None:
        self._trained = {
            name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
        }
        self._optimiser, self._scaler, self._checkpoints = optimiser, scaler, checkpoints
        self.curve = [start]
        parts = checkpoints.read()
        self._best_is_kept = parts is not None
        self._best = self._copied() if parts is None else parts["best"]
        if parts is not None:
            self._restore(parts)

    def finish(self, epoch: Epoch) -> None:
        """Note a finished epoch and keep all of it."""
        self.curve.append(epoch)
        if best(self.curve) is epoch:
            self._best, self._best_is_kept = self._copied(), False
        numbers = [[point.train_loss, point.val_loss, point.val_accuracy] for point in self.curve]
        progress = {"curve": torch.tensor(numbers, dtype=torch.float64), "scale": self._scale()}
        parts: Parts = {"progress": progress, "parameters": dict(self._trained)}
        for part, key in _MOMENTS.items():
            held = self._optimiser.state
            parts[part] = {
                name: held[parameter][key] for name, parameter in self._trained.items() if parameter in held
            }
        if not self._best_is_kept:
            parts["best"] = self._best
        self._checkpoints.write(epoch.epoch, parts)
        self._best_is_kept = True

    def restore_best(self) -> None:
        """Set the model to the parameters of the best epoch."""
        self._load(self._best)

    def _copied(self) -> dict[str, torch.Tensor]:
        return {name: parameter.detach().cpu().clone() for name, parameter in self._trained.items()}

    @torch.no_grad()
    def _load(self, parameters: Mapping[str, torch.Tensor]) -> None:
        if set(parameters) != set(self._trained):
            folder = str(self._checkpoints.folder)
            raise DataError(
                "the checkpoint is of other parameters", where=folder, fix=f"rm -r {shlex.quote(folder)}"
            )
        for name, parameter in self._trained.items():
            parameter.copy_(parameters[name])

    @torch.no_grad()
    def _restore(self, parts: Parts) -> None:
        self._load(parts["parameters"])
        self.curve = [Epoch(i, *point) for i, point in enumerate(parts["progress"]["curve"].tolist())]
        for name in parts["means"]:
            parameter = self._trained[name]
            kept = {key: parts[part][name].to(parameter.device) for part, key in _MOMENTS.items()}
            for key in ("exp_avg", "exp_avg_sq"):  # in the parameter's layout: the fused step counts bytes
                kept[key] = torch.empty_like(parameter).copy_(kept[key])
            self._optimiser.state[parameter] = kept
        if self._scaler.is_enabled():
            scale, tracker = parts["progress"]["scale"].tolist()
            state = {**self._scaler.state_dict(), "scale": scale, "_growth_tracker": int(tracker)}
            self._scaler.load_state_dict(state)

    def _scale(self) -> torch.Tensor:
        """(2,) float64: the loss scale and the steps since it last changed."""
        state = self._scaler.state_dict()
        return torch.tensor([state.get("scale", 1.0), state.get("_growth_tracker", 0)], dtype=torch.float64)
