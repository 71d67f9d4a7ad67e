"""The vendor's quality phrases, which `enhance_prompt` adds as the documented sample's answer shows it."""

from __future__ import annotations

PROMPT_PHRASES = (
    "DSLR photography", "sharp focus", "Unreal Engine 5", "Octane Render", "Redshift",
    "((cinematic lighting))", "f/1.4", "ISO 200", "1/160s", "8K", "RAW", "unedited",
    "symmetrical balance", "in-frame",
)  # fmt: skip

NEGATIVE_PHRASES = (
    "((out of frame))", "((extra fingers))", "mutated hands", "((poorly drawn hands))",
    "((poorly drawn face))", "(((mutation)))", "(((deformed)))", "(((tiling)))", "((naked))", "((tile))",
    "((fleshpile))", "((ugly))", "(((abstract)))", "blurry", "((bad anatomy))", "((bad proportions))",
    "((extra limbs))", "cloned face", "glitchy", "((extra breasts))", "((double torso))", "((extra arms))",
    "((extra hands))", "((mangled fingers))", "((missing breasts))", "(missing lips)", "((ugly face))",
    "((fat))", "((extra legs))",
)  # fmt: skip


ENOUGH = 3
"""A prompt with so many of `PROMPT_PHRASES` is the caller's own work, and stays as it is."""


def enhanced_prompt(prompt: str) -> str:
    """The prompt with those of `PROMPT_PHRASES` that it lacks at its end; unchanged where it has `ENOUGH`."""
    present = {_bare(phrase) for phrase in prompt.split(",")}
    missing = [phrase for phrase in PROMPT_PHRASES if _bare(phrase) not in present]
    if len(PROMPT_PHRASES) - len(missing) >= ENOUGH:
        return prompt
    return ", ".join(part for part in (prompt.strip().rstrip(","), *missing) if part)


def enhanced_negative_prompt(negative_prompt: str) -> str:
    """The negative prompt and after a blank all of `NEGATIVE_PHRASES`, whatever it has already: brackets are
    weights, and a phrase in them is another one than the bare words."""
    whole = ", ".join(NEGATIVE_PHRASES)
    return f"{negative_prompt} {whole}" if negative_prompt.strip() else whole


def _bare(phrase: str) -> str:
    """The phrase without weighting brackets and in lower case, which do not make it another phrase."""
    return phrase.strip(" \t\n()[]").lower()
