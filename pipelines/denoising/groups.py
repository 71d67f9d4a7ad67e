"""The groups of samples that are being denoised, whose turn is next, and how full they are."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pipelines.denoising.active_request import ActiveRequest
from pipelines.denoising.needs import NOTHING, Parts
from pipelines.denoising.sample import Sample
from pipelines.group import GroupKey


@dataclass(eq=False, slots=True)
class Group:
    """Samples that share network evaluations.

    Attributes:
        at_once: the most samples that one evaluation takes.
    """

    key: GroupKey
    at_once: int
    members: list[tuple[ActiveRequest, Sample]] = field(default_factory=list)

    @property
    def parts(self) -> Parts:
        """The parts of the pipeline that its steps need; whoever shares evaluations needs the same."""
        active, _ = self.members[0]
        return active.needs[self.key.pipeline].denoise.get(self.key.stage, NOTHING)

    def requests(self) -> list[ActiveRequest]:
        """The requests to which the samples belong, each once."""
        return list(dict.fromkeys(active for active, _ in self.members))


class Groups:
    """All groups that have members. They take turns.

    Attributes:
        pixels: what is being denoised for the requests of each pipeline, whatever pipeline does it. A sample
            that is done counts no more, unless it has entered another stage.
    """

    def __init__(self, group_pixels: int) -> None:
        """
        Args:
            group_pixels: the pixels of one evaluation.
        """
        self.pixels: Counter[str] = Counter()
        self._group_pixels = group_pixels
        self._groups: OrderedDict[GroupKey, Group] = OrderedDict()

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups.values())

    def next(self) -> Group:
        """The group whose turn it is; the others have theirs before it has its next one."""
        key, group = next(iter(self._groups.items()))
        self._groups.move_to_end(key)
        return group

    def join(self, active: ActiveRequest, sample: Sample) -> None:
        """Add a sample that has steps to do."""
        key = sample.key
        at_once = max(1, self._group_pixels // max(1, key.height * key.width))
        self._groups.setdefault(key, Group(key, at_once)).members.append((active, sample))
        self.pixels[active.request.pipeline] += active.pixels_each

    def take_done(self, group: Group) -> list[tuple[ActiveRequest, Sample]]:
        """Let the samples that are done leave their group, and return them."""
        return self._take(group, lambda _, sample: sample.sampler.done)

    def leave(self, active: ActiveRequest) -> None:
        """Let every sample of a request leave."""
        for group in list(self._groups.values()):
            self._take(group, lambda other, _: other is active)

    def _take(
        self, group: Group, leaving: Callable[[ActiveRequest, Sample], bool]
    ) -> list[tuple[ActiveRequest, Sample]]:
        left = [member for member in group.members if leaving(*member)]
        if left:
            group.members = [member for member in group.members if not leaving(*member)]
        for active, _ in left:
            self.pixels[active.request.pipeline] -= active.pixels_each
        if not group.members:
            self._groups.pop(group.key, None)
        return left
