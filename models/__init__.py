"""The torch side: tensors and weights. Knows no HTTP, no asyncio, no queue and no job.

`models.styles` and `models.catalog` are plain data and import no torch, so that the front
process may read them.
"""
