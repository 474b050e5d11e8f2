"""The engine process, one per device: no FastAPI and no asyncio in it."""
