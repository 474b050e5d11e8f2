"""Engines on a Ray cluster: replicas of a Serve deployment behind the seam of `service.client`."""

import os

# Ray decides this at its import. Whoever reaches a cluster's ports runs code on it.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
