"""From the trainer's rank 0 to every vLLM engine: a gloo group outside torch's global one."""

from __future__ import annotations

from datetime import timedelta

import torch
from torch.distributed import PrefixStore, ProcessGroupGloo, TCPStore

_PATIENCE = timedelta(minutes=10)


class GlooCommunicator:
    """The part of vLLM's `PyNcclCommunicator` that OpenRLHF uses, for tensors in host memory.

    Rank 0, the trainer's, opens the rendezvous at ``host`` and ``port``; ranks from 1 are the engine workers.
    """

    def __init__(self, host: str, port: int, rank: int, world_size: int) -> None:
        store = TCPStore(host, port, world_size, is_master=rank == 0, timeout=_PATIENCE)
        self._store = store  # rank 0 serves the rendezvous for as long as it holds this
        self._group = ProcessGroupGloo(PrefixStore("cellduality", store), rank, world_size, timeout=_PATIENCE)

    def broadcast(self, tensor: torch.Tensor, src: int, stream: object = None) -> None:
        """Overwrite `tensor` with the one of rank `src`, byte by byte, on every other rank; blocks until done."""
        # As bytes: gloo does not know every dtype. `tensor` is contiguous on both sides (a parameter, an empty).
        self._group.broadcast(tensor.detach().view(-1).view(torch.uint8), src).wait()
