"""The input script of a bead molecule, and the prior as commands that it includes."""

from __future__ import annotations

from dataclasses import dataclass

from mlff_cli.deploy.lammps.colvars_file import BIAS
from mlff_cli.deploy.lammps.data_file import AtomTypes
from mlff_cli.deploy.lammps.native_prior import KINDS, NativePrior, NativeTerms

SCRIPT, DATA, MODEL = "in.lammps", "system.data", "model.nequip.pt2"
PRIORS = ("colvars", "lepton")  # prior_*.in
COLVARS = "prior.colvars"
_FS = 1000.0  # per ps


@dataclass(frozen=True)
class Run:
    """What a script does unless its variables are set; LAMMPS' units.

    Attributes:
        temperature: K.
        timestep: fs.
        friction: 1/ps.
        steps: how many.
        interval: steps from one frame to the next.
        seed: of velocities and noise.
    """

    temperature: float = 300.0
    timestep: float = 2.0
    friction: float = 1.0
    steps: int = 100_000
    interval: int = 500
    seed: int = 1


def input_script(
    atoms: AtomTypes, run: Run, *, learnt: bool, prior: str | None, cutoff: float
) -> str:
    """The script's text.

    Args:
        atoms: types of the beads.
        run: defaults of its variables.
        learnt: whether there is an Allegro.
        prior: which of PRIORS it includes unless `-var prior` says another; None without one.
        cutoff: of Allegro, angstrom.
    """
    lines = [
        "# A coarse-grained model of mlff, as LAMMPS runs it by itself.",
        "# Every variable can be set on the command line: lmp -in in.lammps -var temperature 320",
        "variable folder index .",
        f"variable temperature index {run.temperature!r}  # K",
        f"variable timestep index {run.timestep!r}  # fs",
        f"variable friction index {run.friction!r}  # 1/ps",
        f"variable steps index {run.steps}",
        f"variable interval index {run.interval}",
        f"variable seed index {run.seed}",
        "variable output index frames.lammpstrj",
        *(["variable ml index yes  # no: the prior alone"] if learnt else []),
        *([f"variable prior index {prior}  # {' or '.join(PRIORS)}"] if prior else []),
        "",
        "units real",
        "atom_style molecular",
        "atom_modify map array",
        "boundary s s s",
        "newton on",
        "# bonds hide no pairs from the learnt energy; LAMMPS must know before it reads them",
        "special_bonds lj/coul 1.0 1.0 1.0",
        *(_styles() if prior else []),
        "read_data ${folder}/" + DATA,
        "",
        *_pair(atoms, learnt, cutoff),
        *(["include ${folder}/prior_${prior}.in"] if prior else []),
        "",
        "timestep ${timestep}",
        "velocity all create ${temperature} ${seed} dist gaussian",
        "fix motion all nve",
        f"variable damping equal {_FS}/v_friction  # fs",
        "fix thermostat all langevin ${temperature} ${temperature} ${damping} ${seed}",
        "thermo_style custom step time temp pe ke",
        "thermo ${interval}",
        'if "${steps} > 0" then &',
        '  "dump frames all custom ${interval} ${output} id type x y z fx fy fz" &',
        '  "dump_modify frames sort id"',
        "run ${steps}",
    ]
    return "\n".join(lines) + "\n"


def _styles() -> list[str]:
    """Without `no_offset` LAMMPS takes the energy at distance 0 off, which may be infinite."""
    lepton = ("lepton no_offset", "lepton no_offset", "lepton")
    kinds = list(KINDS.values())
    return [
        'if "${prior} == lepton" then &',
        *(f'  "{kind}_style {style}" &' for kind, style in zip(kinds, lepton, strict=True)),
        "  else &",
        *(f'  "{kind}_style zero" &' for kind in kinds[:-1]),
        f'  "{kinds[-1]}_style zero"',
    ]


def _pair(atoms: AtomTypes, learnt: bool, cutoff: float) -> list[str]:
    zero = [f'"pair_style zero {cutoff!r}"', '"pair_coeff * *"']
    if not learnt:
        return [line.strip('"') for line in zero]
    names = " ".join(atoms.names)
    return [
        'if "${ml} == yes" then &',
        '  "pair_style allegro" &',
        f'  "pair_coeff * * ${{folder}}/{MODEL} {names}" &',
        "  else &",
        *(f"  {line}" + (" &" if k == 0 else "") for k, line in enumerate(zero)),
    ]


def lepton_commands(prior: NativePrior) -> str:
    """The prior as coefficients of the lepton styles.

    No dihedral style sees the angles beside its dihedrals: the energy is the model's wherever the
    sine of each such angle is the prior's damping or more.
    """
    lines = ["# the prior in LAMMPS' lepton styles, kcal/mol, angstrom, radian"]
    if prior.fades:
        lines += [
            "# dihedrals do not fade here: the energy is the model's where the sine of every angle",
            f"# beside a dihedral is {prior.damping!r} or more; prior_colvars.in has no such limit",
        ]
    for kind, terms in zip(KINDS.values(), (prior.bond, prior.angle, prior.dihedral), strict=True):
        lines += _coefficients(kind, terms)
    return "\n".join(lines) + "\n"


def _coefficients(kind: str, terms: NativeTerms) -> list[str]:
    zero = "" if kind == "dihedral" else "0.0 "  # where r or theta are counted from
    return [
        f'{kind}_coeff {k} {zero}"{t.expression}"  # {t.label}'
        for k, t in enumerate(terms.types, 1)
    ]


def colvars_commands(prior: NativePrior) -> str:
    """The prior as a bias of `fix colvars`; bonds are there to be seen only."""
    there = zip(KINDS.values(), (prior.bond, prior.angle, prior.dihedral), strict=True)
    return "\n".join(
        [
            "# the prior by collective variables, all of it exact; needs the package COLVARS",
            *(f"{kind}_coeff *" for kind, terms in there if terms.types),
            f'fix {BIAS} all colvars ${{folder}}/{COLVARS} output ""',
            f"fix_modify {BIAS} energy yes",
            "",
        ]
    )
