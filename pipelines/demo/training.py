# pyright: basic, reportPrivateImportUsage=false
"""Train small networks: the same from the same seed, resumable at any moment, with averaged weights."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SAVE_EVERY_S = 120.0
LONGEST_MEMORY = 0.998
"""Of the averaged weights, per step; shorter in the first thousand steps."""

Modules = Mapping[str, Any]
"""Networks by name (`torch.nn.Module`, whose attributes have no types)."""


def all_tensors(modules: Modules) -> dict[str, Tensor]:
    """Every tensor of all networks, named by network and place."""
    return {
        f"{part}.{name}": tensor
        for part, module in modules.items()
        for name, tensor in module.state_dict().items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How one set of networks is trained.

    Attributes:
        build: makes the networks, untrained; torch's global generator is seeded before.
        loss: of one step, a scalar. All that is random comes from the step's number, so that a run that was
            interrupted goes on as if it had not been.
        steps: all of them.
        learning_rate: the highest. It rises for a twentieth of a round and falls to nothing until its end.
        restarts: steps at which another round begins.
        tensors: what is to be kept of the trained networks.
        said: what is to be written beside it.
    """

    build: Callable[[], Modules]
    loss: Callable[[Modules, int], Tensor]
    steps: int
    learning_rate: float
    restarts: tuple[int, ...] = ()
    tensors: Callable[[Modules], dict[str, Tensor]] = all_tensors
    said: Callable[[Modules], dict[str, str]] = lambda modules: {}


@dataclass(frozen=True, slots=True)
class Progress:
    """One step's end. ``loss`` is a moving average, ``seconds`` are since this run began."""

    step: int
    steps: int
    loss: float
    seconds: float


class Training:
    """A run of a recipe, kept in a file."""

    def __init__(self, recipe: Recipe, file: Path, device: torch.device, *, seed: int) -> None:
        """Goes on where ``file`` left off, if it is there.

        Raises:
            ValueError: the file is of other networks.
        """
        self._recipe, self._file, self._device = recipe, file, device
        torch.manual_seed(seed)
        self.modules = {name: module.to(device) for name, module in recipe.build().items()}
        self._parameters: list[Tensor] = [
            parameter
            for module in self.modules.values()
            for parameter in module.parameters()
            if parameter.requires_grad
        ]
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=1e-3
        )
        self._averages: list[Tensor] = [parameter.detach().clone() for parameter in self._parameters]
        self._loss = 0.0
        self.step = 0
        if file.exists():
            self._load()

    def run(self, on_step: Callable[[Progress], None], *, until: int | None = None) -> None:
        """Train to the end, or to step ``until``; the state is saved from time to time and at the end."""
        began = saved = time.monotonic()
        while self.step < min(until or self._recipe.steps, self._recipe.steps):
            self._advance()
            now = time.monotonic()
            on_step(Progress(self.step, self._recipe.steps, self._loss, now - began))
            if now - saved > SAVE_EVERY_S:
                self.save()
                saved = time.monotonic()
        self.save()

    def averaged(self) -> Modules:
        """The networks with their averaged weights, which takes the place of the trained ones."""
        with torch.no_grad():
            for parameter, average in zip(self._parameters, self._averages, strict=True):
                parameter.copy_(average)
        return {name: module.eval() for name, module in self.modules.items()}

    def save(self) -> None:
        """Write the state aside and rename it, so that a kill leaves the last one."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        aside = self._file.with_suffix(".part")
        torch.save(
            {
                "step": self.step,
                "loss": self._loss,
                "modules": {name: module.state_dict() for name, module in self.modules.items()},
                "averages": self._averages,
                "optimizer": self._optimizer.state_dict(),
            },
            aside,
        )
        os.replace(aside, self._file)

    def _load(self) -> None:
        state = torch.load(self._file, map_location=self._device, weights_only=True)
        try:
            for name, module in self.modules.items():
                module.load_state_dict(state["modules"][name])
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"{self._file} is of other networks; remove it to begin again") from error
        self._averages = state["averages"]
        self._optimizer.load_state_dict(state["optimizer"])
        self.step, self._loss = state["step"], state["loss"]

    def _advance(self) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = self._recipe.learning_rate * self._warmed_and_cooled()
        loss = self._recipe.loss(self.modules, self.step)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        memory = min(LONGEST_MEMORY, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self._averages, self._parameters, 1 - memory)
        value = loss.item()
        self._loss = value if self.step == 0 else 0.98 * self._loss + 0.02 * value
        self.step += 1

    def _warmed_and_cooled(self) -> float:
        """Linear up for the first twentieth of a round, then half a cosine down to nothing (Loshchilov and
        Hutter 2017, "SGDR", with a warm-up)."""
        ends = (0, *self._recipe.restarts, self._recipe.steps)
        begin, end = next(pair for pair in pairwise(ends) if self.step < pair[1])
        done = (self.step - begin) / (end - begin)
        if done < 0.05:
            return max(done, 1e-3) / 0.05
        return 0.5 * (1 + math.cos(math.pi * (done - 0.05) / 0.95))
