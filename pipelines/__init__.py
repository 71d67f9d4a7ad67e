"""How is it drawn? Families, denoising loop and residency; knows nothing of HTTP or accounts."""

import warnings

# Importing diffusers' Kolors scripts a function, of which newer torch warns whoever starts the server.
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
