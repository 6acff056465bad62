"""`mlff compile`: a model becomes a verified, self-contained artifact.

Everything the model file knows is a default, and an option that contradicts it is an error. The
artifact is loaded from what was written and compared with the model; only then do it and, last, the
YAML file beside it appear: `<output>_fid<k>.jpt` of one fidelity, compared with dftd3, too;
`<output>.jpt` of a coarse-grained model or ensemble for one molecule, or a folder for LAMMPS.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mlff_cli.core.artifacts import check_writable, provenance, sha256
from mlff_cli.core.command_line import command_line
from mlff_cli.core.elements import SYMBOLS
from mlff_cli.core.errors import UsageError
from mlff_cli.core.reporting import NullReporter, Reporter, Summary, Table
from mlff_cli.data.model_file import ModelFile, load_model_file, load_plain
from mlff_cli.data.sae import read_sae
from mlff_cli.deploy.artifact import meta_path, write_artifact
from mlff_cli.deploy.bare_weights import architecture_from_yaml, model_file_of
from mlff_cli.deploy.contradictions import check_options, check_sae, check_spec
from mlff_cli.deploy.dispersion_choice import (
    DispersionChoice,
    DispersionRequest,
    choose_dispersion,
)
from mlff_cli.deploy.potential import DTYPES, fidelity_entry, fidelity_list, potential_of
from mlff_cli.deploy.verify import VerificationRecord
from mlff_cli.families.coarse_grained_compilation import PACKAGES, BeadCompilation, BeadRequest

MULTIFIDELITY, COARSE_GRAINED = "multifidelity", "coarse-grained"
FORMATS = {MULTIFIDELITY: ("jpt",), COARSE_GRAINED: ("jpt", "lammps")}  # by family
LATER = ("pt2", "eager", "lammps")
REPLACED = {  # what the seed's files were for, and what is for it now
    "mlir": "use --format lammps: a folder that LAMMPS runs, with Allegro for pair_allegro",
    "pkl": "use --format jpt: code and weights in one verified file; the trained weights are in "
    "model.pt",
}
SUFFIX = ".jpt"
BEADS_ONLY = ("molecule", "structure", "device")
EVERYBODY = ("format", "dtype", "force", "dry_run")


@dataclass(frozen=True)
class Options:
    """What `mlff compile` can be told; None leaves it to the model file.

    Attributes:
        fidelity_level: which fidelity; None takes the only one.
        fidelity_offset: distance between fidelities in training.
        num_fidelities: fidelities in the model.
        use_fidelity_readouts: whether each has its own readouts.
        model: model.yaml of weights that do not describe themselves.
        sae: SAE file of this fidelity.
        dispersion: none or d3bj.
        dispersion_functional: whose parameters; None takes those of the level of theory.
        dispersion_s6: custom D3(BJ) parameter, as are s8, a1, a2 and s9.
        dispersion_s8: see `dispersion_s6`.
        dispersion_a1: see `dispersion_s6`.
        dispersion_a2: see `dispersion_s6`.
        dispersion_s9: see `dispersion_s6`.
        format: jpt; of coarse-grained models also lammps.
        dtype: precision of the network, float32 or float64.
        molecule: which molecule a coarse-grained model is compiled for; None takes the only one.
        structure: CG NPZ, H5MD or PDB file of beads whose first frame is started from; a CG NPZ
            may hold a molecule that the model was not trained on.
        device: that Allegro is compiled for in LAMMPS, cpu or cuda.
        force: replace existing outputs.
        dry_run: check everything, write nothing.
    """

    fidelity_level: int | None = None
    fidelity_offset: int | None = None
    num_fidelities: int | None = None
    use_fidelity_readouts: bool | None = None
    model: Path | None = None
    sae: Path | None = None
    dispersion: str = "none"
    dispersion_functional: str | None = None
    dispersion_s6: float | None = None
    dispersion_s8: float | None = None
    dispersion_a1: float | None = None
    dispersion_a2: float | None = None
    dispersion_s9: float | None = None
    format: str = "jpt"
    dtype: str = "float32"
    molecule: str | None = None
    structure: Path | None = None
    device: str = "cpu"
    force: bool = False
    dry_run: bool = False

    def request(self) -> DispersionRequest:
        """The dispersion asked for."""
        prefix = "dispersion_"
        named = {f.name.removeprefix(prefix) for f in fields(self) if f.name.startswith(prefix)}
        return DispersionRequest(self.dispersion, **{n: getattr(self, prefix + n) for n in named})


def run(
    weights: Path | str | Sequence[Path | str] = "model.pt",
    output: Path | str = "compiled_model",
    options: Options = Options(),  # noqa: B008 - frozen
    reporter: Reporter | None = None,
) -> Summary:
    """Compile, verify, keep.

    Args:
        weights: a model file, a checkpoint, or the seed's {"model": state_dict}; of a
            coarse-grained ensemble its members.
        output: stem of the outputs, or a name that ends in .jpt, which is taken as it is; for
            LAMMPS a folder.
        options: see `Options`.
        reporter: who listens.

    Raises:
        UsageError: an option contradicts the model, comes later, or is missing.
        DataError: a file is damaged or lacks something.
        MissingDependencyError: a package or compiler that the model needs is absent.
        CheckFailedError: the artifact does not reproduce the model; nothing is kept.
    """
    reporter = reporter or NullReporter()
    paths = tuple(map(Path, (weights,) if isinstance(weights, Path | str) else weights))
    if not paths:
        raise UsageError("no model is named", remedy="write for example --weights model.pt")
    if not Path(output).name:
        raise UsageError(
            f"--output is the beginning of a file name, found {str(output)!r}",
            remedy="write for example --output compiled_model",
        )
    _check_named(options)
    family = _family(paths[0])
    _check_format(options, family)
    _check_family(options, family, paths)
    if family == COARSE_GRAINED:
        return _beads(paths, Path(output), options, reporter)
    return _fidelity(paths[0], Path(output), options, reporter)


def _beads(
    weights: tuple[Path, ...], output: Path, options: Options, reporter: Reporter
) -> Summary:
    """A coarse-grained model, or an ensemble."""
    request = BeadRequest(
        weights,
        output,
        options.format,
        options.dtype,
        options.molecule,
        None if options.structure is None else Path(options.structure),
        options.device,
        options.force,
    )
    compilation = BeadCompilation(request)
    for note in compilation.notes:
        reporter.warning(note)
    if options.dry_run:
        line = f"would compile {compilation.plan} to {compilation.target}"
        return Summary(compilation.told(), lines=[line])
    reporter.info(f"compiling {compilation.plan}, then verifying what was written")
    words = ["mlff", "compile", *(w for path in weights for w in ("--weights", path))]
    command = command_line(words, options, Options())
    return compilation.carry_out(provenance(command, compilation.inputs, packages=PACKAGES))


def _fidelity(weights: Path, output: Path, options: Options, reporter: Reporter) -> Summary:
    """One fidelity."""
    where = str(weights)
    file = _read(weights, options, reporter)
    k = _level(file, options, where)
    entry = fidelity_entry(file, k, where)
    level = entry.get("level_of_theory")
    choice = choose_dispersion(options.request(), level)
    parameters = choice.parameters if choice else None
    potential = potential_of(file, k, where, dispersion=parameters, dtype=options.dtype)

    path = _artifact_path(output, k)
    for target in (path, meta_path(path)):
        check_writable(target, force=options.force, inputs=[weights])
    plan = f"fidelity {k} ({level or 'level of theory unknown'}), {_words(choice)}"
    if options.dry_run:
        data = {"output": str(path), "fidelity": k, "dispersion": choice and choice.plain()}
        return Summary(data, lines=[f"would compile {plan} of {weights} to {path}"])
    reporter.info(f"compiling {plan}, then verifying what was written")
    inputs = [weights, *(p for p in (options.model, options.sae) if p is not None)]
    origin = provenance(_command(weights, k, options), inputs, packages=["torch", "dftd3"])
    metadata = {
        "family": file.family,
        "fidelity": {"index": k, "dataset": entry.get("dataset"), "level_of_theory": level},
        "species": potential.species,
        "dispersion": choice.plain() if choice else None,
        "sae": {str(z): float(file.sae[k][z]) for z in potential.species},
        "dtype": options.dtype,
        "units": dict(file.units),
        "architecture": _plain(file.architecture),
        "provenance": {**origin, "model": _plain(file.provenance)},
    }
    record = write_artifact(potential, path, metadata, parameters=parameters, force=options.force)
    return _summary(path, plan, metadata, record)


def _family(weights: Path) -> str:
    """The family of a model file; weights that do not describe themselves are multi-fidelity."""
    return str(load_plain(weights).get("family", MULTIFIDELITY))


def _check_named(options: Options) -> None:
    """Refuse what no model has, before any file is read."""
    if options.format in REPLACED:
        raise UsageError(
            f"--format {options.format} belongs to another toolkit and is not written",
            remedy=REPLACED[options.format],
        )
    if not any(options.format in known for known in FORMATS.values()):
        later = "comes in a later version" if options.format in LATER else "is unknown"
        raise UsageError(
            f"--format {options.format} {later}",
            remedy="use --format jpt (TorchScript), which runs wherever torch does; lammps is for "
            "coarse-grained models",
        )
    if options.dtype not in DTYPES:
        raise UsageError(
            f"--dtype must be one of {', '.join(DTYPES)}, found {options.dtype!r}",
            remedy="leave it out for float32",
        )


def _check_format(options: Options, family: str) -> None:
    """Refuse a format that models of the family do not have."""
    if options.format not in FORMATS.get(family, ("jpt",)):
        raise UsageError(
            f"--format {options.format} comes in a later version for a model of the family "
            f"{family!r}",
            remedy="use --format jpt (TorchScript), which runs wherever torch does",
        )


def _check_family(options: Options, family: str, weights: tuple[Path, ...]) -> None:
    """Refuse what belongs to models of another family."""
    if family not in FORMATS:
        raise UsageError(
            f"a model of the family {family!r} is not compiled",
            where=str(weights[0]),
            remedy="use the model file as it is",
        )
    beads = family == COARSE_GRAINED
    foreign = [
        f.name
        for f in fields(options)
        if f.name not in EVERYBODY
        and (f.name in BEADS_ONLY) != beads
        and getattr(options, f.name) != f.default
    ]
    if foreign:
        owner = "multi-fidelity" if beads else "coarse-grained"
        raise UsageError(
            f"--{foreign[0].replace('_', '-')} belongs to {owner} models, this one is of the "
            f"family {family!r}",
            where=str(weights[0]),
            remedy="leave it out",
        )
    if len(weights) > 1 and not beads:
        raise UsageError(
            f"one multi-fidelity model is compiled at a time, found {len(weights)}",
            remedy="name one model with --weights; ensembles of coarse-grained models compile",
        )
    seen: dict[str, Path] = {}
    for path in weights if len(weights) > 1 else ():
        first = seen.setdefault(sha256(path), path)
        if first is not path:
            raise UsageError(
                f"members of an ensemble differ, found the bytes of {first} again",
                where=str(path),
                remedy="name every model once: a repeated one says nothing of the uncertainty",
            )


def _read(weights: Path, options: Options, reporter: Reporter) -> ModelFile:
    """The model file; weights without a description get one from the options."""
    given = {
        "num_fidelities": options.num_fidelities,
        "fidelity_offset": options.fidelity_offset,
        "use_fidelity_readouts": options.use_fidelity_readouts,
    }
    spec = architecture_from_yaml(options.model, given) if options.model else None
    sae = read_sae(options.sae) if options.sae else None
    payload = load_plain(weights)
    if "format_version" not in payload:
        bare, notes = model_file_of(payload, spec, sae, options.fidelity_level, str(weights))
        for note in notes:
            reporter.detail(note)
        return bare
    file = load_model_file(weights)
    check_options(file, given, str(weights))
    if spec is not None:
        check_spec(file, spec, str(options.model), str(weights))
    if sae is not None:
        k = _level(file, options, str(weights))
        if file.sae.get(k):
            check_sae(file.sae[k], sae, str(options.sae))
        else:
            file.sae[k] = sae
    return file


def _level(file: ModelFile, options: Options, where: str) -> int:
    """The fidelity asked for, checked; the only one when none was."""
    if options.fidelity_level is not None:
        return int(fidelity_entry(file, options.fidelity_level, where)["index"])
    if len(file.fidelities) != 1:
        raise UsageError(
            f"the model has {len(file.fidelities)} fidelities: {fidelity_list(file)}",
            where=where,
            remedy="choose one with --fidelity-level",
        )
    return int(file.fidelities[0]["index"])


def _artifact_path(output: Path, k: int) -> Path:
    """compiled_model -> compiled_model_fid0.jpt; a name that ends in .jpt stays as it is."""
    if output.suffix == SUFFIX:
        return output
    return output.with_name(f"{output.name}_fid{k}{SUFFIX}")


def _command(weights: Path, k: int, options: Options) -> str:
    """The command that makes these bytes; the output's name and --force are not part of them."""
    words = ["mlff", "compile", "--weights", str(weights), "--fidelity-level", str(k)]
    for f in fields(options):
        value = getattr(options, f.name)
        silent = ("fidelity_level", "force", "dry_run")
        if f.name not in silent and value is not None and value != f.default:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            words += [f"--{f.name.replace('_', '-')}", text]
    return shlex.join(words)


def _words(choice: DispersionChoice | None) -> str:
    if choice is None:
        return "without dispersion"
    return f"with D3(BJ) of {choice.functional or 'the given parameters'}"


def _plain(value: Any) -> Any:
    """Tuples as lists and keys as text, as JSON and YAML have them."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _summary(
    path: Path, plan: str, metadata: dict[str, Any], record: VerificationRecord
) -> Summary:
    rows = [[c.name, f"{c.largest:.1e}", f"{c.tolerance:.0e}", c.unit] for c in record.checks]
    title = f"Verification on {len(record.molecules)} molecules"
    table = Table(title, ["compared", "largest deviation", "allowed", "unit"], rows)
    elements = " ".join(SYMBOLS[z] for z in metadata["species"])
    data = {
        "output": str(path),
        "meta": str(meta_path(path)),
        "fidelity": metadata["fidelity"],
        "dispersion": metadata["dispersion"],
        "species": metadata["species"],
        "verification": record.plain(),
    }
    lines = [str(path), str(meta_path(path)), f"verified: {plan}, elements {elements}"]
    return Summary(data, tables=[table], lines=lines)
