"""Rewriting of prompts by this server's language models, which translate and continue them."""

from __future__ import annotations

from typing import TypeVar

from fastapi import Request

from pipelines.request import Rewriting
from server.accounts.accounts import Account
from server.endpoints.enterprise.drawing.fields import PictureFields
from server.errors import FieldError
from server.http import caller
from server.http.hang_up import while_connected
from server.http.services import services

F = TypeVar("F", bound=PictureFields)

TRANSLATOR = "mbart50"
"""The family of translators; the manifest's first pipeline of it is used."""
PROMPT_WRITER = "prompt_writer"
"""The family of prompt writers; the manifest's first pipeline of it is used."""


async def rewrite_prompts(request: Request, account: Account, fields: F) -> F:
    """Translate both prompts into English where `multi_lingual` asks for it, and have the prompt continued
    where `enhance_prompt` is on and the manifest has a prompt writer.

    Nothing is charged for it; who cannot pay for the pictures is refused first.

    Returns:
        The fields with the new prompts.
    Raises:
        InsufficientCredits: the account cannot pay for the pictures.
        FieldError: there is no translator, or the prompt is too long for it.
        QueueFull, Unavailable: no language model can be had now.
        CallerGone: the caller hung up meanwhile.
    """
    server = services(request)
    translator = server.manifest.first_of(TRANSLATOR)
    writer = server.manifest.first_of(PROMPT_WRITER) if fields.enhance_prompt else None
    if not (fields.multi_lingual or writer):
        return fields
    if fields.multi_lingual and translator is None:
        raise FieldError("multi_lingual", "cannot be yes: weights.yaml of this server names no translator")
    base_price = server.settings.base_price(fields.slug, fields.price_millicredits)
    caller.afford(request, account, fields.price(base_price))
    prompt, negative_prompt = fields.prompt, fields.negative_prompt
    if fields.multi_lingual and translator is not None:
        texts = Rewriting(pipeline=translator, texts=(prompt, negative_prompt))
        prompt, negative_prompt = await while_connected(request, server.studio.rewrite(account, texts))
    if writer is not None:
        texts = Rewriting(pipeline=writer, texts=(prompt,))
        (prompt,) = await while_connected(request, server.studio.rewrite(account, texts))
    return fields.model_copy(update={"prompt": prompt, "negative_prompt": negative_prompt})
