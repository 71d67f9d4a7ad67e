"""Syntax of other programs in prompts: the LoRAs among it are used, the rest is named in a warning."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from pipelines.weights.manifest import Manifest
from server.endpoints.enterprise.drawing.checkpoints import check_adapters, checkpoint
from server.endpoints.enterprise.drawing.comma_lists import LARGEST_STRENGTH, LEAST_STRENGTH
from server.endpoints.enterprise.drawing.fields import PictureFields
from server.endpoints.prompt_syntax import TAG, meaningless, without_tags
from server.errors import FieldError

F = TypeVar("F", bound=PictureFields)

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)")

_MOST_TAGS = 100


@dataclass(frozen=True, slots=True)
class _Tag:
    """A tag that puts something on the networks: ``<lora:NAME:0.8>``."""

    text: str
    kind: str
    name: str
    strengths: tuple[str, ...]

    @classmethod
    def all_in(cls, prompt: str) -> Iterator[_Tag]:
        for found in TAG.finditer(prompt):
            name, *strengths = (part.strip() for part in found["rest"].split(":"))
            yield cls(found[0], found["kind"].lower(), name, tuple(strengths))

    def strength(self) -> float:
        """The strength that the tag asks for.

        Raises:
            FieldError: it is no number, or out of bounds.
        """
        given = self.strengths[0] if self.strengths else "1"
        number = _NUMBER.fullmatch(given.rpartition("=")[2].strip())
        if number is None:
            raise FieldError("prompt", f"holds {self.text}, whose strength is not a number")
        strength = float(number[0])
        if strength and not LEAST_STRENGTH <= strength <= LARGEST_STRENGTH:
            bounds = f"between {LEAST_STRENGTH} and {LARGEST_STRENGTH}"
            raise FieldError("prompt", f"holds {self.text}, whose strength must be {bounds}")
        return strength


def read_prompt_syntax(fields: F, manifest: Manifest) -> tuple[F, list[str]]:
    """Take the LoRAs that the prompt names as tags out of it and into ``lora_model``.

    A tag has the last word on its LoRA's strength; a strength of 0 leaves the LoRA out. Tags of what is not
    here, or of no use here, are taken out too: no program reads them as words.

    Returns:
        The fields as they are drawn, and a warning for each thing that has no meaning here.
    Raises:
        NotFound: there is no such checkpoint.
        FieldError: a tag's strength is none, or its LoRA was made for another kind of checkpoint.
    """
    tags, negative_tags = list(_Tag.all_in(fields.prompt)), list(_Tag.all_in(fields.negative_prompt))
    for name, found in {"prompt": tags, "negative_prompt": negative_tags}.items():
        if len(found) > _MOST_TAGS:
            raise FieldError(
                name, f"holds {len(found)} tags like {found[0].text}; at most {_MOST_TAGS} are read"
            )
    warnings = [
        *(f"{tag.text} in the negative prompt had no effect" for tag in negative_tags),
        *meaningless(fields.prompt),
        *meaningless(fields.negative_prompt),
    ]
    changes: dict[str, object] = {}
    if negative_tags:
        changes["negative_prompt"] = without_tags(fields.negative_prompt)
    if tags:
        loras = {manifest.id_of(lora.name): lora.scale for lora in fields.loras()}
        for tag in tags:
            warnings += _use(tag, loras, fields.model_id, manifest)
        changes["prompt"] = without_tags(fields.prompt)
        if loras or fields.lora_model:
            changes["lora_model"] = ",".join(loras) or None
            changes["lora_strength"] = ",".join(str(scale) for scale in loras.values()) or None
    return fields.model_copy(update=changes), list(dict.fromkeys(warnings))


def _use(tag: _Tag, loras: dict[str, float], model_id: str, manifest: Manifest) -> list[str]:
    """Put a tag's LoRA, if it is here, among those that are used, and return what there is to say."""
    if tag.kind == "hypernet":
        return [f"{tag.text} had no effect: this server has no hypernetworks"]
    name = _known(manifest.id_of(tag.name), manifest.loras)
    if name is None:
        return [f"{tag.text} had no effect: this server has no LoRA {tag.name or 'without a name'}"]
    check_adapters("prompt", [name], manifest.loras, checkpoint(manifest, model_id))
    strength = tag.strength()
    warnings: list[str] = []
    if len(tag.strengths) > 1:
        warnings.append(f"{tag.text} was used with one strength for all networks, {strength:g}")
    if loras.get(name, strength) != strength:
        warnings.append(f"the strength of {name} was given twice; {strength:g} was used")
    loras.pop(name, None)
    if strength:
        loras[name] = strength
    return warnings


def _known(name: str, loras: Iterable[str]) -> str | None:
    """The LoRA that a tag means: by its id, or by its file's name in whatever folder and case."""
    bare = re.split(r"[\\/]", name)[-1].removesuffix(".safetensors")
    exact = [each for each in loras if each in (name, bare)]
    alike = exact or [each for each in loras if each.casefold() == bare.casefold()]
    return alike[0] if len(alike) == 1 or exact else None
