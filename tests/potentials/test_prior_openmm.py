"""The parametric forms as an engine evaluates them: OpenMM's own expressions, double precision."""

import openmm
import pytest
import torch
from openmm import unit

from mlff_cli.data.beads.prior_file import SEPARATION
from mlff_cli.potentials.prior import Prior
from tests.potentials.prior_cases import PARAMETRIC, chain, chain_terms, chain_types

N = 12
STEP = "{x}^3*(10-15*{x}+6*{x}^2)"
WALL = "0.5*wk*(max(0,low-q)^2+max(0,q-high)^2)"
SPHERE = (
    "epsilon*(sigma/max(r,core))^4*(1+4*max(0,1-r/core))*" + STEP.format(x="x") + ";"
    "x=min(1,max(0,(cutoff-r)/(cutoff-onset)))"
)
WK = ("wk", "low", "high")


def expression(name, form):
    """Energy of one term in kcal/mol; `q` is its distance or angle."""
    points = {"bond": "distance(p1,p2)", "angle": "angle(p1,p2,p3)"}.get(name)
    if name == "bond":
        return f"0.5*k*(q-r0)^2+{WALL};q={points}"
    if name == "angle":
        series = "+".join(
            f"({a})*cos({n}*q)+({b})*sin({n}*q)"
            for n, (a, b) in enumerate(zip(form.a, form.b, strict=True), 1)
        )
        return f"{series}+{WALL};q={points}"
    if name == "dihedral":
        series = "+".join(
            f"({k})*(1+cos({n}*q-({g})))"
            for n, (k, g) in enumerate(zip(form.k, form.gamma, strict=True), 1)
        )
        fades = f"{STEP.format(x='s')}*{STEP.format(x='t')}"
        return (
            f"({series})*{fades};q=dihedral(p1,p2,p3,p4);"
            f"s=min(1,sin(angle(p1,p2,p3))/{PARAMETRIC.damping});"
            f"t=min(1,sin(angle(p2,p3,p4))/{PARAMETRIC.damping})"
        )
    return SPHERE + ";r=distance(p1,p2)"


def parameters(name, entry):
    """What differs between the terms of one expression."""
    form, wall = entry.parameters, entry.wall
    if name in SEPARATION:
        return {n: getattr(form, n) for n in ("epsilon", "sigma", "core", "onset", "cutoff")}
    if name == "dihedral":
        return {}
    walls = {"wk": wall.k, "low": wall.low, "high": wall.high} if wall else dict.fromkeys(WK, 0.0)
    return {**walls, **({"k": form.k, "r0": form.r0} if name == "bond" else {})}


def engine(types, terms):
    """A force per expression; OpenMM counts in its units, the numbers here are ours."""
    system, forces = openmm.System(), {}
    for _ in types:
        system.addParticle(1.0)
    for name, term in PARAMETRIC.terms.items():
        low, high = term.separation or (None, None)
        rows = terms.pairs_between(low, high or N) if low else getattr(terms, f"{name}s")
        for beads in rows.tolist():
            entry = term.entries[term.find([types[i] for i in beads])]
            values = parameters(name, entry)
            text = f"{term.weight}*u;u={expression(name, entry.parameters)}"
            if text not in forces:
                forces[text] = openmm.CustomCompoundBondForce(len(beads), text)
                for parameter in values:
                    forces[text].addPerBondParameter(parameter)
                system.addForce(forces[text])
            forces[text].addBond(beads, list(values.values()))
    return system


def test_energy_and_forces_are_those_of_openmm():
    types, terms, x = chain_types(N), chain_terms(N), chain(N)
    prior = Prior(PARAMETRIC)
    energy, forces = prior.energy_and_forces(x, prior.bind(terms, types))
    integrator = openmm.VerletIntegrator(0.001)
    context = openmm.Context(
        engine(types, terms), integrator, openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(x.numpy())
    state = context.getState(getEnergy=True, getForces=True)
    theirs = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    found = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    assert energy.item() == pytest.approx(found, rel=1e-12)
    assert torch.allclose(forces, torch.from_numpy(theirs), rtol=1e-9, atol=1e-9)
