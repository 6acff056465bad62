"""`mlff compile`: one fidelity of a model becomes a verified, self-contained artifact.

Everything the model file knows is a default, and an option that contradicts it is an error. The
artifact is loaded from what was written and compared with the model and with dftd3; only then do
`<output>_fid<k>.jpt` and, last, `<output>_fid<k>_meta.yaml` appear.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mlff_cli.core.artifacts import check_writable, provenance
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

LATER = "comes in a later version"
FORMATS = {"jpt": None, "pt2": LATER, "eager": LATER, "lammps": LATER}
SUFFIX = ".jpt"


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
        format: jpt.
        dtype: precision of the network, float32 or float64.
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
    force: bool = False
    dry_run: bool = False

    def request(self) -> DispersionRequest:
        """The dispersion asked for."""
        prefix = "dispersion_"
        named = {f.name.removeprefix(prefix) for f in fields(self) if f.name.startswith(prefix)}
        return DispersionRequest(self.dispersion, **{n: getattr(self, prefix + n) for n in named})


def run(
    weights: Path | str = "model.pt",
    output: Path | str = "compiled_model",
    options: Options = Options(),  # noqa: B008 - frozen
    reporter: Reporter | None = None,
) -> Summary:
    """Compile, verify, keep.

    Args:
        weights: a model file, a checkpoint, or the seed's {"model": state_dict}.
        output: stem of the outputs, or a name that ends in .jpt, which is taken as it is.
        options: see `Options`.
        reporter: who listens.

    Raises:
        UsageError: an option contradicts the model, comes later, or is missing.
        DataError: a file is damaged or lacks something.
        CheckFailedError: the artifact does not reproduce the model; nothing is kept.
    """
    reporter = reporter or NullReporter()
    weights, where = Path(weights), str(weights)
    _check_format(options)
    file = _read(weights, options, reporter)
    k = _level(file, options, where)
    entry = fidelity_entry(file, k, where)
    level = entry.get("level_of_theory")
    choice = choose_dispersion(options.request(), level)
    parameters = choice.parameters if choice else None
    potential = potential_of(file, k, where, dispersion=parameters, dtype=options.dtype)

    path = _artifact_path(Path(output), k)
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


def _check_format(options: Options) -> None:
    if options.format not in FORMATS or FORMATS[options.format]:
        raise UsageError(
            f"--format {options.format} {FORMATS.get(options.format) or 'is unknown'}",
            remedy="use --format jpt (TorchScript), which runs wherever torch does",
        )
    if options.dtype not in DTYPES:
        raise UsageError(
            f"--dtype must be one of {', '.join(DTYPES)}, found {options.dtype!r}",
            remedy="leave it out for float32",
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
    if file.family != "multifidelity":
        raise UsageError(
            f"a model of the family {file.family!r} is not compiled by fidelity",
            where=str(weights),
            remedy="pass a multi-fidelity model",
        )
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
    if not output.name:
        raise UsageError(
            f"--output is the beginning of a file name, found {str(output)!r}",
            remedy="write for example --output compiled_model",
        )
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
