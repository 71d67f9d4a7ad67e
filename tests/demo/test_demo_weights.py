"""What ships with the project is small."""

from pipelines.demo.checkpoints.parts import WEIGHTS


def test_all_weights_together_have_at_most_thirty_megabytes() -> None:
    sizes = {path.name: path.stat().st_size for path in WEIGHTS.glob("*.safetensors")}
    assert len(sizes) > 10
    assert sum(sizes.values()) <= 30_000_000, sizes
