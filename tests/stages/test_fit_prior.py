"""`mlff fit-prior` from file to file: recovery, the prior it writes, bad input, nothing left."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from mlff_cli.coarse.forces.force_map import GAS_CONSTANT
from mlff_cli.coarse.priors.prior_curves import energy
from mlff_cli.coarse.priors.set_terms import molecule_terms
from mlff_cli.core.artifacts import sha256
from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.core.reporting import NullReporter, Summary
from mlff_cli.data.beads.cg_combine import combine
from mlff_cli.data.beads.cg_npz import BeadMolecule, CGBlock, CGSet
from mlff_cli.data.beads.cg_writer import write_cg
from mlff_cli.data.beads.prior_file import Entry, PriorFile, Term, read_prior
from mlff_cli.data.beads.prior_forms import Cosine, Fourier, Harmonic, SoftSphere, Wall
from mlff_cli.physics.terms import Terms
from mlff_cli.potentials.prior import Prior
from mlff_cli.potentials.prior_delta import prior_forces
from mlff_cli.stages.fit_prior import Options, run
from tests.coarse.free_chains import KT, free_chains
from tests.coarse.priors.test_distributions import chain_terms

TABLE = ["ALA", "GLY", "SER"]
T = KT / GAS_CONSTANT  # K, that of the chains
QUICK = Options(figure=False, temperature=T)


def molecule(n: int, name: str = "chain") -> BeadMolecule:
    i = np.arange(n, dtype=np.int32)
    species = (i * i % 3).astype(np.int32)
    return BeadMolecule(
        name=name,
        species=species,
        residue=i + 1,
        residue_name=np.array([TABLE[s] for s in species]),
        bead_name=np.array(["CA"] * n),
        chain=np.zeros(n, np.int32),
        bonds=np.stack([i[:-1], i[1:]], 1),
    )


def write(
    path: Path,
    chains: Sequence[np.ndarray],
    temperature: float | Sequence[float] = np.nan,
    forces: bool = False,
) -> Path:
    """A set of molecules, (T, n, 3) each; temperatures are repeated along the frames."""
    blocks = []
    for k, x in enumerate(chains):
        n = len(x)
        t = np.resize(np.asarray(temperature, np.float32), n)
        F = np.random.default_rng(k).normal(size=x.shape).astype(np.float32) if forces else None
        where = np.zeros(n, np.int32), np.arange(n)
        blocks.append(CGBlock(k, x.astype(np.float32), *where, t, F))
    found = [molecule(x.shape[1], f"m{k}") for k, x in enumerate(chains)]
    sources = [{"path": "a", "sha256": "0" * 64, "format": "h5md", "n_frames": 1, "molecule": 0}]
    write_cg(path, found, TABLE, sources, {"mapping": "ca"}, blocks)
    return path


def bound(path: Path, prior: PriorFile) -> tuple[Prior, Any]:
    module = Prior(prior)
    with CGSet(path) as cg:
        known = molecule_terms(cg)[0]
    return module, module.bind(known.terms, known.types)


def test_a_prior_is_fitted_written_and_read(tmp_path: Path) -> None:
    data = write(tmp_path / "a.npz", [free_chains(1500, 9)], T)
    out = tmp_path / "out" / "prior.yaml"
    summary = run(data, out, Options(subtract=None))
    prior = read_prior(out)
    assert prior.temperature == pytest.approx(T, abs=1e-3)
    assert prior.mapping == "ca"
    assert prior.species == tuple(TABLE)
    assert set(prior.terms) == {"bond", "angle", "dihedral", "excluded_volume", "repulsion"}
    assert prior.provenance["inputs"] == {str(data): sha256(data)}
    spring = prior.terms["bond"].entries[0].parameters
    assert isinstance(spring, Harmonic)
    assert spring.k == pytest.approx(120.0, rel=0.05)
    assert spring.r0 == pytest.approx(3.8, rel=0.01)
    assert sorted(p.name for p in out.parent.iterdir()) == ["prior.png", "prior.yaml"]
    json.dumps(summary.data, allow_nan=False)
    assert summary.lines[0] == f"wrote {out}"
    assert len(summary.tables[0].rows) == 5


def simulate(
    prior: PriorFile, terms: Terms, types: list[str], steps: int, chains: int, seed: int
) -> np.ndarray:
    """Frames (., n, 3) of Langevin dynamics of many chains at once, in the scheme of BAOAB.

    B. Leimkuhler, C. Matthews, J. Chem. Phys. 138, 174102 (2013). Positions are sampled to fourth
    order in the step where friction is high. Mass 1, time in sqrt(amu A^2/(kcal/mol)). Chains begin
    where the bonded terms alone would have them.
    """
    module = Prior(prior)
    one = module.bind(terms, types)
    rng = np.random.default_rng(seed)
    bond, angle, dihedral = (prior.terms[t].entries[0] for t in ("bond", "angle", "dihedral"))
    x = free_chains(
        chains,
        terms.n_beads,
        seed,
        bond=lambda q: energy(bond.parameters, q, bond.wall),
        angle=lambda q: energy(angle.parameters, q, angle.wall),
        dihedral=lambda q: energy(dihedral.parameters, q),
    )
    v = np.sqrt(KT) * rng.normal(size=x.shape)
    dt, keep = 0.05, np.exp(-0.05)  # friction 1
    frames = []

    def force(x: np.ndarray) -> np.ndarray:
        _, f = module.energy_and_forces(torch.from_numpy(x), one)
        return f.numpy()

    f = force(x)
    for step in range(steps):
        v += 0.5 * dt * f
        x = x + 0.5 * dt * v
        v = keep * v + np.sqrt((1 - keep**2) * KT) * rng.normal(size=v.shape)
        x = x + 0.5 * dt * v
        f = force(x)
        v += 0.5 * dt * f
        if step > 200 and step % 10 == 0:
            frames.append(x)
    return np.concatenate(frames)


def known_prior(sigma: float | None) -> PriorFile:
    """Parameters that a fit has to find again."""
    terms = {
        "bond": Term(entries=(Entry(("*", "*"), Harmonic(40.0, 3.8)),)),
        "angle": Term(
            entries=(Entry(("*",) * 3, Fourier((6.0, 4.0), (-1.0, 0.6)), Wall(100.0, 1.3, 2.8)),)
        ),
        "dihedral": Term(entries=(Entry(("*",) * 4, Cosine((0.5, 0.6), (0.5, -1.0))),)),
    }
    if sigma:
        sphere = Entry(("*", "*"), SoftSphere.of(KT, sigma))
        terms["repulsion"] = Term(entries=(sphere,), separation=(6, None))
    return PriorFile(species=("ALA", "GLY", "SER"), terms=terms)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [None, 4.0, 5.0], ids=["free", "sigma 4 A", "sigma 5 A"])
def test_parameters_of_a_simulated_prior_are_recovered(tmp_path: Path, sigma: float | None) -> None:
    """Langevin dynamics of the torch prior, fitted from a file: 5 %."""
    n = 30 if sigma else 6
    truth = known_prior(sigma)
    types = [TABLE[s] for s in molecule(n).species]
    chains, steps = (150, 700) if sigma else (1000, 900)
    x = simulate(truth, chain_terms(n), types, steps, chains, seed=1)
    run(write(tmp_path / "a.npz", [x], T), tmp_path / "prior.yaml", QUICK)
    found = read_prior(tmp_path / "prior.yaml")
    spring = found.terms["bond"].entries[0].parameters
    assert isinstance(spring, Harmonic)
    assert spring.k == pytest.approx(40.0, rel=0.05)
    assert spring.r0 == pytest.approx(3.8, rel=0.01)
    torsion = found.terms["dihedral"].entries[0].parameters
    assert isinstance(torsion, Cosine)
    np.testing.assert_allclose(torsion.k[:2], [0.5, 0.6], rtol=0.05)
    angle = found.terms["angle"].entries[0].parameters
    q = np.linspace(1.6, 2.6, 50)  # where nearly all samples lie
    wanted = energy(truth.terms["angle"].entries[0].parameters, q)
    difference = energy(angle, q) - wanted
    assert np.std(difference) < 0.05 * np.std(wanted)
    if sigma:
        sphere = found.terms["repulsion"].entries[0].parameters
        assert isinstance(sphere, SoftSphere)
        assert sphere.sigma == pytest.approx(sigma, rel=0.08 if sigma < 5.0 else 0.05)


@pytest.mark.parametrize("form", ["parametric", "spline"])
def test_curves_of_the_fit_are_energies_of_the_model(tmp_path: Path, form: str) -> None:
    """The figure's numpy energies, summed over the terms of a chain, are the torch prior's."""
    data = write(tmp_path / "a.npz", [free_chains(1500, 5)], T)
    run(data, tmp_path / "prior.yaml", Options(form=form, figure=False, by_type=False))
    prior = read_prior(tmp_path / "prior.yaml")
    module, one = bound(data, prior)
    from mlff_cli.physics.internal_coordinates import angles, dihedrals, distances

    x = free_chains(50, 5, seed=9)
    terms = chain_terms(5)
    rows = {
        "bond": distances(x, terms.bonds),
        "angle": angles(x, terms.angles),
        "dihedral": dihedrals(x, terms.dihedrals),
        "excluded_volume": distances(x, terms.pairs),
    }
    found = module.energies(torch.from_numpy(x), one)
    for name, q in rows.items():
        entry = prior.terms[name].entries[0]
        ours = energy(entry.parameters, q.ravel(), entry.wall).reshape(q.shape).sum(1)
        np.testing.assert_allclose(found[name].detach().numpy(), ours, atol=1e-9)


@pytest.mark.parametrize("form", ["parametric", "spline"])
def test_energy_and_forces_stay_finite_for_impossible_chains(tmp_path: Path, form: str) -> None:
    data = write(tmp_path / "a.npz", [free_chains(800, 9)], T)
    run(data, tmp_path / "prior.yaml", Options(form=form, figure=False))
    module, one = bound(data, read_prior(tmp_path / "prior.yaml"))
    line = np.zeros((9, 3))
    line[:, 0] = 3.8 * np.arange(9)
    impossible = {
        "stretched": 10.0 * line,
        "collinear": line,
        "folded back": np.where(np.arange(9)[:, None] % 2, line[1], line[0]),
        "coincident": np.zeros((9, 3)),
        "nearly coincident": 1e-7 * np.random.default_rng(0).normal(size=(9, 3)),
        "random": np.random.default_rng(1).normal(size=(9, 3)),
    }
    for name, x in impossible.items():
        u, f = prior_forces(module, one, x[None])
        assert np.isfinite(u).all(), name
        assert np.isfinite(f).all(), name
    least, _ = prior_forces(module, one, free_chains(20, 9))
    for name in ("stretched", "coincident", "folded back"):
        assert prior_forces(module, one, impossible[name][None])[0][0] > least.max() + 10.0, name


def test_a_fitted_prior_holds_a_chain_together(tmp_path: Path) -> None:
    """Dynamics on the prior that was fitted: no chain tears, no angle stretches."""
    data = write(tmp_path / "a.npz", [free_chains(1500, 7)], T)
    run(data, tmp_path / "prior.yaml", QUICK)
    types = [TABLE[s] for s in molecule(7).species]
    x = simulate(read_prior(tmp_path / "prior.yaml"), chain_terms(7), types, 300, 50, seed=3)
    r = np.linalg.norm(np.diff(x, axis=1), axis=-1)
    assert 3.2 < r.min() < r.max() < 4.4


def test_order_of_frames_and_rotations_do_not_matter(tmp_path: Path) -> None:
    x = free_chains(600, 8).astype(np.float32)
    shuffled = x[np.random.default_rng(0).permutation(len(x))]
    turned = x @ Rotation.random(random_state=1).as_matrix().T.astype(np.float32) + 7.0
    texts, k = [], []
    for name, frames in (("a", x), ("b", shuffled), ("c", turned)):
        run(write(tmp_path / f"{name}.npz", [frames], T), tmp_path / f"{name}.yaml", QUICK)
        prior = read_prior(tmp_path / f"{name}.yaml")
        texts.append(prior.terms)
        k.append(prior.terms["bond"].entries[0].parameters.k)
    assert texts[0] == texts[1]
    assert k[2] == pytest.approx(k[0], rel=1e-3)  # float32 coordinates and bins


def test_size_of_chunks_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write(tmp_path / "a.npz", [free_chains(300, 8), free_chains(100, 5)], T)
    run(data, tmp_path / "a.yaml", QUICK)
    monkeypatch.setattr("mlff_cli.data.beads.cg_npz.CHUNK_BYTES", 10_000)
    run(data, tmp_path / "b.yaml", QUICK)
    assert (tmp_path / "a.yaml").read_bytes() == (tmp_path / "b.yaml").read_bytes()


def test_molecules_of_a_combined_set_pool_their_samples(tmp_path: Path) -> None:
    chains = [free_chains(300, 8), free_chains(200, 5, seed=4)]
    data = write(tmp_path / "a.npz", chains, T)
    summary = run(data, tmp_path / "prior.yaml", QUICK)
    entry = read_prior(tmp_path / "prior.yaml").terms["bond"].entries[0]
    assert entry.samples == 300 * 7 + 200 * 4
    assert summary.data["frames"] == 500


def test_types_with_few_samples_are_told(tmp_path: Path) -> None:
    data = write(tmp_path / "a.npz", [free_chains(400, 9)], T)
    summary = run(data, tmp_path / "prior.yaml", Options(figure=False, min_samples=1500))
    few = summary.data["pooled_for_want_of_samples"]
    own = {tuple(e["types"]) for e in summary.data["entries"] if e["term"] == "bond"}
    assert few["bond"]
    assert all(tuple(name.split("-")) not in own for name in few["bond"])
    assert any("bond: " in note for note in summary.tables[0].notes)


def test_the_same_set_gives_the_same_bytes(tmp_path: Path) -> None:
    data = write(tmp_path / "a.npz", [free_chains(400, 7)], T, forces=True)
    for name in ("one", "two"):
        delta = tmp_path / name / "delta.npz"
        run(data, tmp_path / name / "prior.yaml", Options(subtract=delta, by_type=False))
    first = sorted((tmp_path / "one").iterdir())
    assert [p.name for p in first] == ["delta.npz", "prior.png", "prior.yaml"]
    for path in first:
        if path.name != "delta.npz":  # names the prior that was subtracted
            assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_prior_forces_are_subtracted(tmp_path: Path) -> None:
    data = write(tmp_path / "a.npz", [free_chains(300, 7), free_chains(200, 5)], T, forces=True)
    run(data, tmp_path / "prior.yaml", Options(subtract=tmp_path / "d.npz", figure=False))
    prior = read_prior(tmp_path / "prior.yaml")
    module = Prior(prior)
    with CGSet(data) as before, CGSet(tmp_path / "d.npz") as after:
        assert after.metadata["subtracted_prior"]["sha256"] == sha256(tmp_path / "prior.yaml")
        assert after.n_frames == before.n_frames
        known = [module.bind(k.terms, k.types) for k in molecule_terms(after)]
        for a, b in zip(before.blocks(), after.blocks(), strict=True):
            _, f = prior_forces(module, known[b.molecule], b.R)
            np.testing.assert_array_equal(a.R, b.R)
            np.testing.assert_allclose(b.F + f, a.F, atol=1e-4)


def test_a_prior_is_subtracted_once(tmp_path: Path) -> None:
    data = write(tmp_path / "a.npz", [free_chains(300, 5)], T, forces=True)
    run(data, tmp_path / "a.yaml", Options(subtract=tmp_path / "d.npz", figure=False))
    with pytest.raises(DataError, match="lack one already"):
        run(tmp_path / "d.npz", tmp_path / "b.yaml", Options(subtract=tmp_path / "e.npz"))


def test_pages_of_an_earlier_figure_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlff_cli.report.prior_figures.ROWS", 1)
    data = write(tmp_path / "a.npz", [free_chains(300, 9)], T)
    first = run(data, tmp_path / "p.yaml", Options(min_samples=100))
    assert str(tmp_path / "p_2.png") in first.data["outputs"]
    reporter = NullReporter()
    run(data, tmp_path / "p.yaml", Options(by_type=False, force=True), reporter)
    assert any("p_2.png is a page of an earlier figure" in w for w in reporter.warnings)


def seed_like(path: Path, x: np.ndarray, parked: int = 2) -> Path:
    """A set as the seed's: padding in front, no bonds, no temperature."""
    n_frames, n, _ = x.shape
    R = np.full((n_frames, n + parked, 3), 95.0, np.float32)
    R[:, parked:] = x
    species, mask = np.zeros((2, n_frames, n + parked), np.int32)
    species[:, parked:] = np.arange(n) % 3
    mask[:, parked:] = 1
    np.savez(path, R=R, F=0 * R, species=species, mask=mask.astype(np.float32))
    return path


def test_a_seeds_set_is_a_chain_of_consecutive_beads(tmp_path: Path) -> None:
    data = seed_like(tmp_path / "seed.npz", free_chains(1000, 7))
    reporter = NullReporter()
    options = Options(temperature=T, figure=False, subtract=tmp_path / "d.npz")
    run(data, tmp_path / "prior.yaml", options, reporter)
    assert any("consecutive beads are taken as bonded" in w for w in reporter.warnings)
    prior = read_prior(tmp_path / "prior.yaml")
    assert prior.species == ("type0", "type1", "type2")
    assert prior.terms["bond"].entries[0].parameters.k == pytest.approx(120.0, rel=0.05)
    with CGSet(tmp_path / "d.npz") as cg:
        assert cg.n_beads == 7


def test_frames_of_one_temperature_are_used(tmp_path: Path) -> None:
    cold, hot = free_chains(400, 6), free_chains(400, 6, bond=lambda r: 30.0 * (r - 3.8) ** 2)
    both = np.stack([cold, hot], 1).reshape(-1, 6, 3)
    data = write(tmp_path / "a.npz", [both], [300.0, 450.0])
    with pytest.raises(UsageError, match="the set has 300, 450 K"):
        run(data, tmp_path / "prior.yaml", Options(figure=False))
    summary = run(data, tmp_path / "prior.yaml", Options(figure=False, temperature=300.0))
    assert summary.data["frames"] == 400
    found = read_prior(tmp_path / "prior.yaml").terms["bond"].entries[0].parameters
    assert found.k == pytest.approx(120.0, rel=0.06)
    with pytest.raises(UsageError, match="no frame has the temperature 310 K"):
        run(data, tmp_path / "b.yaml", Options(figure=False, temperature=310.0))


def test_frames_without_a_temperature_are_told(tmp_path: Path) -> None:
    data = write(tmp_path / "a.npz", [free_chains(1000, 6)], [np.nan] * 4 + [300.0])
    reporter = NullReporter()
    run(data, tmp_path / "prior.yaml", Options(figure=False), reporter)
    assert any("800 of 1000 frames do not say their temp" in text for text in reporter.warnings)
    with pytest.raises(UsageError, match="has 300 K; 800 of 1000 frames do not say"):
        run(data, tmp_path / "b.yaml", Options(figure=False, temperature=310.0))
    few = write(tmp_path / "b.npz", [free_chains(100, 3)], [np.nan] * 9 + [300.0])
    with pytest.raises(DataError, match="together have 20; 90 of 100 frames do not say"):
        run(few, tmp_path / "b.yaml", Options(figure=False))


def test_a_prior_of_a_seeds_set_binds_to_a_joined_one(tmp_path: Path) -> None:
    a = seed_like(tmp_path / "a.npz", free_chains(300, 7))
    b = seed_like(tmp_path / "b.npz", free_chains(300, 6), parked=1)
    combine([a, b], tmp_path / "both.npz")
    for k, data in enumerate((a, tmp_path / "both.npz")):
        run(data, tmp_path / f"{k}.yaml", QUICK)
        module, one = bound(tmp_path / "both.npz", read_prior(tmp_path / f"{k}.yaml"))
        assert np.isfinite(prior_forces(module, one, free_chains(1, 7))[0]).all()


@pytest.mark.parametrize(("table", "told"), [(["ALA", "D-ALA"], "mirror"), (["a", "a2"], "hand")])
def test_d_amino_acids_are_told(tmp_path: Path, table: list[str], told: str) -> None:
    one = replace(molecule(6), species=np.array([0, 0, 1, 1, 0, 0], np.int32),
                  residue_name=np.array(["ALA", "ALA", "DAL", "DAL", "ALA", "ALA"]))  # fmt: skip
    x = free_chains(400, 6).astype(np.float32)
    where = np.zeros(400, np.int32), np.arange(400), np.full(400, 300.0, np.float32)
    write_cg(tmp_path / "a.npz", [one], table, [], {}, [CGBlock(0, x, *where)])
    reporter = NullReporter()
    run(tmp_path / "a.npz", tmp_path / "prior.yaml", Options(figure=False), reporter)
    assert any(told in text and "D-amino" in text for text in reporter.warnings)


def test_pairs_of_large_sets_are_counted_in_some_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(tmp_path / "a.npz", [free_chains(800, 9), free_chains(400, 7)], T)
    whole = run(data, tmp_path / "whole.yaml", QUICK)
    monkeypatch.setattr(
        "mlff_cli.coarse.priors.set_distributions.PAIRS", (800 * 36 + 400 * 21) // 4
    )
    found = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        options = replace(QUICK, seed=seed)
        summary = run(data, tmp_path / f"{name}.yaml", options)
        found[name] = read_prior(tmp_path / f"{name}.yaml").terms
        assert summary.data["frames"] == whole.data["frames_of_pairs"] == 1200
        assert summary.data["frames_of_pairs"] == 300
        assert summary.lines[-1] == "distances of pairs were counted in 300 of these frames"
    assert found["a"] == found["b"]
    assert found["a"] != found["c"]
    all_of = read_prior(tmp_path / "whole.yaml").terms
    assert found["a"]["bond"] == found["c"]["bond"] == all_of["bond"]
    near, far = (t["excluded_volume"].entries[0] for t in (found["a"], all_of))
    assert near.samples < 0.3 * far.samples
    assert near.parameters.sigma == pytest.approx(far.parameters.sigma, rel=0.05)


def test_the_order_of_molecules_does_not_matter(tmp_path: Path) -> None:
    """Frames of several molecules by turns, or one molecule after the other."""
    x, y = free_chains(300, 8).astype(np.float32), free_chains(300, 5).astype(np.float32)
    blocks = []
    for k, frames in ((0, x), (1, y)):
        told = np.zeros(300, np.int32), np.arange(300), np.full(300, 300.0, np.float32)
        blocks += [CGBlock(k, frames[i : i + 1], *(v[i : i + 1] for v in told)) for i in range(300)]
    for name, order in (("a", range(600)), ("b", np.arange(600).reshape(2, -1).T.ravel())):
        found = [molecule(8, "m0"), molecule(5, "m1")]
        write_cg(tmp_path / f"{name}.npz", found, TABLE, [], {}, [blocks[i] for i in order])
        run(tmp_path / f"{name}.npz", tmp_path / f"{name}.yaml", Options(figure=False))
    a, b = (read_prior(tmp_path / f"{name}.yaml") for name in "ab")
    assert a.terms == b.terms


def test_torn_chains_are_told_with_their_place(tmp_path: Path) -> None:
    x = free_chains(300, 7)
    x[123, 4:] += [40.0, 0.0, 0.0]
    reporter = NullReporter()
    summary = run(write(tmp_path / "a.npz", [x], T), tmp_path / "p.yaml", QUICK, reporter)
    told = [w for w in reporter.warnings if "longer than twice" in w]
    assert len(told) == 1
    assert "beads 3 and 4 in frame 123" in told[0]
    assert sum(summary.data["broken_bonds"].values()) == 1


def nan_frame(x: np.ndarray) -> np.ndarray:
    x[7, 2, 1] = np.nan
    return x


def no_bonds(path: Path) -> None:
    one = replace(molecule(4), bonds=np.zeros((0, 2), np.int32))
    x = free_chains(200, 4).astype(np.float32)
    told = np.zeros(200, np.int32), np.arange(200), np.full(200, 300.0, np.float32)
    write_cg(path, [one], TABLE, [], {}, [CGBlock(0, x, *told)])


BAD: dict[str, tuple[Any, Options, type[Exception], str]] = {
    "no temperature": (free_chains(200, 5), Options(), UsageError, "temperature"),
    "too few frames": (free_chains(3, 5), QUICK, DataError, "100 samples or more"),
    "one bead": (np.zeros((200, 1, 3)), QUICK, DataError, "two beads or more"),
    "no forces": (
        free_chains(200, 5),
        Options(temperature=300.0, subtract=Path("d.npz")),
        DataError,
        "project-forces",
    ),
    "cold": (free_chains(200, 5), Options(temperature=-3.0), UsageError, "above 0 K"),
    "nan temperature": (free_chains(9, 5), Options(temperature=np.nan), UsageError, "above 0"),
    "form": (free_chains(9, 5), Options(form="cubic"), UsageError, "parametric or spline"),
    "samples": (free_chains(9, 5), Options(min_samples=0), UsageError, "at least 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    x, options, error, text = BAD[case]
    monkeypatch.chdir(tmp_path)
    data = write(tmp_path / "a.npz", [x])
    with pytest.raises(error, match=text):
        run(data, tmp_path / "prior.yaml", options)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_a_value_that_is_no_number_is_told_with_frame_and_bead(tmp_path: Path) -> None:
    data = seed_like(tmp_path / "a.npz", nan_frame(free_chains(200, 5)))
    with pytest.raises(DataError, match="frame 7, bead 2"):
        run(data, tmp_path / "prior.yaml", QUICK)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_a_set_without_bonds_is_refused(tmp_path: Path) -> None:
    no_bonds(tmp_path / "a.npz")
    with pytest.raises(DataError, match="needs bonds"):
        run(tmp_path / "a.npz", tmp_path / "prior.yaml", QUICK)


def test_torn_chains_everywhere_are_refused(tmp_path: Path) -> None:
    """No bond shorter than thirty angstrom: nothing to fit."""
    data = write(tmp_path / "a.npz", [100.0 * free_chains(200, 5)], T)
    with pytest.raises(DataError, match="all bonds together have 0"):
        run(data, tmp_path / "prior.yaml", QUICK)


@pytest.mark.parametrize("taken", ["prior.yaml", "prior.png", "d.npz"])
def test_existing_outputs_are_refused_before_any_work(tmp_path: Path, taken: str) -> None:
    data = write(tmp_path / "a.npz", [free_chains(300, 5)], T, forces=True)
    (tmp_path / taken).write_text("mine")
    options = Options(temperature=T, subtract=tmp_path / "d.npz")
    with pytest.raises(UsageError, match="exists already"):
        run(data, tmp_path / "prior.yaml", options)
    assert (tmp_path / taken).read_text() == "mine"
    run(data, tmp_path / "prior.yaml", Options(temperature=T, subtract=tmp_path / "d.npz",
                                               force=True))  # fmt: skip
    assert (tmp_path / taken).read_bytes() != b"mine"


def test_outputs_have_names_of_their_own(tmp_path: Path) -> None:
    data = write(tmp_path / "a.npz", [free_chains(300, 5)], T, forces=True)
    for options in (Options(subtract=tmp_path / "prior.yaml"),
                    Options(subtract=tmp_path / "prior.png")):  # fmt: skip
        with pytest.raises(UsageError, match="names of their own"):
            run(data, tmp_path / "prior.yaml", options)
    with pytest.raises(UsageError, match="would replace an input"):
        run(data, tmp_path / "prior.yaml", Options(subtract=data, force=True))


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    data = write(tmp_path / "a.npz", [free_chains(300, 5)], T)
    summary: Summary = run(data, tmp_path / "prior.yaml", Options(dry_run=True))
    assert "would fit 300 frames" in summary.lines[0]
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_an_error_while_subtracting_leaves_no_prior(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(tmp_path / "a.npz", [free_chains(300, 5)], T, forces=True)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mlff_cli.potentials.prior_delta.prior_forces", fail)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "prior.yaml", Options(subtract=tmp_path / "d.npz"))
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_torch_is_imported_for_subtracting_only() -> None:
    code = "import sys, mlff_cli.stages.fit_prior; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("factor", "told"),
    [
        (1e30, "R must be at most .* in size, frame 0, bead"),
        (1e4, "all bonds together have 0"),
        (1e-3, "lie in one place"),
    ],
)
def test_beads_at_impossible_distances_make_no_prior(
    tmp_path: Path, factor: float, told: str
) -> None:
    data = write(tmp_path / "a.npz", [factor * free_chains(300, 8)], T)
    with pytest.raises(DataError, match=told):
        run(data, tmp_path / "prior.yaml", QUICK)
    assert not (tmp_path / "prior.yaml").exists()
