"""What a recipe says of LoRA, under the names that peft has for it; the module imports neither torch nor peft."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class LoraSettings:
    """A low-rank adapter in place of the encoder's weights (Hu et al. 2021, arXiv 2106.09685).

    Args:
        r: Rank of an adapter: its two matrices are (r, inputs) and (outputs, r). Our choice.
        lora_alpha: What an adapter adds to its layer is multiplied by `lora_alpha / r`. Our choice.
        target_modules: Names of the encoder's linear layers that get one, as `model.named_modules()` ends them. Queries
            and values are the paper's (section 5.1), so our choice here.
        lora_dropout: Dropout of what enters an adapter. Our choice.
    """

    r: int = field(default=8, metadata={"at_least": 1, "at_most": 4096})
    lora_alpha: float = field(default=16.0, metadata={"above": 0})
    target_modules: tuple[str, ...] = field(default=("q_proj", "v_proj"), metadata={"non_empty": True, "unique": True})
    lora_dropout: float = field(default=0.0, metadata={"at_least": 0, "at_most": 0.95})
