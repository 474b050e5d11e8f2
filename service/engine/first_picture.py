"""A first image, to warm an engine up before it serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.errors import CheckpointError
from service.protocol.jobs import Failed, GenerationParams, Job

if TYPE_CHECKING:
    from service.engine.engine import Engine


def warm_up(engine: Engine) -> None:
    """Make one picture of the default shape, so that the first caller waits for no first time.

    Raises CheckpointError when no picture comes out: such an engine must not say that it is ready.
    """
    params = GenerationParams(
        prompt="",
        height=512,
        width=512,
        num_inference_steps=1,
        strength=1.0,
        guidance_scale=1.0,
        seeds=(0,),
    )
    image = np.zeros((params.height, params.width, 3), dtype=np.uint8)
    engine.add(Job("warm-up", params, image, timeout_s=float("inf")))
    while engine.has_work():
        if any(isinstance(outcome, Failed) for outcome in engine.step()):
            raise CheckpointError(
                "the checkpoint loads, but makes no picture on this device in this dtype: the log "
                "says more; REFINE_DTYPE=float32 may help"
            )
