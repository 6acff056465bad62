"""From presets, files and overrides to a family and its validated settings."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mlff_cli.core.config import MISSING, load_config, merge, parse_override, read_yaml
from mlff_cli.core.errors import ConfigError
from mlff_cli.families.base import Family
from mlff_cli.families.multifidelity import MultiFidelity

FAMILIES: dict[str, Family] = {"multifidelity": MultiFidelity()}
PRESETS = ("default", "small")


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
    layers: list[dict[Any, Any]] = [{"run_name": run_name, "project_name": "mlff"}]
    layers += [_preset(name) for name in dict.fromkeys(("default", preset))]
    overrides = list(overrides)
    merged: dict[Any, Any] = {}
    for layer in (*layers, *(read_yaml(file) for file in configs)):
        merged = merge(merged, layer)
    for override in overrides:
        path, value = parse_override(override)
        if len(path) == 1:
            merged[path[0]] = value
    for name in ("run_name", "project_name"):
        if merged[name] == MISSING:  # aimnet2mult's files leave these for the command line
            overrides.append(f"{name}={layers[0][name]}")
    if not isinstance(merged["family"], str) or merged["family"] not in FAMILIES:
        raise ConfigError(f"family is one of {', '.join(FAMILIES)}, found {merged['family']!r}")
    family = FAMILIES[merged["family"]]
    return family, load_config(configs, overrides, family.schema, defaults=layers).model


def _preset(name: str) -> dict[Any, Any]:
    file = resources.files("mlff_cli.families") / "presets" / f"{name}.yaml"
    values = OmegaConf.to_container(OmegaConf.create(file.read_text(encoding="utf-8")))
    if not isinstance(values, dict):
        raise TypeError(f"the packaged preset {name} is not a mapping")
    return dict(values)
