"""The fields of the operations that an account pays for, and of those that draw with a checkpoint."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AliasChoices,
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from pipelines.image_io import RGBImage
from pipelines.request import HIGHRES_STRENGTH, CheckpointRequest, Lora, PictureRequest, Replacement
from pipelines.schedulers.names import ALGORITHM_TYPES, WITH_KARRAS_SIGMAS, NoiseScheduler
from pipelines.weights.manifest import Manifest
from server.endpoints.enterprise.drawing.checkpoints import check_adapters, checkpoint
from server.endpoints.enterprise.drawing.comma_lists import NOTHING, named, number_for_each
from server.endpoints.enterprise.drawing.scheduler_notes import check_algorithm_type
from server.endpoints.enterprise.drawing.sizes import LARGEST_SIDE, WIDEST_PANORAMA, Side, Width
from server.endpoints.enterprise.webhook import WebhookFields
from server.endpoints.fields import Flag, Number, Seed, Text, WholeNumber
from server.endpoints.pricing import Priced
from server.errors import FieldError
from server.http.caller import IDEMPOTENCY_KEY_PARAMETER
from server.jobs.order import JSON

AlgorithmType = Literal[
    "none", "dpmsolver", "dpmsolver++", "dpmsolver+++", "sde-dpmsolver", "sde-dpmsolver++"
]
"""The page documents none and dpmsolver+++; the others are diffusers' own."""

COMPANIONS = frozenset(
    {
        "safety_checker_type", "algorithm_type", "use_karras_sigmas", "lora_strength", "controlnet_type",
        "strength",
    }
)  # fmt: skip
"""The options that only say how another one is meant: without that one they may have any value."""


def _anything(value: object) -> bool:
    """Whether a flag asks for something; it may have any value, since nothing comes of it."""
    return str(value).strip().lower() not in ("", "no", "n", "false", "off", "0")


def steps(default: int) -> Any:
    """The field `num_inference_steps` with this default."""
    return Field(
        default,
        ge=1,
        le=50,
        validation_alias=AliasChoices("num_inference_steps", "steps"),
        description="Denoising steps. Affects the price.",
    )


def replacement(default: Replacement) -> Any:
    """The field `safety_checker_type` with this default."""
    return Field(
        default, description="What replaces a flagged picture; the text is written on a blurred picture."
    )


class PaidFields(WebhookFields, Priced):
    """The fields of every operation that an engine carries out and an account pays for."""

    parameters: ClassVar[Sequence[Mapping[str, object]]] = (IDEMPOTENCY_KEY_PARAMETER,)
    default_steps: ClassVar[int] = 1

    def effort(self) -> tuple[int, int]:
        """The number of pictures that are paid for, and of steps in each."""
        return 1, 1

    @abstractmethod
    def to_request(self, manifest: Manifest, pictures: Mapping[str, RGBImage]) -> PictureRequest:
        """The request that the fields ask for, in canonical names and with explicit seeds.

        Args:
            pictures: the pictures that were sent, by the names of their fields.
        Raises:
            NotFound, FieldError: this server's manifest has nothing to draw it with.
        """


class PictureFields(PaidFields):
    """The fields of every operation that draws with a checkpoint."""

    price_millicredits: ClassVar[int] = 10
    default_steps: ClassVar[int] = 20

    model_id: Text = Field(
        validation_alias=AliasChoices("model_id", "model"),
        description="A checkpoint of this server; get_all_models lists them. Also as `model`.",
    )
    prompt: Text = Field(
        description="What to draw, up to 2400 tokens. `(word)` weighs a word by 1.1, `((word))` by 1.21, "
        "`[word]` by 1/1.1, `(word:1.3)` by 1.3; `\\(` and `\\)` are brackets in the picture."
    )
    negative_prompt: Text = Field("", description="What to keep out of the picture, written like the prompt.")
    panorama: Flag = Field(
        False,
        description="A seamless wide picture: its left and right edges match (MultiDiffusion). `width` may"
        f" then be up to {WIDEST_PANORAMA}; it takes several times as long.",
    )
    width: Width = Field(
        512, description=f"Pixels; at most {LARGEST_SIDE}, with `panorama` at most {WIDEST_PANORAMA}."
    )
    height: Side = Field(512, description="Pixels.")
    samples: WholeNumber = Field(1, ge=1, le=4, description="Pictures to draw. Affects the price.")
    num_inference_steps: WholeNumber = steps(20)
    guidance_scale: Number = Field(7.5, ge=1, le=20, description="How closely the prompt is followed.")
    seed: Seed = Field(-1, description="Same seed, same picture; random when null or -1.")
    scheduler: NoiseScheduler = Field(
        "UniPCMultistepScheduler",
        description="A noise scheduler of diffusers, on the checkpoint's own noise schedule. "
        "DDIMInverseScheduler draws as deterministic DDIM; KarrasVeScheduler and ScoreSdeVeScheduler "
        "evaluate the network twice a step. `meta.scheduler_note` says what is special about one.",
    )
    safety_checker: Flag = Field(
        True,
        description="Replace pictures that the checkpoint's checker flags. `nsfw_content_detected` says"
        " whether there were any, `meta.nsfw` has a yes or no for each picture.",
    )
    safety_checker_type: Replacement = replacement("black")
    enhance_prompt: Flag = Field(
        True,
        description="Add the vendor's quality phrases to a prompt that has fewer than three of them, and its"
        " whole list to the negative prompt; before that the server's prompt writer continues the prompt, if"
        " it has one. `meta.prompt` shows the result.",
    )
    multi_lingual: Flag = Field(
        False,
        description="Translate both prompts into English from any of mBART-50's 52 languages, weights and"
        " brackets left in place. What is English, or cannot be told, stays as it is.",
    )
    self_attention: Flag = Field(
        False,
        description="Self-attention guidance: finer structure, for half as much time again. Refused where the"
        " checkpoint's network has no attention in its middle.",
    )
    upscale: Flag = Field(
        False,
        description="Pictures of twice the width and height, 512x512 becomes 1024x1024, by the first upscaler"
        " of this server's manifest. `meta.W` and `meta.H` stay what was asked for.",
    )
    highres_fix: Flag = Field(
        False,
        description="Two passes. The first composes the picture, in its aspect ratio but with at most as many"
        " pixels as the checkpoint was trained with (512x512, SDXL 1024x1024); its latents are enlarged to"
        f" the asked size and redrawn with a strength of {HIGHRES_STRENGTH}. The picture has the asked size.",
    )
    embeddings_model: Text | None = Field(
        None,
        validation_alias=AliasChoices("embeddings_model", "embeddings"),
        description="Textual inversions, a comma list; each is a word that the prompt may use.",
    )
    lora_model: Text | None = Field(
        None, validation_alias=AliasChoices("lora_model", "lora"), description="LoRAs, a comma list."
    )
    lora_strength: Text | Number | None = Field(
        None, description="0.1 to 1 each, a comma list, or one number for all."
    )
    clip_skip: WholeNumber = Field(1, ge=1, le=8, description="1 uses all layers of the text encoder.")
    tomesd: Flag = Field(True, description="Token merging: faster, slightly less detail.")
    use_karras_sigmas: Flag = Field(
        True, description="Where the scheduler has them; `meta` says `no effect` where it has not."
    )
    algorithm_type: AlgorithmType | None = Field(
        None,
        description="For DPMSolverMultistepScheduler, and but for sde-dpmsolver for "
        "DPMSolverSinglestepScheduler; `meta` says `no effect` with others. dpmsolver+++ is the documented "
        "name of dpmsolver++; none is the scheduler's own. Fewer than twelve steps need one with ++: "
        "sde-dpmsolver leaves much noise then, dpmsolver some.",
    )
    vae: Text | None = Field(None, description="A VAE of this server instead of the checkpoint's own.")
    base64: Flag = Field(False, description="`output` lists text files with base64.")
    temp: Flag = Field(False, description="The outputs live a day only.")
    loadbalancer: Annotated[bool, BeforeValidator(_anything)] = Field(
        False,
        exclude=True,  # no part of what a body means
        description="Without effect: `warning` says how several machines are run.",
    )

    _without_its_value: frozenset[str] = PrivateAttr(frozenset())
    """The options whose values mean nothing, sent where these options have no effect."""

    @model_validator(mode="wrap")
    @classmethod
    def _an_option_without_effect_may_say_anything(
        cls, body: Mapping[str, object], read: ModelWrapValidatorHandler[Self]
    ) -> Self:
        try:
            return read(body)
        except ValidationError as error:
            wrong = frozenset(str(detail["loc"][0]) for detail in error.errors() if detail["loc"])
            if not wrong <= COMPANIONS:
                raise
            fields = read({name: value for name, value in body.items() if name not in wrong})
            if not wrong <= fields.without_effect().keys():
                raise
            fields._without_its_value = wrong
            return fields

    def effort(self) -> tuple[int, int]:
        return self.samples, self.num_inference_steps

    def without_effect(self) -> dict[str, str]:
        """The options that have no effect in this call, whether they were sent or not, and why."""
        options: dict[str, str] = {}
        if not self.safety_checker:
            options["safety_checker_type"] = "while safety_checker is no"
        if self.scheduler not in ALGORITHM_TYPES:
            options["algorithm_type"] = f"with {self.scheduler}"
        if self.scheduler not in WITH_KARRAS_SIGMAS:
            options["use_karras_sigmas"] = f"with {self.scheduler}"
        if not named(self.lora_model):
            options["lora_strength"] = "without lora_model"
        return options

    def without_effect_but_sent(self) -> dict[str, str]:
        """Those of `without_effect` that the caller has sent, and that ask for something."""
        nothing_asked = {
            "use_karras_sigmas": not self.use_karras_sigmas,
            "algorithm_type": self.algorithm_type in (None, "none"),
        }
        return {
            name: reason
            for name, reason in self.without_effect().items()
            if name in self._without_its_value
            or (name in self.model_fields_set and not nothing_asked.get(name))
        }

    def algorithm(self) -> str | None:
        """The algorithm of the noise scheduler by diffusers' name; None: the scheduler's own."""
        same = self.algorithm_type
        return {"none": None, "dpmsolver+++": "dpmsolver++"}.get(same or "none", same)

    def loras(self) -> tuple[Lora, ...]:
        """The LoRAs with their strengths.

        Raises:
            FieldError: the strengths are not one for all or one each, between 0.1 and 1.
        """
        names = named(self.lora_model)
        if not names:
            return ()
        strengths = number_for_each("lora_model", names, "lora_strength", self.lora_strength, 0.1, 1)
        return tuple(Lora(name=name, scale=scale) for name, scale in zip(names, strengths, strict=True))

    def embeddings(self) -> list[str]:
        """The names of the textual inversions."""
        return named(self.embeddings_model)

    def own_vae(self) -> str | None:
        """The name of the VAE that replaces the checkpoint's, if any does."""
        text = (self.vae or "").strip()
        return text if text and text.lower() not in NOTHING else None

    def sent_pictures(self) -> Mapping[str, str | bytes]:
        """The caller's pictures as they came, by the names of their fields."""
        return {}

    def validate_together(self) -> None:
        """Look whether the fields fit together, before anything is fetched or charged.

        Raises:
            MissingField, FieldError
        """

    def validate_names(self, manifest: Manifest) -> None:
        """Look whether this server has everything that the fields name, before any picture is fetched.

        Raises:
            NotFound: there is no such checkpoint.
            FieldError: there is no such adapter, or it does not fit the checkpoint or the scheduler.
        """
        entry = checkpoint(manifest, self.model_id)
        check_adapters("lora_model", [lora.name for lora in self.loras()], manifest.loras, entry)
        check_adapters("embeddings_model", self.embeddings(), manifest.embeddings, entry)
        check_algorithm_type(self.scheduler, self.algorithm())
        check_adapters("vae", filter(None, [self.own_vae()]), manifest.vaes, entry)
        if self.upscale and not manifest.upscalers:
            raise FieldError("upscale", "needs an upscaler, and this server has none")

    @abstractmethod
    def to_request(self, manifest: Manifest, pictures: Mapping[str, RGBImage]) -> CheckpointRequest:
        """The request that the fields ask for, once they were validated, with explicit seeds.

        Args:
            pictures: the pictures of `sent_pictures`, already ``width`` x ``height``.
        """

    def own_meta(self) -> dict[str, JSON]:
        """The entries of `meta` that text2img's does not have."""
        return {}
