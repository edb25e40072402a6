"""Seeds that hang on what is drawn, not on when: the same draw in every process, group and order."""

from __future__ import annotations

import hashlib
import json


def request_seed(*parts: object) -> int:
    """Return a 31-bit seed that depends on ``parts`` alone, not on the order of requests or the process."""
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:4], "big") >> 1
