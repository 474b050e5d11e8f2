"""What the front and the engine process agree on beside messages: exit codes and environment."""

from __future__ import annotations

EXIT_SICK_DEVICE = 70
EXIT_BAD_CHECKPOINT = 78

# An engine never reaches for the hub and never runs a checkpoint's code.
SEALED = {"HF_HUB_OFFLINE": "1", "DIFFUSERS_DISABLE_REMOTE_CODE": "true"}
