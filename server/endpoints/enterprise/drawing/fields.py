"""What the operations that draw with a checkpoint share: fields, canonical names, price, answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, TypedDict

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import AliasChoices, Field

from pipelines.request import (
    HIGHRES_STRENGTH,
    CheckpointRequest,
    Lora,
    Prompted,
    Replacement,
    SchedulerChoice,
)
from pipelines.schedulers.names import NoiseScheduler
from pipelines.weights.manifest import AdapterEntry, Manifest, PipelineEntry
from server.accounts.accounts import Account
from server.endpoints.enterprise.answers import finished, processing
from server.endpoints.enterprise.drawing.checkpoints import checkpoint
from server.endpoints.enterprise.drawing.phrases import enhanced_negative_prompt, enhanced_prompt
from server.endpoints.enterprise.drawing.scheduler_notes import (
    check_algorithm_type,
    scheduler_meta,
    without_effect,
)
from server.endpoints.enterprise.drawing.sizes import LARGEST_SIDE, WIDEST_PANORAMA, Side, Width
from server.endpoints.enterprise.webhook import WebhookFields
from server.endpoints.enterprise.wire import digest, yes_no
from server.endpoints.fields import Flag, Number, Seed, Text, WholeNumber, seeds
from server.errors import FieldError
from server.http import caller
from server.http.hang_up import while_connected
from server.http.services import services
from server.jobs.jobs import JSON, JobStatus
from server.jobs.order import Order
from server.settings import Settings

PRICE_MILLICREDITS = 10
DEFAULT_STEPS = 20
TOKEN_MERGING_RATIO = 0.5


class Canonical(TypedDict):
    """Arguments of `pipelines.request.Prompted`."""

    pipeline: str
    prompt: str
    negative_prompt: str | None
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    seeds: tuple[int, ...]
    scheduler: SchedulerChoice
    prompt_weighting: bool
    clip_skip: int | None
    loras: tuple[Lora, ...]
    embeddings: tuple[str, ...]
    vae: str | None
    token_merging_ratio: float
    safety_checker: bool
    replacement: Replacement
    highres_fix: bool
    upscaler: str | None
    self_attention: bool
    panorama: bool


class PictureFields(WebhookFields):
    """The documented fields of every operation that draws with a checkpoint."""

    model_id: Text = Field(description="A checkpoint of this server; get_all_models lists them.")
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
    num_inference_steps: WholeNumber = Field(
        DEFAULT_STEPS,
        ge=1,
        le=50,
        validation_alias=AliasChoices("num_inference_steps", "steps"),
        description="Denoising steps. Affects the price.",
    )
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
    safety_checker_type: Replacement = Field(
        "black",
        description="What replaces a flagged picture; the text is written on a blurred picture.",
    )
    enhance_prompt: Flag = Field(
        True,
        description="Add the vendor's quality phrases to the prompt, and its list to the negative prompt,"
        " where they are missing; before that the server's prompt writer continues the prompt, if it has one."
        " `meta.prompt` shows the result.",
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
    algorithm_type: Literal["dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++"] | None = Field(
        None,
        description="For DPMSolverMultistepScheduler, and but for sde-dpmsolver for "
        "DPMSolverSinglestepScheduler; `meta` says `no effect` with others. Fewer than twelve "
        "steps need one with ++: sde-dpmsolver leaves much noise then, dpmsolver some.",
    )
    vae: Text | None = Field(None, description="A VAE of this server instead of the checkpoint's own.")
    base64: Flag = Field(False, description="`output` lists text files with base64.")
    temp: Flag = Field(False, description="The outputs live a day only.")

    def loras(self) -> tuple[Lora, ...]:
        """The LoRAs with their strengths.

        Raises:
            FieldError: as many strengths as LoRAs, or one, between 0.1 and 1.
        """
        names = listed(self.lora_model)
        strengths = one_each("lora_strength", self.lora_strength, "lora_model", names, 0.1, 1)
        return tuple(Lora(name=name, scale=scale) for name, scale in zip(names, strengths, strict=True))

    def price(self, settings: Settings, endpoint: str = "text2img") -> int:
        """Millicredits of the pictures."""
        base = settings.prices_millicredits.get(endpoint, PRICE_MILLICREDITS)
        return -(-base * self.samples * self.num_inference_steps // DEFAULT_STEPS)

    def canonical(self, manifest: Manifest) -> Canonical:
        """The same in canonical names, with explicit seeds: arguments of `pipelines.request.Prompted`.

        Raises:
            NotFound: no such checkpoint.
            FieldError: no such adapter; the scheduler does not know the algorithm type.
        """
        entry = checkpoint(manifest, self.model_id)
        loras = self.loras()
        embeddings = tuple(listed(self.embeddings_model))
        check_adapters("lora_model", [lora.name for lora in loras], manifest.loras, entry)
        check_adapters("embeddings_model", embeddings, manifest.embeddings, entry)
        check_algorithm_type(self.scheduler, self.algorithm_type)
        vae = self.vae and self.vae.strip()
        check_adapters("vae", [vae] if vae else [], manifest.vaes, entry)
        negative = self.negative_prompt
        return {
            "pipeline": self.model_id,
            "prompt": enhanced_prompt(self.prompt) if self.enhance_prompt else self.prompt,
            "negative_prompt": enhanced_negative_prompt(negative) if self.enhance_prompt else negative,
            "width": self.width,
            "height": self.height,
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale": self.guidance_scale,
            "seeds": seeds(self.seed, self.samples),
            "scheduler": SchedulerChoice(
                name=self.scheduler,
                use_karras_sigmas=self.use_karras_sigmas,
                algorithm_type=self.algorithm_type,
            ),
            "prompt_weighting": True,
            "clip_skip": self.clip_skip - 1 or None,
            "loras": loras,
            "embeddings": embeddings,
            "vae": vae or None,
            "token_merging_ratio": TOKEN_MERGING_RATIO if self.tomesd else 0.0,
            "safety_checker": self.safety_checker and "safety_checker" in entry.parts,
            "replacement": self.safety_checker_type,
            "highres_fix": self.highres_fix,
            "upscaler": self._upscaler(manifest),
            "self_attention": self.self_attention,
            "panorama": self.panorama,
        }

    def _upscaler(self, manifest: Manifest) -> str | None:
        if not self.upscale:
            return None
        if not manifest.upscalers:
            raise FieldError("upscale", "needs an upscaler, and this server has none")
        return next(iter(manifest.upscalers))

    def options(self, drawn: Prompted, entry: PipelineEntry) -> dict[str, JSON]:
        """What the answer says about the request, now or when it is fetched."""
        warnings = without_effect(drawn.scheduler, self.model_fields_set)
        if self.safety_checker and not drawn.safety_checker:
            warnings.append(f"{self.model_id} has no safety checker; nothing was checked")
        return {
            "warning": "; ".join(warnings) or None,
            "meta": {
                "prompt": drawn.prompt,
                "model_id": self.model_id,
                "negative_prompt": drawn.negative_prompt,
                "scheduler": self.scheduler,
                **scheduler_meta(drawn.scheduler),
                "revision": {"float16": "fp16", "bfloat16": "bf16"}.get(entry.dtype, "fp32"),
                "safetychecker": yes_no(drawn.safety_checker),
                "W": self.width,
                "H": self.height,
                "enable_attention_slicing": "true",
                "guidance_scale": self.guidance_scale,
                "seed": drawn.seeds[0],
                "steps": self.num_inference_steps,
                "n_samples": self.samples,
                "upscale": yes_no(self.upscale),
                "highres_fix": yes_no(self.highres_fix),
                "multi_lingual": yes_no(self.multi_lingual),
                "panorama": yes_no(self.panorama),
                "self_attention": yes_no(self.self_attention),
                "embeddings": self.embeddings_model,
                "lora": self.lora_model,
                "outdir": "out",
                "vae": drawn.vae or _own_vae(self.model_id, entry),
                **self.own_meta(),
            },
        }

    def own_meta(self) -> dict[str, JSON]:
        """What `meta` says beyond text2img's."""
        return {}


async def draw_and_answer(
    request: Request,
    account: Account,
    endpoint: str,
    fields: PictureFields,
    drawn: CheckpointRequest,
) -> JSONResponse:
    """Draw, and answer with the pictures, or after a while with where to fetch them.

    Args:
        endpoint: the operation's name in the job's record, the metrics and the price list.
    """
    parts = services(request)
    idempotency_key = caller.idempotency_key(request)
    order = Order(
        endpoint=endpoint,
        request=drawn,
        price=fields.price(parts.settings, endpoint),
        picture_format="png",
        base64_files=fields.base64,
        temporary=fields.temp,
        synchronous=True,
        options=fields.options(drawn, parts.manifest.pipelines[fields.model_id])
        | fields.webhook_options(request),
        idempotency_key=idempotency_key,
        body_digest=digest(fields) if idempotency_key else None,
    )
    drawing = parts.studio.draw(account, order, wait_s=parts.settings.sync_wait_s)
    job = await while_connected(request, drawing)
    caller.report_balance(request, job)
    if job.status is JobStatus.succeeded:
        return JSONResponse(finished(request, job))
    return JSONResponse(processing(request, job))


def listed(text: str | None) -> list[str]:
    """The items of a comma list."""
    return [item.strip() for item in (text or "").split(",") if item.strip()]


def one_each(
    field: str, given: str | float | None, of: str, names: list[str], lowest: float, highest: float
) -> list[float]:
    """A number for each name: 1 by default, one for all, or a comma list.

    Args:
        of: the field that the names are from.
    Raises:
        FieldError: not numbers between these bounds, or of another count.
    """
    try:
        numbers = [float(text) for text in listed(None if given is None else str(given))] or [1.0]
    except ValueError:
        raise FieldError(field, "must be numbers, separated by commas") from None
    if not all(lowest <= number <= highest for number in numbers):
        raise FieldError(field, f"must be between {lowest} and {highest}")
    if len(numbers) == 1:
        numbers *= len(names)
    if len(numbers) != len(names):
        raise FieldError(field, f"must be one number, or one for each {of}")
    return numbers


def check_adapters(
    field: str, names: Iterable[str], known: Mapping[str, AdapterEntry], entry: PipelineEntry
) -> None:
    for name in names:
        if name not in known:
            raise FieldError(field, f"{name} is not on this server")
        if known[name].family != entry.family:
            raise FieldError(field, f"{name} was made for another kind of checkpoint")


def _own_vae(model_id: str, entry: PipelineEntry) -> str:
    part = entry.parts.get("vae")
    return part.hub if part and part.hub else model_id
