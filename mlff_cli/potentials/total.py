"""The whole energy of a molecule at one fidelity: what an artifact computes.

E = E_network(R, Z, Q, mult) + sum_i SAE(Z_i) + E_dispersion(R, Z),        F = -dE/dR

The network works in its own precision, atomic energies and dispersion in float64: at 1e6 eV a
float32 sum would lose a tenth of an electronvolt. Numbers are plain atomic numbers, 0 pads.
"""
# ruff: noqa: UP006, UP035, UP045

import math
from typing import Dict, List, Mapping, Optional, Sequence

import torch
from torch import Tensor, nn

from mlff_cli.core.elements import MAX_Z
from mlff_cli.core.errors import DataError
from mlff_cli.potentials.aimnet2.model import AIMNet2

DOUBLE_DIGITS = 53  # binary digits of a float64


class TotalPotential(nn.Module):
    """Energy, forces and charges of molecules in plain atomic numbers; TorchScript can compile it.

    Args:
        network: of one fidelity.
        sae: atomic energy of each element, eV.
        species: atomic numbers the potential may be asked for; None means those of `sae`.
        dispersion: maps coord (B, N, 3) float64 angstrom and numbers (B, N) to energy (B,) eV.

    Raises:
        DataError: an element of `species` has no atomic energy.
    """

    supported: Tensor
    sae_digits: Tensor
    sae_exponent: Tensor

    def __init__(
        self,
        network: AIMNet2,
        sae: Mapping[int, float],
        species: Optional[Sequence[int]] = None,
        dispersion: Optional[nn.Module] = None,
    ) -> None:
        super().__init__()
        wanted = sorted(sae) if species is None else sorted(species)
        absent = [z for z in wanted if z not in sae]
        if absent:
            raise DataError(
                f"no atomic energy (SAE) for Z = {', '.join(map(str, absent))}",
                remedy="fit the SAE on data that holds these elements: `mlff calc-sae`",
            )
        self.max_z = MAX_Z
        self.network = network
        self.dispersion = dispersion
        self.species: List[int] = [int(z) for z in wanted]
        # as integers, SAE = digits * 2^exponent, which `.float()` on the module cannot round;
        # TorchScript has no `view(dtype)`, and its `torch.tensor` rounds floats to float32
        split = [math.frexp(sae.get(z, 0.0)) for z in range(MAX_Z + 1)]
        digits = torch.tensor([int(m * 2.0**DOUBLE_DIGITS) for m, _ in split])
        exponent = torch.tensor([e - DOUBLE_DIGITS for _, e in split])
        self.register_buffer("sae_digits", digits, persistent=False)
        self.register_buffer("sae_exponent", exponent, persistent=False)
        supported = torch.zeros(MAX_Z + 1, dtype=torch.bool)
        supported[[0, *self.species]] = True
        self.register_buffer("supported", supported, persistent=False)

    def forward(self, data: Dict[str, Tensor]) -> Dict[str, Tensor]:
        """Energy, forces and charges of a padded batch, or of one molecule.

        Args:
            data: coord (B, N, 3) angstrom; numbers (B, N) atomic numbers, 0 = padding; charge (B,)
                e, 0 when missing; mult (B,), 1 when missing. One molecule may leave out the axis
                B. The dictionary and its tensors are not changed; other keys are ignored.

        Returns:
            energy (B,) eV float64; forces (B, N, 3) eV/angstrom in the type of coord; charges and
            spin_charges (B, N) e. They can be differentiated again when coord requires a gradient,
            else they are detached.

        Raises:
            ValueError: a shape is wrong, or an element is not supported.
            RuntimeError: called under torch.inference_mode, which allows no forces.
        """
        given = data["coord"]
        if given.detach().clone().is_inference():
            raise RuntimeError(
                "forces need gradients, which torch.inference_mode forbids; use torch.no_grad"
            )
        single = given.dim() == 2
        coord = given.unsqueeze(0) if single else given
        numbers = data["numbers"].to(torch.int64)
        numbers = numbers.unsqueeze(0) if numbers.dim() == 1 else numbers
        self.check(coord, numbers)
        b = numbers.shape[0]
        dtype = self.network.afv.weight.dtype
        inputs = {
            "numbers": numbers,
            "charge": self.per_molecule(data, "charge", 0.0, b, coord),
            "mult": self.per_molecule(data, "mult", 1.0, b, coord),
        }

        with_gradients = torch.is_grad_enabled()
        keep = with_gradients and given.requires_grad
        # a context manager cannot be used here: TorchScript ignores torch.enable_grad
        torch.set_grad_enabled(True)
        if keep:
            x = coord.to(torch.float64)  # [b, i, xyz]
        else:
            x = coord.detach().clone().to(torch.float64).requires_grad_(True)
        padding = (numbers == 0).unsqueeze(-1)
        r = x.masked_fill(padding, 0.0)  # padding may hold anything, NaN included
        inputs["coord"] = r.to(dtype)
        out = self.network(inputs)

        energy = out["energy"].to(torch.float64) + self.atomic_energies(numbers)  # [b]
        if self.dispersion is not None:
            energy = energy + self.dispersion(r, numbers)
        gradient = torch.autograd.grad([energy.sum()], [x], create_graph=keep, allow_unused=True)[0]
        torch.set_grad_enabled(with_gradients)
        forces = torch.zeros_like(x) if gradient is None else -gradient
        if given.is_floating_point():
            forces = forces.to(given.dtype)

        result = {
            "energy": energy,
            "forces": forces,
            "charges": out["charges"],
            "spin_charges": out["spin_charges"],
        }
        final: Dict[str, Tensor] = {}
        for name, value in result.items():
            kept = value if keep else value.detach()
            final[name] = kept[0] if single else kept
        return final

    def atomic_energies(self, numbers: Tensor) -> Tensor:
        """Sum of atomic energies (B,) eV float64 of numbers (B, N)."""
        scale = torch.pow(2.0, self.sae_exponent.to(torch.float64))
        return (self.sae_digits.to(torch.float64) * scale)[numbers].sum(dim=1)

    def check(self, coord: Tensor, numbers: Tensor) -> None:
        """Refuse shapes that do not fit and elements outside `species`."""
        if coord.dim() != 3 or coord.shape[2] != 3 or numbers.shape != coord.shape[:2]:
            raise ValueError(
                "coord must be (B, N, 3) and numbers (B, N), "
                f"found {list(coord.shape)} and {list(numbers.shape)}"
            )
        known = self.supported[numbers.clamp(0, self.max_z)]
        known = known & (numbers >= 0) & (numbers <= self.max_z)  # [b, i]
        if not bool(known.all()):
            z = int(numbers[~known][0])
            raise ValueError(
                f"element Z = {z} is not supported; this potential knows Z = {self.species} "
                "(plain atomic numbers without fidelity offset, 0 pads)"
            )

    def per_molecule(
        self, data: Dict[str, Tensor], name: str, default: float, b: int, like: Tensor
    ) -> Tensor:
        """One value per molecule (B,), `default` when the key is missing."""
        if name not in data:
            return torch.full([b], default, dtype=torch.float64, device=like.device)
        value = data[name].reshape(-1).to(torch.float64)
        if value.shape[0] != b:
            raise ValueError(f"{name} must hold one value per molecule ({b}), found {len(value)}")
        return value
