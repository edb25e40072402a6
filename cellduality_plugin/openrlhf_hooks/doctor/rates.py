"""What a plan's hours rest on. None of it was measured on a card: it is what makers state, and assumed shares of it."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from cellduality_plugin.settings import Settings

CARDS = (
    ("A10", 24, 125.0, 600.0),
    ("RTX A6000", 48, 154.8, 768.0),
    ("A100", 80, 312.0, 2039.0),
    ("H200", 141, 989.0, 4800.0),
)
"""(card, GB, dense bf16 TFLOP/s, GB/s of its memory), as NVIDIA's data sheets state them; one of each size."""


class Rates(Settings):
    """The rates, each of which can be given; the description of a field says where it is from."""

    teraflops: float = Field(gt=0, allow_inf_nan=False, description="{}, data sheet: dense bf16")
    gigabytes_a_second: float = Field(gt=0, allow_inf_nan=False, description="{}, data sheet: its memory")
    compute_share: float = Field(0.35, gt=0, le=1, description="assumed: of TFLOP/s, in training and prefill")
    memory_share: float = Field(0.5, gt=0, le=1, description="assumed: of GB/s, in decoding")
    characters_a_token: float = Field(2.0, gt=0, description="assumed: gene names, where there is no tokenizer")
    response_tokens: float | None = Field(None, gt=0, description="by default as SFT's responses, else the limit")

    @classmethod
    def of(cls, gpu_memory: float, assumed: Sequence[str] = ()) -> tuple[Rates, dict[str, str]]:
        """Return the rates of the largest known card of ``gpu_memory`` bytes or fewer, and {name: where it is from}.

        ``assumed`` holds NAME=VALUE, which take precedence; a CellDualityError is raised if one cannot be read.
        """
        card, _, *stated = next((each for each in reversed(CARDS) if each[1] * 0.9e9 < gpu_memory), CARDS[0])
        given = dict(text.partition("=")[::2] for text in assumed)
        sources = {name: str(each.description).format(card) for name, each in cls.model_fields.items()}
        rates = cls.read({"teraflops": stated[0], "gigabytes_a_second": stated[1], **given}, "--assume")
        return rates, {**sources, **dict.fromkeys(given, "given")}
