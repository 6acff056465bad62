"""`mlff info`: what a file is and where it came from, without running anything inside it.

With `--verify` whatever carries a recorded hash is hashed again: the artifact against the YAML file
beside it, its code and weights against the hash inside, and the inputs it was made from where they
still lie at their path.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlff_cli.core.artifacts import sha256, storage_error
from mlff_cli.core.errors import CheckFailedError, DataError, StorageError
from mlff_cli.core.reporting import NullReporter, Reporter, Summary, Table
from mlff_cli.data.beads.prior_file import FORMAT as PRIOR_FORMAT
from mlff_cli.data.beads.prior_file import prior_to_plain
from mlff_cli.data.descriptions import (
    Description,
    describe_grouped,
    describe_prior,
    describe_sae,
    describe_set,
    describe_trajectory,
    elements,
)
from mlff_cli.data.model_file import load_model_file
from mlff_cli.data.trajectories.opening import trajectory_format
from mlff_cli.deploy.artifact import meta_path, read_meta_yaml, read_metadata
from mlff_cli.deploy.beads.models import trained_prior
from mlff_cli.deploy.torchscript import payload_sha256
from mlff_cli.potentials.bead_topology import BeadTopology
from mlff_cli.report.evaluation import COARSE, TRANSPORT, read_evaluation

META_SUFFIX = "_meta.yaml"
SHOWN = 8  # molecules that are named
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class Options:
    """What `mlff info` can be told.

    Attributes:
        verify: hash again what carries a recorded hash.
    """

    verify: bool = False


RUN_FILES = {  # what `mlff train` writes for people and other runs
    "split.npz": "which molecules are validated on, for data.split_file of other runs",
    "transfer.json": "what became of the weights of --load",
    "ensemble.json": "losses and errors of an ensemble's members",
    "lr_find.json": "the numbers of --lr-find",
    "metrics.jsonl": "all logged numbers, a line per step",
    "config.yaml": "the resolved configuration",
}


def run(
    path: Path | str,
    options: Options = Options(),  # noqa: B008 - frozen
    reporter: Reporter | None = None,
) -> Summary:
    """Describe a file.

    Args:
        path: artifact, model file or checkpoint, data of any kind, SAE, prior or evaluation.
        options: see `Options`.
        reporter: who listens.

    Raises:
        StorageError: the file is missing.
        DataError: it is none of these, or damaged.
        CheckFailedError: `verify` is on and a hash differs.
    """
    reporter = reporter or NullReporter()
    path = Path(path)
    kind = _kind(path)
    described = READERS[kind](path)
    rows = [["kind", described.kind], *([k, v] for k, v in described.facts.items())]
    tables = [Table(str(path), ["", ""], rows)]
    chain = list(_chain(described.provenance))
    if chain:
        tables.append(Table("Made from", ["step", "file", "SHA-256"], chain))
    data = {"path": str(path), "kind": described.kind, "sha256": sha256(path), **described.data}
    if options.verify:
        checks = _verify(path, kind, described)
        rows = [list(check) for check in checks]
        tables.append(Table("Hashes", ["file", "result"], rows))
        data["verified"] = [{"file": file, "result": result} for file, result in checks]
        wrong = [file for file, result in checks if result == DIFFERS]
        if wrong:
            raise CheckFailedError(
                f"the hash of {', '.join(wrong)} is not the one recorded",
                where=str(path),
                remedy="the file changed after it was recorded: make it again from its inputs",
            )
    return Summary(data, tables=tables)


SAME, DIFFERS, ABSENT, UNRECORDED = "same", "differs", "not there", "no hash recorded"


def _verify(path: Path, kind: str, described: Description) -> list[tuple[str, str]]:
    """(file, result) of every recorded hash."""
    checks: list[tuple[str, str]] = []
    if kind == "artifact":
        beside = read_meta_yaml(path)
        recorded = (beside or {}).get("artifact", {}).get("sha256")
        checks.append((path.name, _result(recorded, sha256(path))))
        inside = described.data["metadata"].get("payload_sha256")
        checks.append((f"{path.name}: code and weights", _result(inside, payload_sha256(path))))
    for name, recorded in dict(described.provenance.get("inputs", {})).items():
        file = Path(name)
        found = file if file.is_file() else path.parent / file.name
        result = _result(recorded, sha256(found)) if found.is_file() else ABSENT
        checks.append((name, result))
    return checks or [(path.name, UNRECORDED)]


def _result(recorded: str | None, found: str) -> str:
    if recorded is None:
        return UNRECORDED
    return SAME if recorded == found else DIFFERS


def _kind(path: Path) -> str:
    """Which reader a file needs, by its first bytes, not by its name."""
    if not path.is_file():
        if path.exists():
            raise DataError(
                "a file is needed, this is a folder or device",
                where=str(path),
                remedy="name a file; `mlff report` reads run folders",
            )
        raise StorageError("the file does not exist", where=str(path), remedy="check the path")
    try:
        with path.open("rb") as stream:
            head = stream.read(len(HDF5_SIGNATURE))
    except OSError as error:
        raise storage_error(error, path) from error
    if trajectory_format(path):
        return "trajectory"
    if head == HDF5_SIGNATURE:
        return "grouped"
    if path.name in RUN_FILES:
        raise DataError(
            f"a part of a run folder: {RUN_FILES[path.name]}",
            where=str(path),
            remedy="`mlff report` shows a whole run; `mlff info` describes its model",
        )
    if head[:2] == b"PK":
        return _zip_kind(path)
    if path.name.endswith(META_SUFFIX):
        raise DataError(
            "the metadata of an artifact, for people to read",
            where=str(path),
            remedy=f"describe the artifact: {path.name.removesuffix(META_SUFFIX)}.jpt",
        )
    if path.suffix in (".yaml", ".yml"):
        return "prior" if _is_prior(path) else "sae"
    if head[:1] == b"{":
        return "evaluation"
    if not head:
        raise DataError("the file is empty", where=str(path), remedy="copy or make it again")
    raise DataError(
        "not a file of mlff: neither a model, an artifact, data, SAE, a prior nor an evaluation",
        where=str(path),
        remedy="convert foreign files with `mlff convert`",
    )


def _zip_kind(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith(".npy") for name in names):
            return "set"
    except zipfile.BadZipFile as error:
        raise DataError(
            f"a damaged zip file ({error})", where=str(path), remedy="copy or make it again"
        ) from error
    return "artifact" if any("/code/" in name or "/extra/" in name for name in names) else "model"


def _is_prior(path: Path) -> bool:
    """Whether a YAML file says that it is a prior."""
    mark = f"format: {PRIOR_FORMAT}"
    with path.open(encoding="utf-8", errors="replace") as lines:
        return any(line.rstrip() == mark for line in lines)


def _artifact(path: Path) -> Description:
    metadata = read_metadata(path)
    verification = metadata.get("verification") or {}
    facts = {
        **(_beads(metadata) if metadata.get("family") == "coarse-grained" else _atoms(metadata)),
        "precision": str(metadata.get("dtype")),
        "verified": "yes" if verification.get("passed") else "no",
        "metadata beside it": str(meta_path(path)) if meta_path(path).is_file() else "missing",
    }
    return Description(
        "compiled artifact (TorchScript)",
        facts,
        {"metadata": metadata},
        metadata.get("provenance", {}),
    )


def _atoms(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Facts on the artifact of one fidelity."""
    fidelity, d = metadata["fidelity"], metadata.get("dispersion")
    return {
        "fidelity": f"{fidelity['index']} ({fidelity.get('level_of_theory') or 'level unknown'})",
        "elements": elements(metadata["species"]),
        "dispersion": f"{d['method']} of {d['functional'] or 'given parameters'}" if d else "none",
    }


def _beads(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Facts on the artifact of a coarse-grained model."""
    topology = BeadTopology.from_plain(metadata["molecule"])
    n_chains = len(set(topology.chains.tolist()))
    return {
        "family": "coarse-grained",
        "molecule": f"{topology.name}, {topology.n_beads} beads of {len(set(topology.types))} "
        f"types in {n_chains} chain{'s' * (n_chains > 1)}",
        **_energy(metadata.get("allegro"), metadata.get("prior")),
        "members": str(metadata["members"]),
    }


def _energy(allegro: Mapping[str, Any] | None, prior: Mapping[str, Any] | None) -> dict[str, str]:
    """What the energy of a coarse-grained model is made of."""
    size = "none"
    if allegro is not None:
        size = (
            f"cutoff {allegro['cutoff']:g} angstrom, l_max {allegro['l_max']}, "
            f"{allegro['num_layers']} layers, {allegro['num_scalar_features']} scalar and "
            f"{allegro['num_tensor_features']} tensor features"
        )
    return {"Allegro": size, "prior": ", ".join(prior["terms"]) if prior else "none"}


def _model(path: Path) -> Description:
    file = load_model_file(path)
    parameters = sum(tensor.numel() for tensor in file.weights.values())
    facts = {"family": file.family, "parameters and buffers": f"{parameters:,}"}
    if file.family == "coarse-grained":
        facts |= _energy(file.architecture.get("allegro"), file.architecture.get("prior"))
        facts["types of beads"] = ", ".join(map(str, file.architecture.get("type_names", [])))
        facts["molecules"] = _molecules(file.molecules)
    else:
        facts["elements"] = elements(file.species)
    if file.family == TRANSPORT:
        facts |= _flow(file.architecture, file.training.get("metrics") or {})
    facts["format version"] = str(file.format_version)
    for entry in file.fidelities:
        level = entry.get("level_of_theory") or "level of theory unknown"
        facts[f"fidelity {entry['index']}"] = f"{level}, {entry.get('dataset') or 'data unknown'}"
    kind = "checkpoint" if "fingerprint" in file.training else "model file"
    if "step" in file.training:
        facts["weights of step"] = f"{int(file.training['step']):,}"
    description = json.loads(json.dumps(file.description(), default=str))
    if file.family == "coarse-grained" and (prior := trained_prior(file, str(path))) is not None:
        description["architecture"]["prior"] = prior_to_plain(prior)  # not those it began with
    return Description(kind, facts, {"model": description}, file.provenance)


def _flow(architecture: Mapping[str, Any], metrics: Mapping[str, float]) -> dict[str, str]:
    """A flow's kind, molecule and temperatures, and its best validation."""
    molecule = architecture["molecule"]
    facts = {
        "flow": str(architecture["flow"].get("kind")),
        "molecule": f"{molecule.get('name') or 'without name'}, {len(molecule['numbers'])} atoms",
        "temperatures": f"{architecture['source']:g} K -> {architecture['target']:g} K",
        "force field": ", ".join(map(str, architecture["forcefield"])),
    }
    found = [
        f"{word} {metrics[name]:.4g}{unit}"
        for name, word, unit in (("excess_nats", "excess", " nats"), ("acceptance", "swaps", ""))
        if name in metrics
    ]
    return {**facts, **({"validation": ", ".join(found)} if found else {})}


def _molecules(molecules: Sequence[Mapping[str, Any]]) -> str:
    """Names and sizes, the first of many."""
    named = [f"{m.get('name')} ({len(m.get('types', []))} beads)" for m in molecules]
    return ", ".join(named[:SHOWN]) + (f" and {len(named) - SHOWN} more" if named[SHOWN:] else "")


def _evaluation(path: Path) -> Description:
    content = read_evaluation(path)
    facts = {"model": str(content.get("model"))}
    if content.get("family") == COARSE:
        facts |= {
            f"forces of {result['data']}": f"RMSE {result['errors']['full']['rmse']:.4g} kcal/mol/A"
            for result in content["results"]
        }
        ensembles = content["ensembles"] or {"planes": []}
        facts |= {
            f"divergence along {', '.join(one['variables'])}": f"{one['divergence']:.3g} nat, "
            f"floor {one['floor']:.3g}"
            for one in ensembles["planes"]
            if one["divergence"] is not None
        }
        return Description("evaluation", facts, content, content.get("provenance", {}))
    if content.get("family") == TRANSPORT:
        facts |= {
            f"acceptance, {name}": f"{one['acceptance']['value']:.3g}"
            for name, one in content["maps"].items()
            if one["acceptance"]["value"] is not None
        }
        return Description("evaluation", facts, content, content.get("provenance", {}))
    for result in content["results"]:
        errors = result["errors"]
        facts[f"fidelity {result['fidelity']}"] = ", ".join(
            f"{name} RMSE {e['rmse']:.4g} {e['unit']}" for name, e in errors.items()
        )
    return Description("evaluation", facts, content, content.get("provenance", {}))


READERS: dict[str, Callable[[Path], Description]] = {
    "artifact": _artifact,
    "model": _model,
    "grouped": describe_grouped,
    "set": describe_set,
    "trajectory": describe_trajectory,
    "sae": describe_sae,
    "prior": describe_prior,
    "evaluation": _evaluation,
}


def _chain(provenance: Mapping[str, Any], step: str = "this file") -> Iterator[list[str]]:
    """(step, input, hash) of a provenance record and of the records inside it."""
    for name, digest in dict(provenance.get("inputs", {})).items():
        yield [step, str(name), str(digest)]
    if isinstance(provenance.get("model"), Mapping):
        yield from _chain(provenance["model"], "its model")
