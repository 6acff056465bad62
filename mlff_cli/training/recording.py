"""A function of tensors, recorded once for all sizes and compiled.

Sizes are numbers or symbols ("B", "N"). The function may differentiate, and differentiate again:
what is recorded (make_fx) are the operations that autograd carries out, and no derivative is left
in it. Inductor fuses them and turns them into machine code.

While recording, a condition on the sizes that the function or the compiler looks at becomes a
guard. The record holds for sizes that satisfy all guards, in whatever order they come.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

Dims = Sequence[str | int]
Compiler = Callable[[GraphModule, list[Tensor]], Callable[..., Any]]

# What a symbol is while recording: primes that no layer has as its size. A condition as "B equals
# the number of Gaussians" would otherwise hold by chance, and B be 16 for good.
EXAMPLES = (23, 29, 31, 37)


def inductor(graph: GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    """Machine code of a graph, for symbolic sizes; minutes for the first time, then torch's cache.

    Args:
        graph: operations without derivatives.
        inputs: with the sizes and types of its arguments.
    """
    from torch._inductor import standalone_compile

    return standalone_compile(graph, [*inputs], donate_graph_module=True)


class Recorded:
    """A compiled function.

    Args:
        function: maps named tensors to a list of tensors; called once, with tensors that have
            sizes and types but no values.
        inputs: what it is to be called with, of any sizes.
        dims: of every input; the same symbol is the same size everywhere.
        compiler: what compiles the record.

    Attributes:
        guards: conditions on the sizes.
    """

    def __init__(
        self,
        function: Callable[[Mapping[str, Tensor]], list[Tensor]],
        inputs: Mapping[str, Tensor],
        dims: Mapping[str, Dims],
        compiler: Compiler = inductor,
    ) -> None:
        from torch._subclasses.fake_tensor import FakeTensorMode
        from torch.fx.experimental.proxy_tensor import make_fx
        from torch.fx.experimental.symbolic_shapes import ShapeEnv

        self._names = tuple(inputs)
        symbols = dict.fromkeys(d for name in inputs for d in dims[name] if isinstance(d, str))
        example = dict(zip(symbols, EXAMPLES, strict=False))
        self._shapes = ShapeEnv()
        # constants that the function brings along are no inputs, and have values
        fake = FakeTensorMode(shape_env=self._shapes, allow_non_fake_inputs=True)
        flat = [_without_values(fake, inputs[name], dims[name], example) for name in inputs]
        self._symbols = {
            d: tensor.shape[i].node.expr  # type: ignore[attr-defined]
            for name, tensor in zip(inputs, flat, strict=True)
            for i, d in enumerate(dims[name])
            if isinstance(d, str)
        }
        self._valid: dict[tuple[int, ...], bool] = {}

        def called(*tensors: Tensor) -> list[Tensor]:
            return function(dict(zip(self._names, tensors, strict=True)))

        graph = make_fx(called, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*flat)
        self._compiled = compiler(graph, flat)
        self.guards = tuple(guard.expr for guard in self._shapes.guards)

    def holds(self, **sizes: int) -> bool:
        """Whether the record is valid for these sizes, by symbol."""
        key = tuple(sizes.values())
        if key not in self._valid:
            values = {self._symbols[name]: size for name, size in sizes.items()}
            # sizes 0 and 1 are never symbols: torch treats them apart (broadcasting)
            self._valid[key] = min(key) > 1 and all(
                bool(guard.subs(values)) for guard in self.guards
            )
        return self._valid[key]

    def __call__(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """The function of these inputs, whose sizes it `holds` for."""
        outputs: list[Tensor] = self._compiled(*(inputs[name] for name in self._names))
        return outputs


def _without_values(fake: object, tensor: Tensor, dims: Dims, example: dict[str, int]) -> Tensor:
    """A tensor of the same type whose symbolic sizes are symbols."""
    from torch.fx.experimental.symbolic_shapes import DimDynamic, StatelessSymbolicContext

    sizes = [example[d] if isinstance(d, str) else d for d in dims]
    kinds = [DimDynamic.DUCK if isinstance(d, str) else DimDynamic.STATIC for d in dims]
    # DUCK: equal sizes are one symbol, and the examples differ
    context: Any = StatelessSymbolicContext(dynamic_sizes=kinds)
    blank = torch.empty(sizes, dtype=tensor.dtype, device=tensor.device)
    return fake.from_tensor(blank, symbolic_context=context)  # type: ignore[attr-defined, no-any-return]
