"""Errors of the torch side that an operator can cause."""


class CheckpointError(Exception):
    """A checkpoint cannot be used as it is; the message names the cure."""
