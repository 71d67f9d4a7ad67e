"""What `revision: fp16 | bf16 | fp32` takes of a repository, and in which dtype it is drawn with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from pipelines.weights.configs import configuration
from pipelines.weights.fetch_process import Fetched, FetchRequest, fetch
from pipelines.weights.kinds import Precision
from tests.integration.hub_server import HubServer, Repo

FULL, HALF = b"in full precision", b"in half precision"
UNET, VAE, TEXT = "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"
CONFIGS = configuration("stable-diffusion-v1-5")

BOTH = Repo(
    {
        **{str(file.relative_to(CONFIGS)): file.read_bytes() for file in CONFIGS.rglob("*.json")},
        **{f"{weights}.safetensors": FULL for weights in (UNET, VAE, TEXT)},
        **{f"{weights}.fp16.safetensors": HALF for weights in (UNET, VAE, TEXT)},
        "tokenizer/vocab.json": b"{}",
        "tokenizer/merges.txt": b"",
    }
)
ONLY_HALF = Repo({name: data for name, data in BOTH.files.items() if data != FULL})
ONLY_FULL = Repo({name: data for name, data in BOTH.files.items() if data != HALF})
ONE_VAE = Repo(
    {
        "config.json": b'{"_class_name": "AutoencoderKL"}', "diffusion_pytorch_model.safetensors": FULL,
        "diffusion_pytorch_model.fp16.safetensors": HALF,
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    repos = {"me/both": BOTH, "me/half": ONLY_HALF, "me/full": ONLY_FULL, "me/vae": ONE_VAE}
    with HubServer(repos) as serving:
        yield serving


@pytest.fixture
def weights(tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    (tmp_path / "weights.yaml").write_text("pipelines: {}\n")
    return tmp_path / "weights"


def fetched(weights: Path, hub: str, precision: Precision | None, *, on_cpu: bool = True) -> Fetched:
    wanted = FetchRequest(
        name="it",
        hub=hub,
        revision="main",
        manifest=weights.parent / "weights.yaml",
        weights=weights,
        on_cpu=on_cpu,
        max_bytes=10**6,
        precision=precision,
    )

    def say(line: BaseModel) -> None:
        """Nobody wants to know how far it is."""

    return fetch(wanted, say)


@pytest.mark.parametrize(
    ("repository", "precision", "taken", "warnings"),
    [
        ("me/both", "fp16", HALF, ()),
        ("me/both", "bf16", HALF, ()),
        ("me/both", "fp32", FULL, ()),
        ("me/both", None, FULL, ()),
        ("me/full", "fp16", FULL, ()),
        ("me/half", "fp16", HALF, ()),
        ("me/half", "fp32", HALF, ("its repository has weights in half precision only",)),
    ],
)
def test_a_precision_names_the_files_of_a_checkpoint(
    repository: str, precision: Precision | None, taken: bytes, warnings: tuple[str, ...], weights: Path
) -> None:
    found = fetched(weights, repository, precision)
    assert found.warnings == warnings
    assert (weights / repository / f"{UNET}.safetensors").read_bytes() == taken
    assert (weights / repository / f"{VAE}.safetensors").read_bytes() == taken
    assert found.entry["dtype"] == "float32"  # on a CPU half precision is of no use


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp16", "float16"), ("bf16", "bfloat16"), ("fp32", "float32"), (None, "float16")],
)
def test_a_precision_names_the_dtype_on_a_gpu(precision: Precision | None, dtype: str, weights: Path) -> None:
    assert fetched(weights, "me/both", precision, on_cpu=False).entry["dtype"] == dtype


@pytest.mark.parametrize(("precision", "taken"), [("fp16", HALF), ("fp32", FULL), (None, FULL)])
def test_a_precision_names_the_file_of_a_vae(
    precision: Precision | None, taken: bytes, weights: Path
) -> None:
    found = fetched(weights, "me/vae", precision)
    assert found.kind == "vae"
    assert (weights / "me/vae/diffusion_pytorch_model.safetensors").read_bytes() == taken
