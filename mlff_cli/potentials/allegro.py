"""Allegro, from nequip-allegro: the learnt energy of beads. The only module that builds one.

    E_i = s sum_j E_ij(R_i, {R_k: r_ik < r_c})

E_ij: energy of the edge from bead i to its neighbour j, which knows the neighbours of i alone; s:
energy scale. Musaelian et al., Nat. Commun. 14, 579 (2023); nequip's normalisation is included.

Allegro itself gives mirror images the same energy, and a chain of C-alpha beads could then fold
into either hand. `chiral` builds the harmonics as if they were even under inversion: rotations are
kept, mirrors are not, and two or more layers can tell the hand of four beads (r_ij x r_ik . r_il).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator
from torch import Tensor, nn

from mlff_cli.core.errors import ConfigError
from mlff_cli.core.runtime import require
from mlff_cli.potentials.allegro_contraction import Contraction
from mlff_cli.potentials.nequip_state import EXTRA, nequip_state

DTYPES = {torch.float32: "float32", torch.float64: "float64"}


class AllegroSpec(BaseModel):
    """What determines an Allegro; the defaults are the size `default`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type_names: tuple[str, ...] = Field(min_length=1)
    """Names of the beads' types, in the order of their numbers."""
    cutoff: PositiveFloat = 12.0
    """Distance up to which a bead has neighbours, angstrom."""
    l_max: int = Field(default=2, ge=0, le=6)
    """Highest order of the spherical harmonics."""
    chiral: bool = True
    """Whether mirror images may differ in energy."""
    parity: bool = True
    """Where not chiral: whether tensors of both parities are kept, as nequip-allegro has it."""
    num_layers: PositiveInt = 2
    """Layers; with each, an edge meets one neighbour more."""
    num_scalar_features: PositiveInt = 64
    """Invariant features of an edge."""
    num_tensor_features: PositiveInt = 16
    """Channels of its tensor features."""
    mlp_width: PositiveInt = 64
    """Width of the hidden layers; of the last, the readout, half of it."""
    mlp_depth: PositiveInt = 1
    """Hidden layers of each multilayer perceptron."""
    num_bessels: PositiveInt = 8
    """Bessel functions that a distance is expanded in."""
    cutoff_exponent: int = Field(default=6, ge=2)
    """p of the polynomial that takes an edge to zero at the cutoff."""
    avg_num_neighbors: PositiveFloat = 10.0
    """Neighbours of a bead on average, which sums over neighbours are normalised by."""
    energy_scale: PositiveFloat = 1.0
    """s, kcal/mol: of the order of the forces' root mean square in kcal/mol/angstrom."""
    seed: int = Field(default=0, ge=0)
    """Of the first weights."""

    @field_validator("type_names")
    @classmethod
    def _names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError(f"names of types must differ, found {', '.join(names)}")
        if odd := [name for name in names if not name or any(c.isspace() for c in name)]:
            raise ValueError(f"a name of a type must be one word, found {odd[0]!r}")
        return names

    @classmethod
    def of(cls, size: str, type_names: Sequence[str], **changes: Any) -> Self:
        """A spec of one of the SIZES.

        Args:
            size: small, default or large.
            type_names: names of the beads' types.
            changes: fields that differ from the size's.

        Raises:
            ConfigError: there is no such size.
            pydantic.ValidationError: an unknown field or a value that makes no sense.
        """
        if size not in SIZES:
            raise ConfigError(
                f"no Allegro has size {size!r}", remedy=f"choose one of {', '.join(SIZES)}"
            )
        return cls(type_names=tuple(type_names), **{**SIZES[size], **changes})


SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "l_max": 1,
        "num_scalar_features": 16,
        "num_tensor_features": 8,
        "mlp_width": 32,
    },
    "default": {},
    "large": {
        "num_scalar_features": 128,
        "num_tensor_features": 32,
        "mlp_width": 128,
    },
}
"""What each size sets; everything else keeps its default."""


class Allegro(nn.Module):
    """Energies of beads; TorchScript can compile it.

    Positions and edge vectors are kept in float64 and the network computes in `dtype`, which stays:
    `.to(dtype)` moves nothing but devices. To change it, build another and load the weights.

    Args:
        spec: what to build.
        dtype: float32 or float64.

    Attributes:
        spec: what it was built of.
        network: nequip's own AllegroModel, without derivatives, with a faster tensor product. What
            is exported or uses nequip's kernels is `plain_network`.

    Raises:
        ConfigError: another dtype.
        MissingDependencyError: nequip or nequip-allegro is not installed.
    """

    def __init__(self, spec: AllegroSpec, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        if dtype not in DTYPES:
            raise ConfigError(f"Allegro computes in float32 or float64, not in {dtype}")
        self.spec = spec
        self.dtype = dtype
        self.network = _network(spec, DTYPES[dtype])
        _contract_at_centres(self.network)

    def forward(self, positions: Tensor, types: Tensor, edges: Tensor) -> Tensor:
        """Energy of each bead.

        Args:
            positions: (N, 3) angstrom.
            types: (N,) int64 numbers of types, in the order of `spec.type_names`.
            edges: (2, E) int64 centres and their neighbours, each pair in both directions; what
                lies beyond the cutoff adds nothing. Two beads of an edge must not coincide
                (`bead_edges.edges_of` leaves such edges out): they have no direction.

        Returns:
            (N,) float64 kcal/mol; 0 for a bead without neighbours.
        """
        out = self.network(
            {"pos": positions.to(torch.float64), "atom_types": types, "edge_index": edges}
        )
        energy: Tensor = out["atomic_energy"]
        return energy.squeeze(-1)

    def plain_network(self) -> nn.Module:
        """Nequip's own AllegroModel with these weights, as its exporters and kernels expect it."""
        plain = _network(self.spec, DTYPES[self.dtype])
        plain.load_state_dict(self.network.state_dict())
        return plain.to(next(self.parameters()).device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def move(t: Tensor) -> Tensor:
            moved = fn(t)
            return moved if moved.dtype == t.dtype else t.to(moved.device)

        super()._apply(move, recurse)  # type: ignore[no-untyped-call]
        return self


def _network(spec: AllegroSpec, dtype: str) -> nn.Module:
    """The model of a spec, as nequip-allegro builds it."""
    width, depth = spec.mlp_width, spec.mlp_depth
    with nequip_state():
        build = require("allegro.model.allegro_models", EXTRA).FullAllegroModel
        Irreps = require("e3nn.o3", EXTRA).Irreps
        harmonics = Irreps.spherical_harmonics(spec.l_max, p=1 if spec.chiral else -1)
        tensors = harmonics
        if spec.parity and not spec.chiral:
            tensors = Irreps([(1, (order, p)) for order in range(spec.l_max + 1) for p in (1, -1)])
        model: nn.Module = build(
            seed=spec.seed,
            model_dtype=dtype,
            type_names=list(spec.type_names),
            r_max=spec.cutoff,
            irreps_edge_sh=repr(harmonics),
            tensor_track_allowed_irreps=tensors,
            radial_chemical_embed={
                "_target_": "allegro.nn.TwoBodyBesselScalarEmbed",
                "num_bessels": spec.num_bessels,
                "polynomial_cutoff_p": spec.cutoff_exponent,
            },
            scalar_embed_mlp_hidden_layers_depth=depth,
            scalar_embed_mlp_hidden_layers_width=width,
            num_layers=spec.num_layers,
            num_scalar_features=spec.num_scalar_features,
            num_tensor_features=spec.num_tensor_features,
            allegro_mlp_hidden_layers_depth=depth,
            allegro_mlp_hidden_layers_width=width,
            readout_mlp_hidden_layers_depth=depth,
            readout_mlp_hidden_layers_width=max(1, width // 2),
            avg_num_neighbors=spec.avg_num_neighbors,
            per_type_energy_scales=spec.energy_scale,
            do_derivatives=False,
        )
    return model


def _contract_at_centres(network: nn.Module) -> None:
    """Put ours in the place of its tensor products."""
    contracter = require("allegro.nn._strided", EXTRA).Contracter
    for layers in [m for m in network.modules() if isinstance(m, nn.ModuleList)]:
        for k, layer in enumerate(layers):
            if type(layer) is contracter:
                product: Any = layer
                layers[k] = Contraction(product.weights, product.w3j, product.w3j_is_ij_diagonal)
