"""A classifier whose rows are spread over processes, and the whole of it in every saved state."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lupctl.core.system.jobs.shards import Shard, gather_rows, own_shard


class ShardedLinear(nn.Module):
    """This process's rows of a linear layer.

    Its parameters are different in every process, so that nothing averages them. Its state is the whole layer: taking
    it needs all processes of the job, and another number of them can continue from it.

    Args:
        whole: the layer, the same in every process.
    """

    def __init__(self, whole: nn.Linear) -> None:
        super().__init__()
        self.shard = own_shard(whole.out_features)
        own = slice(self.shard.start, self.shard.stop)
        self.weight = nn.Parameter(whole.weight.detach()[own].clone())
        self.bias = nn.Parameter(whole.bias.detach()[own].clone())
        keep_whole(self, self.shard)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) to the logits of this process's classes, in float32."""
        with torch.autocast(features.device.type, enabled=False):
            return nn.functional.linear(features.to(self.weight.dtype), self.weight, self.bias)

    def finish(self, parts: int) -> None:
        """Turns the sum of the gradients of all parts of a batch into their mean."""
        for parameter in (self.weight, self.bias):
            if parameter.grad is not None:
                parameter.grad.div_(parts)


def keep_whole(module: nn.Module, shard: Shard) -> None:
    """Lets a module that has some rows of every tensor save all of them, and take its own when it loads."""

    def gather(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
        for key in own_keys(state, prefix):
            state[key] = gather_rows(state[key].detach(), shard)

    def cut(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        for key in own_keys(state, prefix):
            state[key] = state[key][shard.start : shard.stop]

    def own_keys(state: Mapping[str, Any], prefix: str) -> list[str]:
        return [key for key in state if key.startswith(prefix)]

    module.register_state_dict_post_hook(gather)  # type: ignore[no-untyped-call]
    module.register_load_state_dict_pre_hook(cut)  # type: ignore[no-untyped-call]


def keep_whole_moments(optimizer: torch.optim.Optimizer, module: ShardedLinear) -> None:
    """The same for what an optimizer keeps of a sharded layer's parameters."""
    shard = module.shard
    own = {id(module.weight), id(module.bias)}

    def change(state: dict[str, Any], work: Any) -> dict[str, Any]:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        kept = dict(state["state"])
        for number, parameter in enumerate(parameters):
            if id(parameter) in own and number in kept:
                kept[number] = {
                    name: work(value) if isinstance(value, Tensor) and value.dim() else value
                    for name, value in kept[number].items()
                }
        return {**state, "state": kept}

    optimizer.register_state_dict_post_hook(lambda _, state: change(state, lambda value: gather_rows(value, shard)))
    optimizer.register_load_state_dict_pre_hook(
        lambda _, state: change(state, lambda value: value[shard.start : shard.stop])
    )
