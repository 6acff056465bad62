"""`mlff project-forces` on bad input: a clear error, its exit code, and nothing written."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlff_cli.core.errors import (
    DataError,
    MissingDependencyError,
    MLFFError,
    NumericalError,
    UsageError,
)
from mlff_cli.core.reporting import NullProgress, NullReporter
from mlff_cli.stages.project_forces import Options, run
from tests.data.cg_sets import seed_set
from tests.stages import force_cases as cases

Case = tuple[list[Path], Path]


def refused(
    case: Case,
    kind: type[MLFFError],
    message: str,
    *,
    output: str = "cg.npz",
    **options: Any,
) -> MLFFError:
    """The error of a run that leaves the folder as it was."""
    folder = case[1].parent
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(kind, match=message) as caught:
        run(*case, folder / output, Options(**options))
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before
    assert caught.value.exit_code == kind.exit_code
    assert caught.value.remedy or caught.value.where or isinstance(caught.value, UsageError)
    return caught.value


def one(
    folder: Path,
    *,
    n: int = 40,
    change: Callable[[np.ndarray, np.ndarray], None] | None = None,
    **molecule: Any,
) -> Case:
    """One trajectory, whose arrays or whose molecule was changed."""
    beads = dataclasses.replace(cases.molecule(), **molecule)
    x, f = cases.dynamics(n)
    if change is not None:
        change(x, f)
    path = cases.trajectory(folder / "t.npz", x, f)
    every = cases.block(cases.molecule(), x, np.arange(n))
    every = dataclasses.replace(every, R=np.nan_to_num(every.R))
    return [path], cases.mapped(folder / "m.npz", [beads], [cases.source(path, n)], [every])


def rewritten(case: Case, change: Callable[[Path], None]) -> Case:
    """The trajectory changed behind the set's back, and the set told its new digest."""
    change(case[0][0])
    with np.load(case[1]) as file:
        arrays = dict(file)
    sources = json.loads(str(arrays["sources"]))
    arrays["sources"] = np.array(json.dumps([cases.source(case[0][0], sources[0]["n_frames"])]))
    np.savez(case[1], **arrays)
    return case


# --- trajectories


def test_no_forces(tmp_path: Path) -> None:
    x, _ = cases.dynamics(20)
    case = rewritten(one(tmp_path, n=20), lambda path: cases.trajectory(path, x, None) and None)
    error = refused(case, DataError, "has no forces")
    assert str(case[0][0]) in str(error)


def test_unknown_units(tmp_path: Path) -> None:
    x, f = cases.dynamics(20)
    record = np.array(json.dumps({"units": {"F": "furlong"}}))
    case = rewritten(
        one(tmp_path, n=20), lambda path: cases.trajectory(path, x, f, metadata=record) and None
    )
    refused(case, DataError, "furlong")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_frame_that_is_not_finite(tmp_path: Path, value: float) -> None:
    def change(x: np.ndarray, f: np.ndarray) -> None:
        f[17, 5, 1] = value

    error = refused(one(tmp_path, change=change), DataError, "finite")
    assert "frame 17" in str(error)
    assert "atom 5" in str(error)


def test_a_trajectory_cut_short(tmp_path: Path) -> None:
    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-2000])

    refused(rewritten(one(tmp_path), cut), DataError, str(tmp_path / "t.npz"))


def test_fewer_frames_than_were_mapped(tmp_path: Path) -> None:
    x, f = cases.dynamics(20)
    case = rewritten(one(tmp_path, n=40), lambda path: cases.trajectory(path, x, f) and None)
    refused(case, DataError, "frame 39 was mapped, the trajectory has 20")


def test_fewer_atoms_than_were_mapped(tmp_path: Path) -> None:
    x, f = cases.dynamics(40, n=3)
    case = rewritten(one(tmp_path, n=40), lambda path: cases.trajectory(path, x, f) and None)
    refused(case, DataError, "mapped from atoms up to 15, the trajectory has 12")


def test_a_missing_trajectory(tmp_path: Path) -> None:
    trajectories, mapped = cases.case(tmp_path, (30, 30))
    refused((trajectories[:1], mapped), UsageError, f"mapped from {trajectories[1]}")


def test_a_surplus_trajectory(tmp_path: Path) -> None:
    trajectories, mapped = cases.case(tmp_path, (30,))
    other = cases.trajectory(tmp_path / "other.npz", *cases.dynamics(30, seed=9))
    refused(([*trajectories, other], mapped), UsageError, "other.npz is not among the sources")


def test_a_trajectory_that_changed(tmp_path: Path) -> None:
    trajectories, mapped = cases.case(tmp_path, (30,))
    cases.trajectory(trajectories[0], *cases.dynamics(30, seed=9))
    refused((trajectories, mapped), UsageError, "its content has changed since")


def test_a_trajectory_given_twice(tmp_path: Path) -> None:
    trajectories, mapped = cases.case(tmp_path, (30,))
    copy = tmp_path / "copy.npz"
    copy.write_bytes(trajectories[0].read_bytes())
    refused(([*trajectories, copy], mapped), UsageError, "the same content")
    refused(([*trajectories, *trajectories], mapped), UsageError, "given twice")


def test_no_such_file(tmp_path: Path) -> None:
    trajectories, mapped = cases.case(tmp_path, (30,))
    refused(([tmp_path / "none.h5"], mapped), DataError, "none.h5")
    refused((trajectories, tmp_path / "none.npz"), DataError, "none.npz")


def test_a_file_that_is_no_trajectory(tmp_path: Path) -> None:
    case = rewritten(one(tmp_path), lambda path: path.write_text("text") and None)
    refused(case, DataError, "not a trajectory")


# --- the mapped set


def test_the_mapped_set_comes_last(tmp_path: Path) -> None:
    trajectories, mapped = cases.case(tmp_path, (30, 20))
    other = tmp_path / "t.pdb"
    other.write_text("text")
    for given, last, found in (
        ([mapped, trajectories[0]], trajectories[1], "a trajectory .npz. in its place and .*m"),
        (trajectories[:1], trajectories[1], "a trajectory .npz. in its place"),
        ([mapped, *trajectories], mapped, "mapped.npz among the trajectories"),
    ):
        error = refused((given, last), UsageError, f"the mapped set comes last.*{found}")
        assert error.remedy == "mlff project-forces TRAJECTORIES MAPPED -o OUTPUT"
    refused((trajectories, other), DataError, "not a readable NPZ file")


def test_a_set_of_a_seed(tmp_path: Path) -> None:
    trajectories, _ = cases.case(tmp_path, (30,))
    seed_set(tmp_path / "seed.npz", [3, 3])
    error = refused((trajectories, tmp_path / "seed.npz"), DataError, "mappings and the sources")
    assert "cg-map" in str(error)


def test_a_set_with_forces(tmp_path: Path) -> None:
    case = cases.case(tmp_path, (60,))
    run(*case, tmp_path / "cg.npz")
    refused((case[0], tmp_path / "cg.npz"), DataError, "has forces already", output="again.npz")


def test_no_frames(tmp_path: Path) -> None:
    case = one(tmp_path)
    with np.load(case[1]) as file:
        arrays = {k: v[:0] if v.ndim and len(v) == 40 else v for k, v in dict(file).items()}
    np.savez(case[1], **arrays)
    refused(case, DataError, "frames and beads are needed")


def test_a_set_cut_short(tmp_path: Path) -> None:
    case = one(tmp_path)
    case[1].write_bytes(case[1].read_bytes()[:500])
    refused(case, DataError, "m.npz")


def test_an_unknown_source(tmp_path: Path) -> None:
    case = one(tmp_path)
    with np.load(case[1]) as file:
        arrays = dict(file)
    arrays["source"] = arrays["source"] + 3
    np.savez(case[1], **arrays)
    refused(case, DataError, "every frame needs a source")


def test_an_atom_in_two_beads(tmp_path: Path) -> None:
    mapping = cases.molecule().mapping.copy()
    mapping[1] = 0.0
    mapping[1, [0, 4]] = 0.5
    error = refused(one(tmp_path, mapping=mapping), DataError, "beads 0, 1")
    assert "m.npz, molecule chain" in str(error)


def test_a_bead_without_atoms(tmp_path: Path) -> None:
    mapping = cases.molecule().mapping.copy()
    mapping[2] = 0.0
    refused(one(tmp_path, mapping=mapping), DataError, "add up to 1, found 0 for bead 2")


# --- constraints and numerics


def test_a_group_across_two_beads(tmp_path: Path) -> None:
    case = one(tmp_path)
    file = tmp_path / "c.txt"
    file.write_text("0 4\n")
    error = refused(
        case,
        DataError,
        "constraint group of atoms 0, 4 belongs to beads 0, 1",
        constraints=str(file),
    )
    assert "chain" in str(error)


def test_constraints_with_half_an_atom_outside(tmp_path: Path) -> None:
    beads = dataclasses.replace(cases.molecule(), atom_index=np.arange(2, 18, dtype=np.int32))
    x, f = cases.dynamics(40, n=5)
    path = cases.trajectory(tmp_path / "t.npz", x, f)
    every = cases.block(cases.molecule(), x[:, :16], np.arange(40))
    mapped = cases.mapped(tmp_path / "m.npz", [beads], [cases.source(path, 40)], [every])
    file = tmp_path / "c.txt"
    file.write_text("1 2\n")
    refused(([path], mapped), DataError, "only one of them belongs", constraints=str(file))


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ("atuo", "auto finds what the simulation kept rigid"),
        ("hbonds", "topology takes bonds to hydrogen"),
        ("groups.txt", "check the path"),
        ("far/groups", "check the path"),
    ],
)
def test_no_such_file_of_constraints(tmp_path: Path, given: str, remedy: str) -> None:
    error = refused(one(tmp_path), UsageError, "auto, topology, none or a file", constraints=given)
    assert remedy in str(error.remedy)


def test_a_singular_gram_matrix(tmp_path: Path) -> None:
    error = refused(one(tmp_path, n=4), NumericalError, "singular", constraints="none")
    assert error.exit_code == 5
    assert "--l2" in str(error)


def test_atoms_that_feel_nothing(tmp_path: Path) -> None:
    def change(x: np.ndarray, f: np.ndarray) -> None:
        f[:, 7] = 0.0

    error = refused(one(tmp_path, change=change), NumericalError, "no force acts on atoms 7")
    assert "--l2" in str(error)


# --- options

BAD_OPTIONS: list[tuple[dict[str, Any], type[MLFFError], str]] = [
    ({"l2": -1.0}, UsageError, "--l2 must be 0 or more"),
    ({"l2": float("nan")}, UsageError, "--l2 must be 0 or more"),
    ({"l2": "cv", "method": "basic"}, UsageError, "of the optimal map"),
    ({"holdout": 1.0}, UsageError, "--holdout must be"),
    ({"holdout": -0.1}, UsageError, "--holdout must be"),
    ({"noise": 0.0}, UsageError, "--noise must be 1e-06 to 5"),
    ({"noise": 50.0}, UsageError, "--noise must be 1e-06 to 5"),
    ({"temperature": 300.0}, UsageError, "--noise is not given"),
    ({"noise": 0.1, "temperature": -3.0}, UsageError, "--temperature must be above 0"),
    ({"noise": 0.1, "temperature": 350.0}, UsageError, "contradicts the set"),
    ({"noise": 0.1, "engine": "aggforce"}, UsageError, "native engine"),
    ({"workers": -1}, UsageError, "--workers"),
    ({"seed": -1}, UsageError, "--seed"),
    ({"device": "tpu"}, UsageError, "--device must be"),
    ({"device": "cuda", "workers": 2}, UsageError, "this process alone"),
    ({"device": "cuda:99"}, MissingDependencyError, "needs a GPU"),
    ({"output": "t.npz", "force": True}, UsageError, "would replace an input"),
    ({"output": "m.npz", "force": True}, UsageError, "would replace an input"),
    ({"output": "m.npz"}, UsageError, "exists already"),
]


@pytest.mark.parametrize(("options", "kind", "message"), BAD_OPTIONS)
def test_options(
    tmp_path: Path, options: dict[str, Any], kind: type[MLFFError], message: str
) -> None:
    refused(one(tmp_path), kind, message, **options)


def test_aggforce_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "aggforce", None)
    error = refused(one(tmp_path), MissingDependencyError, "aggforce", engine="aggforce")
    assert error.exit_code == 4
    assert error.remedy == "pip install git+https://github.com/noegroup/aggforce"


def test_too_few_frames_for_a_holdout(tmp_path: Path) -> None:
    refused(one(tmp_path, n=1), UsageError, "1 frame is too few")
    folder = tmp_path / "five"
    folder.mkdir()
    case = one(folder, n=5)
    case[0][0].write_bytes(case[0][0].read_bytes() + b"changed")  # told before files are read
    refused(case, UsageError, "5 folds", l2="cv")


def test_several_temperatures(tmp_path: Path) -> None:
    case = one(tmp_path)
    with np.load(case[1]) as file:
        arrays = dict(file)
    arrays["temperature"][20:] = 350.0
    np.savez(case[1], **arrays)
    error = refused(case, UsageError, "2 temperatures .300, 350 K.", noise=0.1)
    assert "cg-map --temperature" in str(error)
    reporter = NullReporter()
    run(*case, tmp_path / "cg.npz", Options(), reporter)
    assert any("2 temperatures" in text for text in reporter.warnings)


def test_noise_without_a_temperature(tmp_path: Path) -> None:
    case = one(tmp_path)
    with np.load(case[1]) as file:
        arrays = dict(file)
    arrays["temperature"][:] = np.nan
    np.savez(case[1], **arrays)
    refused(case, UsageError, "give --temperature|does not say", noise=0.1)
    run(*case, tmp_path / "cg.npz", Options(noise=0.1, temperature=300.0))


# --- interruption


class Interrupting(NullReporter):
    """Ctrl-C after some frames."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what

    def progress(self, total: int | None, description: str, unit: str = "") -> NullProgress:
        class Bar(NullProgress):
            def advance(self, n: int = 1, **fields: Any) -> None:
                raise KeyboardInterrupt

        return Bar() if description == self._what else NullProgress()


@pytest.mark.parametrize("what", ["reading forces", "projecting forces"])
def test_an_interruption_leaves_nothing(tmp_path: Path, what: str) -> None:
    case = cases.case(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        run(*case, tmp_path / "cg.npz", Options(), Interrupting(what))
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_bad_frame_late_in_the_second_pass_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = cases.case(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    original = np.concatenate

    def fails(*arguments: Any, **more: Any) -> Any:
        found = original(*arguments, **more)
        if found.ndim == 3 and found.shape[1:] == (cases.N_RESIDUES, 3):
            raise DataError("damaged", where="here")
        return found

    monkeypatch.setattr("mlff_cli.coarse.forces.force_passes.np.concatenate", fails)
    with pytest.raises(DataError, match="damaged"):
        run(*case, tmp_path / "cg.npz")
    assert sorted(path.name for path in tmp_path.iterdir()) == before
