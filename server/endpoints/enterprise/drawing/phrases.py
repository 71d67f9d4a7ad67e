"""The vendor's quality phrases, which `enhance_prompt` adds where a prompt does not have them yet."""

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


def enhanced_prompt(prompt: str) -> str:
    """The prompt with those of `PROMPT_PHRASES` that it lacks at its end."""
    return _with_missing(prompt, PROMPT_PHRASES)


def enhanced_negative_prompt(negative_prompt: str) -> str:
    """The negative prompt with those of `NEGATIVE_PHRASES` that it lacks at its end."""
    return _with_missing(negative_prompt, NEGATIVE_PHRASES)


def _with_missing(text: str, phrases: tuple[str, ...]) -> str:
    present = {_bare(phrase) for phrase in text.split(",")}
    missing = [phrase for phrase in phrases if _bare(phrase) not in present]
    return ", ".join(part for part in (text.strip().rstrip(","), *missing) if part)


def _bare(phrase: str) -> str:
    """The phrase without weighting brackets and in lower case, which do not make it another phrase."""
    return phrase.strip(" \t\n()[]").lower()
