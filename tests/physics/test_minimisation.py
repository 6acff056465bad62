"""Minimisation goes downhill, and stops when it is asked to."""

from mlff_cli.physics.minimisation import minimise
from mlff_cli.physics.molecular_dynamics import choose_engine
from mlff_cli.physics.openmm_system import build_system
from tests.physics.chains import peptide


def test_minimisation_lowers_the_energy_and_can_be_stopped() -> None:
    made = build_system(peptide("GYD"), ("amber14-all.xml", "implicit/obc2.xml"))
    engine = choose_engine("CPU")
    _, before, after = minimise(made, engine.context(made.system))
    _, start, stopped = minimise(made, engine.context(made.system), lambda: True)
    assert before == start
    assert after < stopped <= before
    assert after < -100
