"""AIMNet2 for several fidelities: one backbone, one embedding block and readout per fidelity.

a = embedding(Z, fidelity)                                        atomic features
for each pass:
    x = [a, S(a), V(a)]          and, from the second pass, [q, S(q), V(q)]
    every pass but the last:  q~, f, da = network(x);  q = equilibrate(q~ (+ q), f);  a = a + da
    the last:                 aim = network(x)
E = sum_i (energy_mlp(aim_i) + shift(Z_i)) + long-range Coulomb(q)

Numbers carry the fidelity: numbers = Z + k * fidelity_offset, 0 for padding. The maps to q~ and f
and those to the energy belong to the fidelity, all others are shared.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from mlff_cli.core.elements import MAX_Z
from mlff_cli.physics.coulomb import coulomb_simple
from mlff_cli.potentials.aimnet2.aev import LocalGeometry
from mlff_cli.potentials.aimnet2.charges import charge_targets, equilibrate
from mlff_cli.potentials.aimnet2.convolution import Invariants, contract
from mlff_cli.potentials.aimnet2.mlp import PassMLP
from mlff_cli.potentials.aimnet2.readouts import Outputs, StackedLinear
from mlff_cli.potentials.aimnet2.spec import AIMNet2Spec

N_ROWS = MAX_Z + 1  # rows of one fidelity's tables: padding and 118 elements


class AIMNet2(nn.Module):
    """Energy and charges of molecules; TorchScript can compile it.

    Args:
        spec: sizes and options.
    """

    def __init__(self, spec: AIMNet2Spec) -> None:
        super().__init__()
        self.num_charge_channels = spec.num_charge_channels
        self.num_fidelities = spec.num_fidelities
        self.fidelity_offset = spec.fidelity_offset
        self.n_rows = N_ROWS
        self.n_gaussians = spec.nshifts
        self.feature_gaussians = spec.nshifts if spec.d2features else 1
        self.coulomb_rc = spec.coulomb_rc if spec.coulomb is not None else 0.0
        self._spec = [spec.model_dump_json()]  # plain strings, which TorchScript accepts
        n_readouts = spec.num_fidelities if spec.use_fidelity_readouts else 1
        self.n_readouts = n_readouts

        n_a = spec.nfeature * self.feature_gaussians
        self.afv = nn.Embedding(spec.num_fidelities * N_ROWS, n_a, padding_idx=0)
        self._init_embedding(spec.nfeature)
        self.aev = LocalGeometry(spec.rmin, spec.rc, spec.nshifts)
        self.conv_a = Invariants(spec.nfeature, spec.nshifts, spec.ncomb_v)
        self.conv_q = Invariants(spec.num_charge_channels, spec.nshifts, spec.ncomb_v)

        n_first = n_a + self.conv_a.n_out
        n_later = n_first + spec.num_charge_channels + self.conv_q.n_out
        last = len(spec.hidden) - 1
        self.mlps = nn.ModuleList(
            PassMLP(
                n_in=n_later if i else n_first,
                hidden=hidden,
                n_out=spec.aim_size if i == last else n_a,
                activate=i > 0,
            )
            for i, hidden in enumerate(spec.hidden)
        )
        self.charge_readouts = nn.ModuleList(
            StackedLinear(n_readouts, hidden[-1], 2 * spec.num_charge_channels)
            for hidden in spec.hidden[:-1]
        )
        self.outputs = Outputs(n_readouts, spec.aim_size, spec.energy_hidden, N_ROWS)

    @torch.jit.unused
    def spec(self) -> AIMNet2Spec:
        """The spec that the model was built from."""
        return AIMNet2Spec.model_validate_json(self._spec[0])

    @torch.jit.unused
    def _init_embedding(self, nfeature: int) -> None:
        """Orthogonal elements, each repeated over the Gaussians, the same for every fidelity."""
        elements = torch.zeros(self.n_rows, nfeature)
        nn.init.orthogonal_(elements[1:])
        block = elements.repeat_interleave(self.feature_gaussians, dim=1)  # [z, (a, g)]
        with torch.no_grad():
            self.afv.weight.copy_(block.repeat(self.num_fidelities, 1))

    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        """Energy and charges of a padded batch.

        Args:
            data: coord (B, N, 3) angstrom; numbers (B, N) int64 = Z + k * fidelity_offset, 0 =
                padding; charge (B,) e; mult (B,), 1 where missing or 0. Other keys are ignored.

        Returns:
            energy (B,) eV float64; charges (B, N) e; spin_charges (B, N) e, zero with one charge
            channel. Atomic energies of isolated atoms (SAE) are not part of the energy.

        Raises:
            IndexError: a number is not Z + k * offset of an element and a fidelity of this model.
        """
        numbers = data["numbers"]
        real = numbers > 0  # [b, i]
        dtype = self.afv.weight.dtype
        # padding may hold anything, NaN included: it must reach neither values nor gradients
        coord = data["coord"].to(dtype).masked_fill(~real.unsqueeze(-1), 0.0)
        charge = data["charge"].to(dtype)
        mult = data["mult"].to(dtype) if "mult" in data else torch.ones_like(charge)
        c = self.num_charge_channels
        target = charge_targets(charge, mult, c)  # [b, c]

        z = numbers % self.fidelity_offset  # [b, i]
        fidelity = torch.div(numbers, self.fidelity_offset, rounding_mode="floor")
        k = fidelity.amax(dim=1) if self.n_readouts > 1 else torch.zeros_like(numbers[:, 0])
        readout_of = (k.unsqueeze(1) == torch.arange(self.n_readouts, device=k.device)).to(dtype)
        # a Z outside the block would land on another fidelity's element: past the end, it raises
        row = torch.where(z < self.n_rows, z + self.n_rows * fidelity, self.afv.num_embeddings)
        a = self.afv(torch.where(real, row, 0))  # [b, i, (a, g)]

        pairs, d, basis = self.aev(coord, real)
        b, n = numbers.shape
        q = torch.zeros(b, n, c, dtype=dtype, device=coord.device)
        for i, mlp in enumerate(self.mlps):
            features = a.view(b, n, -1, self.feature_gaussians).permute(0, 3, 2, 1)  # [b, g, a, j]
            features = features.expand(-1, self.n_gaussians, -1, -1)
            if i == 0:
                s_a, v_a = self.conv_a(contract(features, basis))
                x = [a, s_a, v_a]
            else:
                # features and charges share one contraction: the basis is read once
                qs = q.transpose(1, 2).unsqueeze(1).expand(-1, self.n_gaussians, -1, -1)
                t = contract(torch.cat([features, qs], dim=2), basis)
                t_a, t_q = t.split_with_sizes([features.shape[2], c], dim=2)
                s_a, v_a = self.conv_a(t_a)
                s_q, v_q = self.conv_q(t_q)
                x = [a, s_a, v_a, torch.cat([q, s_q, v_q], dim=-1)]
            hidden, out = mlp(x)
            # a ModuleList is unrolled by TorchScript: it can be looped over, not indexed
            for j, readout in enumerate(self.charge_readouts):
                if j == i:
                    qf = readout(hidden, readout_of)  # [b, i, (q~, f)]
                    if i > 0:
                        qf = gelu(qf)
                    q = equilibrate(q + qf[..., :c], qf[..., c:], target, real)
            a = a + out if i < len(self.charge_readouts) else out

        energy = self.outputs(a, z, readout_of).sum(dim=-1, dtype=torch.float64)  # [b]
        charges = q.sum(dim=-1)  # [b, i]
        if self.coulomb_rc > 0.0:
            energy = energy + coulomb_simple(charges, d, pairs, self.coulomb_rc)
        spin = q[..., 0] - q[..., 1] if c == 2 else torch.zeros_like(charges)
        return {"energy": energy, "charges": charges, "spin_charges": spin}
