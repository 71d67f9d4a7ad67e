"""The noise schedule of the small checkpoints that do not match flows."""

from __future__ import annotations

from typing import Any

SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.03,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}
"""The noise schedule of these checkpoints, which any scheduler that a request names takes over.

With betas up to 0.012, as in Stable Diffusion, the mean of a flat ground is still visible in the last noise,
once for each of its pixels, and networks read colours there instead of in the prompt (Lin et al. 2023,
"Common Diffusion Noise Schedules and Sample Steps are Flawed").
"""
