"""How is it drawn? Families, denoising loop and residency; knows nothing of HTTP or accounts."""
