"""Prior files: what is written is read, lookups, and what is refused with its place."""

import sys
from subprocess import run

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlff_cli.core.errors import DataError, StorageError, UsageError
from mlff_cli.data.beads.prior_file import (
    ANY,
    UNITS,
    Entry,
    PriorFile,
    Term,
    prior_from_plain,
    prior_to_plain,
    read_prior,
    write_prior,
)
from mlff_cli.data.beads.prior_forms import (
    Cosine,
    Fourier,
    Harmonic,
    PeriodicSpline,
    SoftSphere,
    Spline,
    Wall,
)

few = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SPRING = "{form: harmonic, k: 120.0, r0: 3.8}"
SPECIES = ("ALA", "GLY", "NO")
number = st.floats(-1e6, 1e6)
positive = st.floats(1e-6, 1e6)


def numbers(n):
    return st.lists(number, min_size=n, max_size=n).map(tuple)


def ascending(n):
    steps = st.lists(st.floats(0.1, 9.0), min_size=n, max_size=n)
    return steps.map(lambda s: tuple(np.cumsum(s).tolist()))


size = st.integers(3, 6)
spline = st.builds(
    lambda ends, values, slopes: Spline(*ends, values, slopes),
    ascending(2),
    size.flatmap(numbers),
    st.none() | numbers(2),
)
soft = st.builds(lambda e, x: SoftSphere(e, x[1], x[0], x[2], x[3]), positive, ascending(4))
walls = st.none() | st.builds(lambda k, ends: Wall(k, *ends), positive, ascending(2))
FORMS = {
    "bond": (2, st.builds(Harmonic, positive, positive) | spline),
    "angle": (3, size.flatmap(lambda n: st.builds(Fourier, numbers(n), numbers(n))) | spline),
    "dihedral": (
        4,
        size.flatmap(lambda n: st.builds(Cosine, numbers(n), numbers(n)))
        | st.builds(PeriodicSpline, size.flatmap(numbers)),
    ),
    "repulsion": (2, soft),
    "excluded_volume": (2, soft),
}


@st.composite
def priors(draw):
    terms = {}
    for name in sorted(draw(st.sets(st.sampled_from(list(FORMS)), min_size=1))):
        width, form = FORMS[name]
        types = st.lists(st.sampled_from((*SPECIES, ANY)), min_size=width, max_size=width).map(
            tuple
        )
        unique = draw(st.lists(types, min_size=1, max_size=3, unique_by=lambda t: min(t, t[::-1])))
        wall = walls if name in ("bond", "angle") else st.none()
        terms[name] = Term(
            weight=draw(st.floats(0.0, 9.0)),
            separation={"repulsion": (6, None), "excluded_volume": (2, 5)}.get(name),
            entries=tuple(
                Entry(tuple(t), draw(form), draw(wall), draw(st.integers(0, 10**6))) for t in unique
            ),
        )
    return PriorFile(
        temperature=draw(st.none() | positive),
        mapping="ca",
        form=draw(st.sampled_from(["parametric", "spline"])),
        species=SPECIES,
        terms=terms,
        provenance={"command": "mlff fit-prior", "seed": None},
    )


def simple(**changes):
    entry = Entry((ANY, ANY), Harmonic(120.0, 3.8), Wall(200.0, 3.5, 4.1), 12000)
    sphere = Entry((ANY, ANY), SoftSphere.of(1.0, 5.0))
    values = {
        "species": SPECIES,
        "terms": {
            "bond": Term(entries=(entry,)),
            "repulsion": Term(entries=(sphere,), separation=(6, None)),
        },
    }
    return PriorFile(**{**values, **changes})


@few
@given(priors())
def test_plain_values_give_the_same_prior(prior):
    plain = prior_to_plain(prior)
    assert prior_from_plain(plain) == prior
    assert plain["units"] == UNITS


@few
@given(prior=priors())
def test_a_file_gives_the_same_prior_and_the_same_bytes(tmp_path_factory, prior):
    folder = tmp_path_factory.mktemp("prior")
    write_prior(folder / "a.yaml", prior)
    write_prior(folder / "b.yaml", read_prior(folder / "a.yaml"))
    assert read_prior(folder / "a.yaml") == prior
    assert (folder / "a.yaml").read_bytes() == (folder / "b.yaml").read_bytes()


def test_numbers_of_numpy_are_taken():
    assert Harmonic(np.float32(120.0), np.float64(3.5)) == Harmonic(120.0, 3.5)
    assert Cosine(np.array([1.0]), np.array([2.0])) == Cosine((1.0,), (2.0,))


def test_knots():
    assert Spline(1.0, 2.0, (0.0, 1.0, 0.0)).knots.tolist() == [1.0, 1.5, 2.0]
    knots = PeriodicSpline((0.0, 1.0, 0.0, 2.0)).knots
    assert knots == pytest.approx([-np.pi, -np.pi / 2, 0.0, np.pi / 2])


angle = Fourier((1.0,), (0.0,))


def angles(*types):
    return Term(entries=tuple(Entry(t, angle) for t in types))


def test_the_entry_that_names_most_types_is_found():
    term = angles((ANY, ANY, ANY), (ANY, "ALA", ANY), ("GLY", "ALA", "NO"), ("GLY", "GLY", ANY))
    assert term.find(("GLY", "ALA", "NO")) == 2
    assert term.find(("NO", "ALA", "GLY")) == 2
    assert term.find(("ALA", "ALA", "ALA")) == 1
    assert term.find(("NO", "GLY", "GLY")) == 3
    assert term.find(("NO", "NO", "ALA")) == 0
    assert term.find(("unheard", "of", "types")) == 0
    assert angles(("ALA", "ALA", "ALA")).find(("ALA", "ALA", "GLY")) is None


def test_of_two_that_name_as_many_the_first_counts():
    assert angles(("ALA", ANY, ANY), (ANY, "GLY", ANY)).find(("ALA", "GLY", "NO")) == 0
    assert angles((ANY, "GLY", ANY), ("ALA", ANY, ANY)).find(("NO", "GLY", "ALA")) == 0


@few
@given(prior=priors(), data=st.data())
def test_a_term_read_backwards_is_the_same(prior, data):
    for name, term in prior.terms.items():
        types = tuple(data.draw(st.sampled_from(SPECIES)) for _ in range(FORMS[name][0]))
        assert term.find(types) == term.find(types[::-1])


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("r0: 3.8", "r0: -1", 15, "parameters.r0: Input should be greater than 0, found -1"),
        ("r0: 3.8", "r0: .nan", 15, "finite"),
        ("r0: 3.8", "r_0: 3.8", 15, "r_0: unknown key; did you mean 'r0'"),
        ("k: 120.0, ", "", 15, "parameters.k: is required"),
        ("form: harmonic", "form: harmonik", 15, "harmonik"),
        (SPRING, "{form: cosine, k: [1.0], gamma: [0.0]}", None, "or spline, found cosine"),
        ("low: 3.5", "low: 4.5", 16, "low < high"),
        ("{k: 200.0, low: 3.5, high: 4.1}", "{k: 200.0}", 16, "needs `low`"),
        ("samples: 12000", "samples: many", 17, "found 'many'"),
        ("weight: 1.0", "weigth: 1.0", 12, "did you mean 'weight'"),
        ("weight: 1.0", "weight: -1.0", 12, "greater than or equal to 0"),
        ("  bond:", "  bonds:", 10, "did you mean 'bond'"),
        ("[6, null]", "[1, null]", 20, "greater than or equal to 2"),
        ("[6, null]", "[6, 5]", None, "is empty"),
        ("    separation: [6, null]\n", "", None, "repulsion needs `separation`"),
        ("core: 2.5", "core: 25.0", 23, "core < onset < cutoff"),
        ("species: [ALA, GLY, 'NO']", "species: [ALA, ALA]", None, "once each"),
        ("types: ['*', '*']", "types: ['*', TRP]", None, "'TRP' is not among"),
        ("types: ['*', '*']", "types: ['*']", None, "2 types"),
        ("temperature: null", "temperature: 0", 5, "greater than 0"),
        ("energy: kcal/mol", "energy: kJ/mol", None, "units must be"),
        ("version: 1", "version: 2", None, "version 1"),
        ("format: mlff-prior", "format: other", None, "not a prior file"),
        ("damping: 0.2", "damping: [", 11, "not YAML"),
        ("  repulsion:", "  bond:", 18, "the key 'bond' occurs twice"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_its_line(tmp_path, old, new, line, message):
    path = tmp_path / "prior.yaml"
    write_prior(path, simple())
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError) as caught:
        read_prior(path)
    assert message in caught.value.message
    assert caught.value.where == (f"{path}:{line}" if line else str(path))
    assert caught.value.exit_code == 3


def test_the_same_types_twice_are_refused():
    with pytest.raises(ValueError, match="twice"):
        simple(terms={"angle": angles(("ALA", "GLY", "NO"), ("NO", "GLY", "ALA"))})


def test_walls_belong_to_bonds_and_angles():
    entry = Entry((ANY,) * 4, Cosine((1.0,), (0.0,)), Wall(1.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="bond and angle have walls"):
        simple(terms={"dihedral": Term(entries=(entry,))})


def test_series_need_coefficients_of_equal_number():
    with pytest.raises(ValueError, match="found 2 of a, 1 of b"):
        Fourier((1.0, 2.0), (1.0,))
    with pytest.raises(ValueError, match="1 or more"):
        Cosine((), ())


def test_files_that_cannot_be_read_or_written(tmp_path):
    with pytest.raises(StorageError):
        read_prior(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a text file"):
        read_prior(tmp_path / "binary.yaml")
    for text in ("", "[1, 2]", "3"):
        (tmp_path / "other.yaml").write_text(text)
        with pytest.raises(DataError, match="not a prior file"):
            read_prior(tmp_path / "other.yaml")
    with pytest.raises(UsageError):
        write_prior(tmp_path / "other.yaml", simple())


def test_torch_is_not_imported():
    code = "import sys, mlff_cli.data.beads.prior_file; sys.exit('torch' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0
