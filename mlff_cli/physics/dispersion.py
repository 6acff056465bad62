# ruff: noqa: UP006, UP035, UP045 -- TorchScript reads these annotations
"""D3 dispersion with rational (Becke-Johnson) damping, without a cutoff, in float64.

    CN_i   = sum_j 1 / (1 + exp(-16 (rcov_ij/R_ij - 1)))          rcov_ij holds the factor 4/3
    W_ir   = softmax_r(-4 (CN_i - CN_r)^2)                        r: references of the element of i
    C6_ij  = sum_rs W_ir C6_rs W_js
    C8/C6  = 3 q_i q_j                                            q = r4r2
    R0_ij  = a1 sqrt(C8/C6) + a2
    E      = -1/2 sum_{i!=j} [ s6 C6/(R^6 + R0^6) + s8 C8/(R^8 + R0^8) ]
             + s9 sum_{i<j<k} C9 (3 cos_i cos_j cos_k + 1) / (R_ij R_jk R_ki)^3
                      / (1 + 6 (r0_ij r0_jk r0_ki / R_ij R_jk R_ki)^(16/3))
    C9     = sqrt(C6_ij C6_jk C6_ki)                              r0 = 4/3 of the pair's vdW radius

Sources: Grimme, Antony, Ehrlich, Krieg, J. Chem. Phys. 132, 154104 (2010), doi 10.1063/1.3382344;
Grimme, Ehrlich, Goerigk, J. Comput. Chem. 32, 1456 (2011), doi 10.1002/jcc.21759. Reference data:
packages tad-dftd3 and tad-mctc (Apache-2.0). Formulas are in atomic units.

There is no cutoff, so every far atom counts 1/(1 + exp(16)) = 1.1e-7 towards a coordination number;
that is part of the method, and far fragments add up only to about that precision.

References run over one flat list of those that exist, so an element has no empty slots to weight,
and a softmax subtracts the largest exponent: far from every reference the nearest one remains.
"""

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from mlff_cli.core.elements import MAX_Z, SYMBOLS
from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.core.units import BOHR, HARTREE
from mlff_cli.physics.dispersion_parameters import D3Parameters

MAX_ELEMENT = 94  # D3 was parametrised for H to Pu


class D3BJ(nn.Module):
    """D3(BJ) energy of a batch of molecules; scriptable, and self-contained once scripted.

    Args:
        parameters: s6, s8, a1, a2 and s9 of the functional.
        species: atomic numbers to keep reference data for; None keeps all 94 (about 0.8 MB).

    Raises:
        UsageError: `species` is empty or holds an element outside 1..94.
    """

    # TorchScript sees constants of the class, not of the module.
    BOHR: Final[float] = BOHR
    HARTREE: Final[float] = HARTREE
    STEEPNESS: Final[float] = 16.0  # k1 of the coordination number
    WIDTH: Final[float] = 4.0  # k3 of the reference weights
    ATM_POWER: Final[float] = 16.0 / 3.0  # (alpha + 2)/3 with alpha = 14
    NEAREST: Final[float] = 1e-10  # Bohr^2: atoms in one place give no NaN gradient

    species_index: Tensor
    r4r2: Tensor
    rcov: Tensor
    r0_atm: Tensor
    reference_species: Tensor
    reference_cn: Tensor
    reference_c6: Tensor

    def __init__(self, parameters: D3Parameters, species: Sequence[int] | None = None) -> None:
        super().__init__()
        wanted = range(1, MAX_ELEMENT + 1) if species is None else species
        chosen = sorted({int(z) for z in wanted})
        outside = [z for z in chosen if not 1 <= z <= MAX_ELEMENT]
        if outside or not chosen:
            raise UsageError(
                f"D3 knows the elements 1 to {MAX_ELEMENT}, found {outside or 'no element at all'}",
                remedy="leave the dispersion correction or these elements out",
            )
        self.s6 = float(parameters.s6)
        self.s8 = float(parameters.s8)
        self.s9 = float(parameters.s9)
        self.a1 = float(parameters.a1)
        self.a2 = float(parameters.a2)
        for name, table in _reference_tables(chosen).items():
            self.register_buffer(name, table)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "D3BJ":
        """Moves with the model between devices, but stays float64 under `.float()` and `.half()`.

        Rounding the reference data would cost six digits that no later cast brings back.
        """
        exact = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, table in exact.items():
            moved = self._buffers[name]
            if table is not None and moved is not None:
                self._buffers[name] = table.to(moved.device)
        return self

    def forward(self, coord: Tensor, numbers: Tensor) -> Tensor:
        """Dispersion energy.

        Args:
            coord: positions (B, N, 3) in angstrom.
            numbers: atomic numbers (B, N); 0 is padding, whatever its coordinates hold.

        Returns:
            energy (B,) in eV, float64.

        Raises:
            DataError: an element that was not kept (torch.jit.Error from a scripted module).
        """
        real = numbers != 0  # [b, i]
        species = self._species(numbers)  # [b, i]
        # Inputs of masked entries are replaced, not only their results: NaN * 0 is NaN backwards.
        position = coord.to(torch.float64).masked_fill(~real.unsqueeze(-1), 0.0) / self.BOHR
        n_atoms = numbers.shape[1]
        other = ~torch.eye(n_atoms, dtype=torch.bool, device=coord.device)  # [i, j]
        pair = real.unsqueeze(2) & real.unsqueeze(1) & other  # [b, i, j]
        delta = position.unsqueeze(2) - position.unsqueeze(1)  # [b, i, j, 3]
        r2 = delta.square().sum(-1)  # [b, i, j] Bohr^2
        r2 = torch.where(pair, r2, torch.ones_like(r2)).clamp(min=self.NEAREST)

        c6 = self._c6(self._coordination(r2, pair, species), species)  # [b, i, j]
        q = self.r4r2[species]  # [b, i]
        ratio = 3.0 * q.unsqueeze(2) * q.unsqueeze(1)  # [b, i, j] C8/C6
        r0 = self.a1 * ratio.sqrt() + self.a2
        r6 = r2 * r2 * r2
        r06 = r0**6
        e6 = self.s6 * c6 / (r6 + r06)
        e8 = self.s8 * c6 * ratio / (r6 * r2 + r06 * r0 * r0)
        energy = -0.5 * torch.where(pair, e6 + e8, torch.zeros_like(e6)).sum((1, 2))  # [b]
        if self.s9 != 0.0:
            energy = energy + self.s9 * self._three_body(r2, c6, pair, species)
        return energy * self.HARTREE

    def _species(self, numbers: Tensor) -> Tensor:
        """Row of every atom in the tables [b, i]; padding takes row 0 and is masked later."""
        known = (numbers >= 0) & (numbers < self.species_index.shape[0])  # [b, i]
        row = self.species_index[torch.where(known, numbers, torch.zeros_like(numbers))]
        refused = (~known) | ((numbers != 0) & (row < 0))
        if bool(refused.any()):
            z = int(numbers[refused][0].item())
            if torch.jit.is_scripting():  # type: ignore[attr-defined]
                raise ValueError(f"element {z} is not among those this D3 correction was made for")
            self._refuse(z)
        return row.clamp(min=0)

    @torch.jit.unused
    def _refuse(self, z: int) -> None:
        if not 1 <= z <= MAX_ELEMENT:
            raise DataError(
                f"D3 covers the elements 1 to {MAX_ELEMENT}, found atomic number {z}",
                remedy="leave the molecule out, or use a model without dispersion",
            )
        kept = [SYMBOLS[k] for k in range(1, MAX_ELEMENT + 1) if int(self.species_index[k]) >= 0]
        raise DataError(
            f"this D3 correction was made for {', '.join(kept)}, found {SYMBOLS[z]} ({z})",
            remedy="make it again with this element in its species",
        )

    def _coordination(self, r2: Tensor, pair: Tensor, species: Tensor) -> Tensor:
        """Coordination numbers CN [b, i]."""
        radius = self.rcov[species]  # [b, i]
        rcov = radius.unsqueeze(2) + radius.unsqueeze(1)  # [b, i, j]
        count = torch.sigmoid(self.STEEPNESS * (rcov / r2.sqrt() - 1.0))
        return torch.where(pair, count, torch.zeros_like(count)).sum(2)

    def _c6(self, cn: Tensor, species: Tensor) -> Tensor:
        """C6 coefficients [b, i, j] of all pairs."""
        exponent = -self.WIDTH * (cn.unsqueeze(2) - self.reference_cn).square()  # [b, i, r]
        foreign = species.unsqueeze(2) != self.reference_species  # [b, i, r]
        weight = torch.softmax(exponent.masked_fill(foreign, -float("inf")), dim=2)
        return weight @ self.reference_c6 @ weight.transpose(1, 2)

    def _three_body(self, r2: Tensor, c6: Tensor, pair: Tensor, species: Tensor) -> Tensor:
        """Axilrod-Teller-Muto energy [b] (Hartree, s9 = 1): one i at a time, all j < k above it."""
        r0 = self.r0_atm[species.unsqueeze(2), species.unsqueeze(1)]  # [b, i, j] Bohr
        n_atoms = int(r2.shape[1])
        energy = torch.zeros(r2.shape[0], dtype=r2.dtype, device=r2.device)  # [b]
        for i in range(n_atoms - 2):
            above = torch.triu_indices(n_atoms - i - 1, n_atoms - i - 1, 1, device=r2.device)
            j, k = above[0] + i + 1, above[1] + i + 1  # [t]
            ij, jk, ik = r2[:, i, j], r2[:, j, k], r2[:, i, k]  # [b, t] Bohr^2
            square = ij * jk * ik
            product = square.sqrt()
            c9 = (c6[:, i, j] * c6[:, j, k] * c6[:, i, k]).sqrt()
            radii = r0[:, i, j] * r0[:, j, k] * r0[:, i, k]
            damping = 1.0 / (1.0 + 6.0 * (radii / product) ** self.ATM_POWER)
            # 8 cos_i cos_j cos_k by the law of cosines, times the squared distances
            cosines = (ij + ik - jk) * (ij + jk - ik) * (ik + jk - ij)
            angular = (0.375 * cosines / square + 1.0) / (square * product)
            triple = pair[:, i, j] & pair[:, j, k] & pair[:, i, k]  # [b, t]
            term = c9 * angular * damping
            energy = energy + torch.where(triple, term, torch.zeros_like(term)).sum(1)
        return energy


def _reference_tables(species: Sequence[int]) -> dict[str, Tensor]:
    """Buffers of D3BJ for these atomic numbers (S of them, R references), in atomic units."""
    # Imported here: the packages serve construction only, and a scripted module needs neither.
    from tad_dftd3.data import R4R2
    from tad_dftd3.reference import Reference
    from tad_mctc.data.radii import COV_D3, VDW_PAIRWISE
    from tad_mctc.units.length import AU2AA

    exact, cpu = torch.float64, torch.device("cpu")

    def radii(bohr: Tensor, decimals: int) -> Tensor:
        # The packages give Bohr by an older constant, with rounding noise; the tables behind them
        # are in angstrom with so many decimals. From there, our own constant matches dftd3.
        return torch.round(bohr * AU2AA, decimals=decimals) / BOHR

    z = torch.tensor(list(species))  # [s]
    index = torch.full((MAX_Z + 1,), -1)  # [Z]
    index[z] = torch.arange(len(species))
    reference = Reference(dtype=exact, device=cpu)
    cn = reference.cn[z]  # [s, slot]; -1 marks a slot without a reference
    row, slot = torch.nonzero(cn >= 0, as_tuple=True)  # [r]
    return {
        "species_index": index,
        "r4r2": R4R2(dtype=exact, device=cpu)[z],  # [s]
        "rcov": 4.0 / 3.0 * radii(0.75 * COV_D3(dtype=exact, device=cpu)[z], 2),  # [s] Bohr
        "r0_atm": 4.0 / 3.0 * radii(VDW_PAIRWISE(dtype=exact, device=cpu)[z][:, z], 4),  # [s, s]
        "reference_species": row,  # [r]
        "reference_cn": cn[row, slot],  # [r]
        "reference_c6": reference.c6[
            z[row].unsqueeze(1), z[row].unsqueeze(0), slot.unsqueeze(1), slot.unsqueeze(0)
        ],  # [r, r]
    }
