"""The prior of a coarse-grained training: read from a file, or fitted to the training frames."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from mlff_cli.coarse.forces.force_map import GAS_CONSTANT
from mlff_cli.coarse.priors.prior_fit import DAMPING, fit_prior
from mlff_cli.coarse.priors.set_distributions import Counted, count_frames
from mlff_cli.coarse.priors.set_terms import MoleculeTerms, molecule_terms
from mlff_cli.core.errors import DataError
from mlff_cli.core.reporting import Reporter
from mlff_cli.data.beads.bead_frames import BeadFrames
from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.data.beads.prior_file import PriorFile, Term, read_prior
from mlff_cli.families.coarse_grained_settings import BeadModelSection
from mlff_cli.physics.terms import Terms
from mlff_cli.potentials.prior import BoundTerms, Prior

ROOM = 300.0  # K of sets that do not say their temperature, as the seed's
OTHER = 1.0  # K: temperatures further apart are not the same
UNKNOWN = "unknown"  # mapping
KEPT_TERMS = 1 << 23  # bound terms that are held, some 200 MB


def choose_prior(
    section: BeadModelSection,
    frames: BeadFrames,
    index: np.ndarray,
    temperature: float | None,
    seed: int,
    reporter: Reporter,
) -> PriorFile | None:
    """The prior that a configuration asks for.

    Args:
        section: `model` of the configuration.
        frames: of all files.
        index: numbers of the frames to fit to, where no file is given.
        temperature: K, in place of the files'.
        seed: of frames whose pairs are counted, where there are too many for all.
        reporter: who is told.

    Returns:
        The prior with the configuration's weights; None where it wants none.

    Raises:
        DataError: the file is wrong or does not know the training's types, or the frames are too
            few to fit to.
        NumericalError: a distribution that the form cannot describe at all.
    """
    if not section.use_priors:
        return None
    if section.prior is not None:
        prior = read_prior(section.prior)
        where = section.prior
        known, own = prior.temperature, frames.temperature
        if known is not None and own is not None and abs(known - own) > OTHER:
            reporter.warning(f"{where} was fitted at {known:g} K, the frames are of {own:g} K")
        mappings = _mappings(frames)
        if prior.mapping not in ("", UNKNOWN) and mappings - {prior.mapping}:
            reporter.warning(
                f"{where} was fitted to beads of the mapping {prior.mapping!r}, the frames are of "
                f"{', '.join(map(repr, sorted(mappings)))}: types of one name may be other beads"
            )
    else:
        where = str(frames.paths[0])
        prior = _fitted(section, frames, index, temperature, seed, reporter)
    unknown = [name for name in frames.type_names if name not in prior.species]
    if unknown:
        raise DataError(
            f"the prior does not know the types {', '.join(unknown[:6])}",
            where=where,
            remedy="fit it to data that hold these types, or leave model.prior out",
        )
    return weighted(prior, section, reporter)


def weighted(prior: PriorFile, section: BeadModelSection, reporter: Reporter) -> PriorFile:
    """The prior with the configuration's weights, without terms that are switched off."""
    terms = dict(prior.terms)
    if not section.excluded_volume:
        terms.pop("excluded_volume", None)
    elif "excluded_volume" not in terms:
        reporter.warning(
            "the prior has no excluded_volume: nothing keeps beads 2 to 5 residues apart from "
            "each other; fit one with `mlff fit-prior`, or set model.excluded_volume=false"
        )
    absent = [name for name in section.prior_weights if name not in terms]
    if absent:
        reporter.info(f"the prior has no {', '.join(absent)}: model.prior_weights changes nothing")
    changed: dict[str, Term] = {}
    for name, term in terms.items():
        weight = section.prior_weights.get(name, term.weight)  # type: ignore[call-overload]
        if weight:
            changed[name] = dataclasses.replace(term, weight=weight)
    if not changed:
        raise DataError(
            "no term of the prior is left",
            where="model.prior_weights",
            remedy="set model.use_priors=false to train without a prior",
        )
    return dataclasses.replace(prior, terms=changed)


def _fitted(
    section: BeadModelSection,
    frames: BeadFrames,
    index: np.ndarray,
    temperature: float | None,
    seed: int,
    reporter: Reporter,
) -> PriorFile:
    kelvin = temperature or frames.temperature
    if kelvin is None:
        kelvin = ROOM
        reporter.warning(
            f"the frames do not say their temperature: the prior is fitted for {ROOM:g} K; set "
            "data.temperature to change it"
        )
    counted = Counted()
    with reporter.progress(len(index), "prior", "frames") as bar:
        for f in range(len(frames.paths)):
            rows = frames.row[index[frames.file[index] == f]]
            if len(rows):
                cg = frames.set_of(f)
                count_frames(counted, cg, rows, molecule_terms(cg), seed, bar.advance)
    try:
        fit = fit_prior(counted.distributions, GAS_CONSTANT * kelvin, form=section.prior_form)
    except DataError as error:
        error.where = error.where or str(frames.paths[0])
        error.remedy = error.remedy or "give a prior file (model.prior), or use_priors=false"
        raise
    for note in fit.notes:
        reporter.info(note)
    if fit.broken:
        kinds = ", ".join(f"{name} ({n})" for name, n in list(fit.broken.items())[:6])
        reporter.warning(
            f"bonds longer than twice the median of their type were left out of the prior: {kinds}"
        )
    names = dict.fromkeys(name for table in frames.tables for name in table)
    return PriorFile(
        species=tuple(names),
        terms=fit.terms(),
        temperature=kelvin,
        mapping=mapping_of(frames),
        form=section.prior_form,
        damping=DAMPING,
    )


def mapping_of(frames: BeadFrames) -> str:
    """Name of the mapping that all files share; "unknown" where there is none."""
    names = _mappings(frames)
    return names.pop() if len(names) == 1 else UNKNOWN


def _mappings(frames: BeadFrames) -> set[str]:
    """Names of the mappings that the files tell."""
    return set().union(*(frames.set_of(f).mappings() for f in range(len(frames.paths))))


class BoundMolecules:
    """Terms of the training's molecules with their parameters' rows, looked up when asked for.

    Args:
        prior: that they are bound to.
        frames: whose molecules.
    """

    def __init__(self, prior: Prior, frames: BeadFrames) -> None:
        self._prior = prior
        self._frames = frames
        self._kept: OrderedDict[int, BoundTerms] = OrderedDict()
        self._held = 0
        self._terms: tuple[CGSet, Sequence[MoleculeTerms]] | None = None  # of the last file

    def __call__(self, k: int) -> BoundTerms:
        """Of molecule k; on the CPU.

        Raises:
            DataError: the prior lacks a term of it.
        """
        if k in self._kept:
            self._kept.move_to_end(k)
            return self._kept[k]
        bound = self._prior.bind(*self.terms(k))
        self._kept[k] = bound
        self._held += bound.n_terms
        while self._held > KEPT_TERMS and len(self._kept) > 1:
            self._held -= self._kept.popitem(last=False)[1].n_terms
        return bound

    def terms(self, k: int) -> tuple[Terms, list[str]]:
        """Terms and names of the types of molecule k."""
        molecule = self._frames.molecules[k]
        cg = self._frames.set_of(molecule.file)
        if self._terms is None or self._terms[0] is not cg:
            self._terms = cg, molecule_terms(cg)
        known = self._terms[1][molecule.number]
        return known.terms, known.types
