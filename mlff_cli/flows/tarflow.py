"""An autoregressive transformer flow on body-fixed positions.

    v (3N-6 body-fixed coordinates) -> z = (v - mean) / spread -> layers -> v' = mean + spread z'

    layer, over atoms t:    z'_t = exp(a_t) z_t + b_t,    (a_t, b_t) = transformer(z_<t)
    log_det of a layer:     sum of all a_t

Forward sees all of z and runs at once; inverse finds one atom after the other, and keeps keys and
values of those before. Between layers the order of the atoms is turned round, and turned back, so
that nothing but the a_t enters the determinant. The first atom's a and b are parameters: it moves
as well. a = c tanh(.) is bounded, there is no dropout, and the last weights begin as zeros: the
flow starts as the identity, whose loss is the naive swap's. Mean and spread are those of both
ensembles together.

Positions are Cartesian: unlike `ic_spline`, nothing keeps a stereocentre's hand but the energy.

After TarFlow (Zhai et al., arXiv:2412.06329).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlff_cli.flows.body_frame import BodyFrame
from mlff_cli.flows.flow import Flow, require_finite
from mlff_cli.flows.molecule import FlowMolecule
from mlff_cli.flows.spec import FlowSpec
from mlff_cli.flows.standardisation import require_spread

Cache = list[tuple[Tensor, Tensor]]  # keys and values (B, heads, t, e) of the atoms so far


class Block(nn.Module):
    """Attention and a perceptron, each normalised before and added.

    Args:
        embedding: features E.
        heads: of the attention.
    """

    def __init__(self, embedding: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(embedding)
        self.qkv = nn.Linear(embedding, 3 * embedding)
        self.out = nn.Linear(embedding, embedding)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(embedding),
            nn.Linear(embedding, 4 * embedding),
            nn.GELU(),
            nn.Linear(4 * embedding, embedding),
        )

    def forward(
        self, h: Tensor, before: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Features after the block.

        Args:
            h: (B, t, E); with `before` one atom (t = 1), which sees all before it and itself.
            before: keys and values (B, heads, s, e) of the atoms before.

        Returns:
            features (B, t, E); keys and values of all atoms so far.
        """
        n, t, _ = h.shape
        q, k, v = (
            part.view(n, t, self.heads, -1).transpose(1, 2)
            for part in self.qkv(self.norm_attention(h)).chunk(3, dim=-1)
        )
        if before is not None:
            k, v = torch.cat([before[0], k], dim=2), torch.cat([before[1], v], dim=2)
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=before is None)
        h = h + self.out(seen.transpose(1, 2).reshape(n, t, -1))
        return h + self.perceptron(h), (k, v)


class AutoregressiveLayer(nn.Module):
    """Each atom scaled and shifted by what the atoms before it say.

    Args:
        used: (T, 3) bool, coordinates of the atoms that exist.
        spec: embedding, heads, blocks, max_log_scale.
    """

    used: Tensor

    def __init__(self, used: Tensor, spec: FlowSpec) -> None:
        super().__init__()
        self.max_log_scale = spec.max_log_scale
        self.register_buffer("used", used, persistent=False)
        self.read = nn.Linear(3, spec.embedding)
        self.place = nn.Parameter(0.02 * torch.randn(len(used), spec.embedding))
        self.start = nn.Parameter(0.02 * torch.randn(spec.embedding))
        self.blocks = nn.ModuleList(Block(spec.embedding, spec.heads) for _ in range(spec.blocks))
        self.norm = nn.LayerNorm(spec.embedding)
        self.write = nn.Linear(spec.embedding, 6)
        nn.init.zeros_(self.write.weight)
        nn.init.zeros_(self.write.bias)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Z' (B, T, 3) and the log-determinant (B,) of z (B, T, 3), all atoms at once."""
        first = self.start.expand(len(z), 1, -1)
        h = torch.cat([first, self.read(z[:, :-1])], dim=1) + self.place
        for block in self.blocks:
            h, _ = block(h)
        a, b = self._scale_and_shift(h, self.used)
        return a.exp() * z + b, a.sum((1, 2))

    def inverse(self, z: Tensor, cached: bool = True) -> tuple[Tensor, Tensor]:
        """What `forward` undoes, and the log-determinant (B,) of undoing it; atom after atom.

        Args:
            z: (B, T, 3).
            cached: keep keys and values; without, all atoms so far are computed again.
        """
        found: list[Tensor] = []
        total = z.new_zeros(len(z))
        cache: Cache = []
        h_in = self.start.expand(len(z), 1, -1) + self.place[:1]
        for t in range(z.shape[1]):
            if t and cached:
                h_in = self.read(found[-1])[:, None] + self.place[t : t + 1]
            elif t:
                step = self.read(found[-1])[:, None] + self.place[t : t + 1]
                h_in = torch.cat([h_in, step], dim=1)
            h, cache = self._blocks(h_in, cache if cached else [])
            a, b = self._scale_and_shift(h[:, -1], self.used[t])
            found.append((z[:, t] - b) * (-a).exp())
            total = total - a.sum(1)
        return torch.stack(found, dim=1), total

    def _blocks(self, h: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Features of the atoms given, and the cache with theirs."""
        after: Cache = []
        for k, block in enumerate(self.blocks):
            h, seen = block(h, cache[k] if cache else None)
            after.append(seen)
        return h, after

    def _scale_and_shift(self, h: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
        """A and b (..., 3) of features (..., E); zero where there is no coordinate."""
        a, b = self.write(self.norm(h)).chunk(2, dim=-1)
        c = self.max_log_scale
        return torch.where(used, c * (a / c).tanh(), 0.0), torch.where(used, b, 0.0)


class TarFlow(Flow):
    """Autoregressive layers between the frames of both ensembles.

    Args:
        molecule: gives the frame and the order of the atoms.
        spec: layers and their sizes.
        dtype: of weights and statistics.
    """

    mean: Tensor
    spread: Tensor
    slot: Tensor

    def __init__(self, molecule: FlowMolecule, spec: FlowSpec, dtype: torch.dtype) -> None:
        super().__init__()
        self.frame = BodyFrame(molecule.zmatrix)
        used = torch.ones(molecule.n_atoms - 1, 3, dtype=torch.bool)
        used[0, 1:] = False  # the second atom: ln x
        used[1, 2:] = False  # the third: x, ln y
        self.register_buffer("slot", used.flatten().nonzero().squeeze(1), persistent=False)
        self.register_buffer("mean", torch.zeros(molecule.n_coordinates))
        self.register_buffer("spread", torch.ones(molecule.n_coordinates))
        orders = (used if k % 2 == 0 else used.flip(0) for k in range(spec.layers))
        self.layers = nn.ModuleList(AutoregressiveLayer(order, spec) for order in orders)
        self.to(dtype)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `Flow.forward`."""
        v, ln_v = self.frame(x)
        z, total = self._atoms(v), -ln_v
        for k, layer in enumerate(self.layers):
            z, ladj = layer(z.flip(1) if k % 2 else z)
            z, total = z.flip(1) if k % 2 else z, total + ladj
        v = self._coordinates(z)
        return self.frame.positions(v), total + self.frame.log_volume(v)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """See `Flow.inverse`."""
        v, ln_v = self.frame(y)
        z, total = self._atoms(v), -ln_v
        for k, layer in reversed(list(enumerate(self.layers))):
            z, ladj = layer.inverse(z.flip(1) if k % 2 else z)  # type: ignore[operator]
            z, total = z.flip(1) if k % 2 else z, total + ladj
        v = self._coordinates(z)
        return self.frame.positions(v), total + self.frame.log_volume(v)

    @torch.no_grad()
    def fit(self, source: Tensor, target: Tensor, ratio: float | None = None) -> None:
        """See `Flow.fit`."""
        require_finite(source, "source")
        require_finite(target, "target")
        v, _ = self.frame(torch.cat([source, target]).to(self.mean))
        spread = v.std(0)
        require_spread(spread, len(v))
        self.mean.copy_(v.mean(0))
        self.spread.copy_(spread)

    def _atoms(self, v: Tensor) -> Tensor:
        """Standardised coordinates (B, 3N-6) as (B, N-1, 3), atom by atom, with zeros."""
        z = (v - self.mean) / self.spread
        rows = z.new_zeros(len(v), 3 * (self.frame.n_atoms - 1))
        return rows.index_copy(1, self.slot, z).view(len(v), -1, 3)

    def _coordinates(self, z: Tensor) -> Tensor:
        """What `_atoms` undoes."""
        return z.flatten(1)[:, self.slot] * self.spread + self.mean
