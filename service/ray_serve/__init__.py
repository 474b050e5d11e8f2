"""Engines on a Ray cluster: replicas of a Serve deployment behind `service.engine_client`."""

import os

LOCAL = "local"

# Ray decides this at its import. A client that reaches a cluster's ports runs code on it.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def keep_to_loopback() -> None:
    """Let a cluster of this machine alone listen to it alone; to be called before Ray's import.

    Ray turns 127.0.0.1 into the address that others reach, unless a variable says
    that no cluster is possible here, which it assumes by itself on Windows and macOS.
    """
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
