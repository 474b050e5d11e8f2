"""The torch side: tensors and weights. Knows no HTTP, no asyncio, no queue and no job.

`models.styles.presets` and `models.checkpoints.catalog` are plain data and import no torch, so the
front process may read them.
"""
