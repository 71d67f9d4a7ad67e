"""The enterprise operations that load and delete: every parameter, its value, and what becomes of it.

The address says what comes (see `RecordingLoader`): ``their/lora`` brings a LoRA.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.contract.parameters.effects import SENT, Effect, announced, answer, refusal, thrown_away, wanted
from tests.contract.parameters.live_values import a_new_word, a_receiver, an_api_key, something_loaded
from tests.contract.parameters.rows import Page, Value, every, row
from tests.contract.parameters.stage import ENTERPRISE

SHARED = (
    row("key", an_api_key, answer(status="success")),
    row("webhook", a_receiver, announced(url=SENT, message="model loaded")),
    row("track_id", "mine", answer(track_id=SENT)),
    row("track_id", 12, answer(track_id=SENT)),
    row("track_id", "mine", announced(track_id=SENT), beside={"webhook": a_receiver}),
)

NOT_AS_SAID: Mapping[str, Effect] = {
    "stable_diffusion": thrown_away("it is a lora, not a checkpoint"),
    "checkpoint": thrown_away("it is a lora, not a checkpoint"),
    "model": thrown_away("it is a lora, not a checkpoint"),
    "sd": thrown_away("it is a lora, not a checkpoint"),
    "sd15": thrown_away("it is a lora, not a checkpoint"),
    "sdxl": thrown_away("it is a lora, not a checkpoint"),
    "stable_diffusion_xl": thrown_away("it is a lora, not a checkpoint"),
    "embeddings": thrown_away("it is a lora, not a embedding"),
    "embedding": thrown_away("it is a lora, not a embedding"),
    "textual_inversion": thrown_away("it is a lora, not a embedding"),
    "vae": thrown_away("it is a lora, not a vae"),
    "controlnet": thrown_away("it is a lora, not a controlnet"),
}
"""What `model_type` says of a LoRA, and what then becomes of it."""

A_REPOSITORY: Mapping[str, Value] = {"url": "owner/lora"}
AN_EMBEDDING: Mapping[str, Value] = {"url": "their/embedding"}

WARNED = announced(warning="it is a lora, not a checkpoint")
"""What becomes of a LoRA that is said to come from somewhere."""

PICKLES = ("ckpt", "bin", "pt", "pth", "pickle")
REFUSED = "pickles are refused: they can run code when they are opened; give a .safetensors"

LOADING = tuple(
    Page(
        f"{ENTERPRISE}/{operation}",
        {"url": "their/lora", "model_id": a_new_word},
        (
            *SHARED,
            row("url", "owner/lora", wanted(hub=SENT)),
            row("url", "http://127.0.0.1:9/lora.safetensors", wanted(url=SENT)),
            row("model_id", a_new_word, wanted(name=SENT)),
            *every("model_type", NOT_AS_SAID),
            row("model_type", "lora", thrown_away("it is a embedding, not a lora"), beside=AN_EMBEDDING),
            row("model_type", "lycoris", thrown_away("it is a embedding, not a lora"), beside=AN_EMBEDDING),
            row("model_type", "sd15", wanted(family="sd15")),
            row("model_type", "sdxl", wanted(family="sdxl")),
            # Both are what is loaded anyway; another word is not heard as one of them.
            row("model_format", "diffusers", answer(status="success"), instead="ckpt"),
            row("model_format", "safetensors", answer(status="success"), instead="ckpt"),
            *every("model_format", {word: refusal("model_format", REFUSED) for word in PICKLES}),
            *(
                row("model_type", word, WARNED, beside={"webhook": a_receiver}, instead="lora")
                for word in ("huggingface", "custom_ckpt", "api_trained", "dreambooth")
            ),
            row("model_type", "stable_diffusion_xl", wanted(family="sdxl")),
            # Either is loaded; what is neither is not.
            row("from_safetensors", False, answer(status="success"), instead="perhaps"),
            row("from_safetensors", True, answer(status="success"), instead="perhaps"),
            row("revision", "v1.0", wanted(revision=SENT, precision=None), beside=A_REPOSITORY),
            row("revision", "fp16", wanted(revision="main", precision="fp16"), instead="v1.0"),
            row("revision", "bf16", wanted(revision="main", precision="bf16"), instead="v1.0"),
            row("revision", "fp32", wanted(revision="main", precision="fp32"), instead="v1.0"),
        ),
    )
    for operation in ("load_model", "load_model_v2")
)

LOAD_VAE = Page(
    f"{ENTERPRISE}/load_vae",
    {"vae_url": "their/vae", "vae_id": a_new_word},
    (
        *SHARED,
        row("vae_id", a_new_word, wanted(name=SENT)),
        row("vae_url", "owner/vae", wanted(hub=SENT)),
        row("vae_url", "their/lora", thrown_away("it is a lora, not a vae")),
        *every("vae_type", {word: wanted(family="sd15") for word in ("sd", "sd15", "sd1_5")}),
        *every("vae_type", {word: wanted(family="sdxl") for word in ("sdxl", "stable_diffusion_xl")}),
        # These leave open for which checkpoints it is.
        *(
            row("vae_type", word, wanted(family=None), instead="sdxl")
            for word in ("stable_diffusion", "vae", "diffusers", "safetensors", "pt")
        ),
    ),
)

DELETED = answer(status="success", message="Model deleted on server")

DELETE_MODEL = Page(
    f"{ENTERPRISE}/delete_model",
    {"model_id": something_loaded},
    (
        row("key", an_api_key, DELETED),
        row("model_id", something_loaded, DELETED),
        row("model_id", something_loaded, DELETED, instead="unheard-of"),
    ),
)

PAGES = (*LOADING, LOAD_VAE, DELETE_MODEL)
