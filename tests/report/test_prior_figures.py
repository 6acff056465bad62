"""Pages of fitted distributions: what is drawn, where, and always the same bytes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from mlff_cli.coarse.priors.prior_entries import Fitted
from mlff_cli.coarse.priors.prior_fit import fit_prior
from mlff_cli.report.prior_figures import COLUMNS, MAX_PAGES, ROWS, page_paths, pages, write_page
from tests.coarse.free_chains import KT, free_chains
from tests.coarse.priors.test_prior_fit import bridged, counted

SIZE = COLUMNS * ROWS


def fitted(form: str = "parametric") -> list[Fitted]:
    return fit_prior(counted(free_chains(400, 9)), KT, form=form, min_samples=300).fitted


def test_pooled_terms_come_first_and_all_that_has_samples_is_drawn() -> None:
    all_of_them = fitted()
    drawn = pages(all_of_them)
    flat = [f for page in drawn for f in page]
    assert [f.label for f in flat[:5]] == ["pooled"] * 5
    assert all(len(page) <= SIZE for page in drawn)
    assert {id(f) for f in flat} == {id(f) for f in all_of_them if f.histogram is not None}
    # a sphere of two types follows from those of each, and has no histogram of its own
    assert all(f.kind in ("repulsion", "excluded_volume") for f in all_of_them if not f.histogram)


def test_more_than_all_pages_hold_leaves_out_the_least_populated() -> None:
    few = fitted()
    typed = [f for f in few if f.label != "pooled" and f.histogram]
    copies = MAX_PAGES * SIZE // len(typed) + 2
    many = [*few[:1], *(replace(f) for f in typed for _ in range(copies))]
    drawn = [f for page in pages(many) for f in page]
    assert len(drawn) == MAX_PAGES * SIZE
    shown = {id(f) for f in drawn}
    left_out = [f for f in many if id(f) not in shown]
    assert len(left_out) == len(many) - len(drawn)
    assert max(f.entry.samples for f in left_out) <= min(f.entry.samples for f in drawn)


def test_pages_are_named_after_the_prior() -> None:
    names = [p.name for p in page_paths(Path("a/prior.yaml"), 3)]
    assert names == ["prior.png", "prior_2.png", "prior_3.png"]


@pytest.mark.parametrize("form", ["parametric", "spline"])
def test_the_same_fit_gives_the_same_bytes(tmp_path: Path, form: str) -> None:
    panels = pages(fitted(form))[0][:6:2]
    for name in ("a.png", "b.png"):
        write_page(tmp_path / name, panels, KT, "set.npz, 300 K")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    image = imread(tmp_path / "a.png")
    assert image.shape[1] > 1500
    # samples, densities and walls are there in their colours
    for colour in ("#a9c0d3", "#c8553d", "#efe6d8"):
        rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        assert (np.abs(image[..., :3] - rgb).max(-1) < 0.02).sum() > 50


def test_a_single_distribution_and_a_rigid_one_are_drawn(tmp_path: Path) -> None:
    rigid = fit_prior(counted(np.tile([[0.0, 0, 0], [3.8, 0, 0]], (200, 1, 1))), KT)
    for name, fit in (("one.png", fit_prior(bridged(500, both=False), KT)), ("two.png", rigid)):
        for page in pages(fit.fitted):
            write_page(tmp_path / name, page, KT, "")
        assert imread(tmp_path / name).std() > 0.01
