"""Train small networks: reproducibly from a seed, resumable at any moment, with averaged weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.weights.atomic import replacing

SAVE_EVERY_S = 120.0
WEIGHT_DECAY = 1e-3
MAX_AVERAGE_MEMORY = 0.998
"""The greatest weight of the old averages in each step; it is smaller in the first thousand steps."""

Modules = Mapping[str, Any]
"""The networks by name (`torch.nn.Module`, whose attributes have no types)."""


def all_tensors(modules: Modules) -> dict[str, Tensor]:
    """Every tensor of all networks, by the name of its network and its own name."""
    return {
        f"{part}.{name}": tensor
        for part, module in modules.items()
        for name, tensor in module.state_dict().items()
    }


def put_back(modules: Modules, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors that `all_tensors` has returned, or some of them, into networks.

    Raises:
        ValueError: a tensor is not one of these networks'.
    """
    unexpected = tensors.keys() - all_tensors(modules).keys()
    if unexpected:
        raise ValueError(f"{min(unexpected)} is of other networks")
    for part, module in modules.items():
        own = {name: tensors.get(f"{part}.{name}", tensor) for name, tensor in module.state_dict().items()}
        module.load_state_dict(own)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a training.

    Attributes:
        number: the number of the step in its recipe; a longer training takes each of them several times.
        seed: the seed of all that is random in the step, another one for each step, so that a run that was
            interrupted goes on as if it had not been.
    """

    number: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The way in which one set of networks is trained.

    Attributes:
        build: makes the untrained networks; torch's global generator is seeded before.
        loss: the loss of one step, a scalar.
        steps: the number of all steps, in a training that is not longer.
        learning_rate: the highest learning rate; a round begins with a rise over its first twentieth, and
            falls to nothing until its end.
        orthogonal: parts of names. Matrices and convolutions whose names have such a part get orthogonal
            updates (Jordan et al. 2024, "Muon"), with which networks learn in half of the steps.
            Modulations of normalisations, and all else, learn by AdamW.
        orthogonal_rate: the highest learning rate of the orthogonal updates.
        restarts: steps at which another round begins.
        cooler: the factor of the learning rates in each round; empty for a factor of 1 in all of them.
        tensors: the tensors of the trained networks that are written to the file.
        put_back: the reverse of ``tensors``.
        metadata: the metadata of the file.
    """

    build: Callable[[], Modules]
    loss: Callable[[Modules, Step], Tensor]
    steps: int
    learning_rate: float
    orthogonal: tuple[str, ...] = ()
    orthogonal_rate: float = 0.0
    restarts: tuple[int, ...] = ()
    cooler: tuple[float, ...] = ()
    tensors: Callable[[Modules], dict[str, Tensor]] = all_tensors
    put_back: Callable[[Modules, Mapping[str, Tensor]], None] = put_back
    metadata: Callable[[Modules], dict[str, str]] = lambda modules: {}


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """The end of a step; ``loss`` is a moving average, ``seconds`` count from the start of this run."""

    step: int
    steps: int
    loss: float
    seconds: float


class Training:
    """A run of a recipe, whose state is kept in a file."""

    def __init__(
        self,
        recipe: Recipe,
        file: Path,
        device: torch.device,
        *,
        seed: int,
        times: int = 1,
        known: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Begin a training, or go on where its file left off.

        Args:
            times: how many times as many steps as the recipe's it takes, in rounds that are longer by that
                factor.
            known: tensors of an earlier training; only the last round is run, beginning with them.
        Raises:
            ValueError: the file is of other networks.
        """
        self._recipe, self._file, self._device, self._times = recipe, file, device, times
        torch.manual_seed(seed)
        self.modules = {name: module.to(device) for name, module in recipe.build().items()}
        self._first = 0
        if known:
            recipe.put_back(self.modules, known)
            self._first = times * max(recipe.restarts, default=0)
        self.step = self._first
        named: dict[str, Tensor] = {
            f"{part}.{name}": parameter
            for part, module in self.modules.items()
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        self._parameters = list(named.values())
        self._matrices = [
            (each, as_matrix(each.detach(), like=each))
            for name, each in named.items()
            if _gets_orthogonal_updates(recipe, name, each)
        ]
        """The parameters that get orthogonal updates, each with a view of it as a matrix."""
        self._optimizers = self._make_optimizers()
        self._averages: list[Tensor] = [parameter.detach().clone() for parameter in self._parameters]
        self._loss = 0.0
        if file.exists():
            self._load()

    @property
    def steps(self) -> int:
        """The number of steps at the end of the training."""
        return self._times * self._recipe.steps

    def run(self, on_step: Callable[[TrainingProgress], None], *, until: int | None = None) -> None:
        """Train to the end, or to step ``until``; the state is saved from time to time and at the end."""
        began = saved = time.monotonic()
        while self.step < min(until or self.steps, self.steps):
            self._advance()
            now = time.monotonic()
            on_step(TrainingProgress(self.step, self.steps, self._loss, now - began))
            if now - saved > SAVE_EVERY_S:
                self.save()
                saved = time.monotonic()
        self.save()

    def use_averages(self) -> Modules:
        """Replace the trained weights by their averages, and return the networks."""
        with torch.no_grad():
            for parameter, average in zip(self._parameters, self._averages, strict=True):
                parameter.copy_(average)
        return {name: module.eval() for name, module in self.modules.items()}

    def save(self) -> None:
        """Write the state aside and rename it, so that a kill leaves the last one."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self._file, self._file.with_suffix(".part")) as aside:
            torch.save(
                {
                    "step": self.step,
                    "loss": self._loss,
                    "modules": {name: module.state_dict() for name, module in self.modules.items()},
                    "averages": self._averages,
                    "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
                },
                aside,
            )

    def _load(self) -> None:
        state = torch.load(self._file, map_location=self._device, weights_only=True)
        try:
            for name, module in self.modules.items():
                module.load_state_dict(state["modules"][name])
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"{self._file} is of other networks; remove it to begin again") from error
        self._averages = state["averages"]
        for optimizer, kept in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.step, self._loss = state["step"], state["loss"]

    def _make_optimizers(self) -> list[torch.optim.Optimizer]:
        """The optimizers; ``highest`` of a group of parameters is its highest learning rate."""
        recipe, turned = self._recipe, [parameter for parameter, _ in self._matrices]
        others = [each for each in self._parameters if not any(each is other for other in turned)]
        adam = {"params": others, "highest": recipe.learning_rate}
        optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW([adam], betas=(0.9, 0.99), weight_decay=WEIGHT_DECAY)
        ]
        if turned:
            muon = {"params": [matrix for _, matrix in self._matrices], "highest": recipe.orthogonal_rate}
            optimizers.append(
                torch.optim.Muon([muon], weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw")
            )
        return optimizers

    def _advance(self) -> None:
        loss = self._recipe.loss(self.modules, Step(self.step // self._times, self.step))
        for parameter in self._parameters:
            parameter.grad = None
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        for parameter, matrix in self._matrices:
            matrix.grad = None if parameter.grad is None else as_matrix(parameter.grad, like=parameter)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["highest"] * self._learning_rate_factor()
            optimizer.step()
        done = self.step - self._first
        memory = min(MAX_AVERAGE_MEMORY, (1 + done) / (10 + done))
        with torch.no_grad():
            torch._foreach_lerp_(self._averages, self._parameters, 1 - memory)
        value = loss.item()
        self._loss = value if done == 0 else 0.98 * self._loss + 0.02 * value
        self.step += 1

    def _learning_rate_factor(self) -> float:
        """The factor of the learning rates: it rises over the first twentieth of a round, and falls as half
        a cosine (Loshchilov and Hutter 2017, "SGDR", with a warm-up)."""
        recipe, step = self._recipe, self.step / self._times
        rounds = list(pairwise((0, *recipe.restarts, recipe.steps)))
        number, (begin, end) = next(each for each in enumerate(rounds) if step < each[1][1])
        done = (step - begin) / (end - begin)
        rate = max(done, 1e-3) / 0.05 if done < 0.05 else 0.5 * (1 + math.cos(math.pi * (done - 0.05) / 0.95))
        return rate * (recipe.cooler[number] if recipe.cooler else 1)


def as_matrix(tensor: Tensor, *, like: Tensor) -> Tensor:
    """A matrix or a convolution as (rows, columns), whose rows are its output channels.

    Args:
        like: the tensor in whose order in memory the columns are, so that the matrix of this one is a view.
    """
    if like.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last):
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.reshape(len(tensor), -1)


def _gets_orthogonal_updates(recipe: Recipe, name: str, parameter: Tensor) -> bool:
    """Whether a parameter gets orthogonal updates."""
    unfit = parameter.ndim < 2 or any(other in name for other in ("norm", "bias"))
    return not unfit and any(part in name for part in recipe.orthogonal)
