"""Everything that can go wrong while drawing, in the words of whoever asked for the picture.

Every class survives pickling, since an engine raises in another process than the one that answers;
none knows HTTP.
"""


class GenerationError(Exception):
    """The base of all drawing errors. ``str(error)`` is fit for the caller: no paths, no traceback."""


class InvalidInput(GenerationError):
    """A field of the request cannot be drawn.

    Attributes:
        field: canonical name of the field (``image``, ``prompt``, ``loras`` ...).
        problem: the rest of the sentence that begins with the field's name.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field = field
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}"


class InvalidImage(InvalidInput):
    """The bytes given as a picture are not one, or not one within the limits."""


class ImageTooLarge(InvalidInput):
    """The picture has more bytes or pixels than the configured limit."""


class PoseNotFound(InvalidInput):
    """Nobody was detected in the photograph given for its pose."""


class AnnotatorMissing(InvalidInput):
    """A picture is no control image yet, and what would make one of it is not installed here."""


class UnknownPipeline(GenerationError):
    """The manifest has no pipeline of this name."""


class UnknownAdapter(InvalidInput):
    """The manifest has no LoRA, embedding or VAE of this name, or it does not fit the checkpoint."""


class CheckpointUnavailable(GenerationError):
    """The weights of a pipeline are not here, not complete, or not the ones that were verified.

    Attributes:
        problem: what is wrong, without the remedy.
        remedy: what an operator does about it, as the rest of a sentence; empty where nothing is known.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}. To mend it, {self.remedy}" if self.remedy else self.problem


class UnusableCheckpoint(CheckpointUnavailable):
    """The file of a checkpoint is here, and is nothing that can be drawn with: asking again is of no use."""


class OutOfMemory(GenerationError):
    """The request alone does not fit the device."""


class NeverFits(OutOfMemory):
    """The request needs more of the device's memory than there is, even when nothing else is drawn.

    Attributes:
        pipeline: name in the manifest.
        needed_bytes, budget_bytes: the most that it takes at one moment, and what there is.
    """

    def __init__(self, pipeline: str, needed_bytes: int, budget_bytes: int) -> None:
        super().__init__(pipeline, needed_bytes, budget_bytes)
        self.pipeline = pipeline
        self.needed_bytes = needed_bytes
        self.budget_bytes = budget_bytes

    def __str__(self) -> str:
        needed, there = self.needed_bytes / 10**9, self.budget_bytes / 10**9
        return f"{self.pipeline} needs {needed:.1f} GB of a device's memory, and there are {there:.1f} GB"


class NumbersOutOfRange(GenerationError):
    """The networks' results are not numbers any more, and would be shown as black."""

    def __init__(self, problem: str = "the networks' numbers went out of range") -> None:
        super().__init__(problem)


class Cancelled(GenerationError):
    """The request was withdrawn before it was finished."""


class EngineLost(GenerationError):
    """The process that was drawing died."""


class DrawingFailed(GenerationError):
    """An engine has failed unexpectedly; the cause is in the log, not in the text."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory has run out, of the host or of a device.

    torch's class is known by its name here, because this module does not load torch. CUDA's allocator raises
    it; the CPU's allocator, cuBLAS and cuDNN only say in words that they got nothing.
    """
    classes = {cls.__name__ for cls in type(error).__mro__}
    if not classes.isdisjoint(("MemoryError", "OutOfMemoryError")):
        return True
    return any(words in str(error) for words in ("DefaultCPUAllocator", "_STATUS_ALLOC_FAILED"))
