"""From presets, files and overrides to a family and its validated settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mlff_cli.core.config import MISSING, load_config, merge, parse_override, read_yaml
from mlff_cli.core.errors import ConfigError
from mlff_cli.families.base import Family
from mlff_cli.families.coarse_grained import CoarseGrained
from mlff_cli.families.coarse_grained_stages import KEYS
from mlff_cli.families.multifidelity import MultiFidelity
from mlff_cli.families.transport import Transport

FAMILIES: dict[str, Family] = {
    family.name: family for family in (MultiFidelity(), CoarseGrained(), Transport())
}
PRESETS: dict[str, tuple[str, ...]] = {  # name -> packaged files, later ones win
    "default": ("default",),
    "small": ("default", "small"),
    "cg": ("coarse_grained",),
    "cg_small": ("coarse_grained", "coarse_grained_small"),
    "aa_300_450": ("transport", "aa_300_450"),
    "aa_300_450_gpu": ("transport", "aa_300_450_gpu"),
    "aa_300_450_gpu_light": ("transport", "aa_300_450_gpu_light"),
    "aa_300_670": ("transport", "aa_300_670"),
    "aa_300_1000": ("transport", "aa_300_1000"),
    "ic_300_450": ("transport", "ic", "ic_300_450"),
    "ic_300_1000": ("transport", "ic", "ic_300_1000"),
}
# keys that one family has and no other
COARSE_GRAINED = {
    "training": None,
    "ensemble": None,
    "data": ("files", "temperature"),
    "model": ("cutoff", "allegro_size", "use_priors", "use_allegro"),
}
TRANSPORT = ("use_energy_gating", "E_cut", "E_max", "gate", "temperatures", "flow")


def configure(
    preset: str, configs: Sequence[Path], overrides: Sequence[str], run_name: str
) -> tuple[Family, Any]:
    """The family and its settings.

    Args:
        preset: packaged configuration under the files.
        configs: YAML files, later ones win.
        overrides: `dotted.key=value`, which win over files.
        run_name: what the run is called where nothing names it.

    Raises:
        ConfigError: see `core.config.load_config`; unknown preset or family.
    """
    if preset not in PRESETS:
        raise ConfigError(f"--preset is one of {', '.join(PRESETS)}, found {preset!r}")
    given = _given(configs, overrides)
    if preset in ("default", "small") and _is_transport(given):
        preset = "ic_300_450"
    elif preset in ("default", "small") and _is_coarse_grained(given):
        preset = {"default": "cg", "small": "cg_small"}[preset]
    layers: list[dict[Any, Any]] = [{"run_name": run_name, "project_name": "mlff"}]
    layers += [_preset(name) for name in PRESETS[preset]]
    if given.get("stages"):
        layers = [_without_stages(layer) for layer in layers]
    overrides = [_named_files(override) for override in overrides]
    merged: dict[Any, Any] = {}
    for layer in (*layers, given):
        merged = merge(merged, layer)
    for name in ("run_name", "project_name"):
        if merged[name] == MISSING:  # aimnet2mult's files leave these for the command line
            overrides.append(f"{name}={layers[0][name]}")
    if not isinstance(merged["family"], str) or merged["family"] not in FAMILIES:
        raise ConfigError(f"family is one of {', '.join(FAMILIES)}, found {merged['family']!r}")
    family = FAMILIES[merged["family"]]
    return family, load_config(configs, overrides, family.schema, defaults=layers).model


def _given(configs: Sequence[Path], overrides: Sequence[str]) -> dict[Any, Any]:
    """What files and overrides say, without the presets below them."""
    given: dict[Any, Any] = {}
    for file in configs:
        given = merge(given, read_yaml(file))
    for override in overrides:
        path, value = parse_override(override)
        for part in reversed(path):
            value = {part: value}
        given = merge(given, value)
    return given


def _is_coarse_grained(given: Mapping[Any, Any]) -> bool:
    """Whether a configuration that names no family has keys of the coarse-grained one.

    >>> _is_coarse_grained({"data": "CG.npz"}), _is_coarse_grained({"trainer": {"epochs": 3}})
    (True, False)
    """
    family = given.get("family")
    if family is not None:
        return bool(family == CoarseGrained.name)
    if isinstance(given.get("data"), str | list):
        return True
    for name, own in COARSE_GRAINED.items():
        section = given.get(name)
        if section is not None and (
            own is None or (isinstance(section, Mapping) and any(key in section for key in own))
        ):
            return "fidelity_datasets" not in (given.get("data") or {})
    return False


def _is_transport(given: Mapping[Any, Any]) -> bool:
    """Whether a configuration is of the transport family: it says so, or has keys of it alone.

    >>> _is_transport({"E_cut": 300}), _is_transport({"family": "multifidelity", "E_cut": 300})
    (True, False)
    """
    family = given.get("family")
    return bool(family == Transport.name or (family is None and any(k in given for k in TRANSPORT)))


def _without_stages(preset: dict[Any, Any]) -> dict[Any, Any]:
    """A preset without what it says of its own stages, where the user lists others."""
    unsaid = {"trainer": ("epochs",), "training": KEYS}
    left = dict(preset)
    for name, keys in unsaid.items():
        if name in left:
            left[name] = {k: v for k, v in left[name].items() if k not in keys}
    return left


def _named_files(override: str) -> str:
    """`data=CG.npz` as `data.files=CG.npz`, so that other keys of `data` can be given, too."""
    name, _, value = override.partition("=")
    path, parsed = parse_override(override)
    return f"data.files={value}" if path == ("data",) and not isinstance(parsed, dict) else override


def _preset(name: str) -> dict[Any, Any]:
    file = resources.files("mlff_cli.families") / "presets" / f"{name}.yaml"
    values = OmegaConf.to_container(OmegaConf.create(file.read_text(encoding="utf-8")))
    if not isinstance(values, dict):
        raise TypeError(f"the packaged preset {name} is not a mapping")
    return dict(values)
