"""Sizes and options of an AIMNet2, and how a model.yaml says them.

Two forms of model.yaml are read: the fields of AIMNet2Spec themselves (with an optional `preset`),
and the nested `class`/`kwargs` form of aimnet and aimnet2mult. Class names of the nested form are
looked up in a table; nothing that a YAML names is ever imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple, NoReturn

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from mlff_cli.core.errors import ConfigError

Layers = tuple[PositiveInt, ...]


class AIMNet2Spec(BaseModel):
    """What determines the shape of an AIMNet2; the defaults are the published architecture."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nfeature: PositiveInt = 16
    """Feature channels per atom (times the Gaussians when `d2features`)."""
    d2features: bool = True
    """Whether features depend on the Gaussian that they are contracted with."""
    ncomb_v: PositiveInt = 12
    """Vectors per channel that the Gaussians are mixed into."""
    hidden: tuple[Layers, ...] = Field(
        default=((512, 380), (512, 380), (512, 380, 380)), min_length=2
    )
    """Hidden layers of every message pass; its length is the number of passes."""
    aim_size: PositiveInt = 256
    """Features per atom after the last pass, which the energy is read from."""
    rmin: PositiveFloat = 0.8
    """Centre of the first Gaussian, angstrom."""
    rc: PositiveFloat = 5.0
    """Cutoff of the local geometry, angstrom."""
    nshifts: int = Field(default=16, ge=2)
    """Number of Gaussians."""
    num_charge_channels: Literal[1, 2] = 2
    """1: charges; 2: alpha and beta charges, for open shells."""
    energy_hidden: Layers = (128, 128)
    """Hidden layers of the energy readout."""
    coulomb: Literal["simple"] | None = "simple"
    """Long-range Coulomb energy of the charges."""
    coulomb_rc: PositiveFloat = 4.6
    """Where the Coulomb energy's short range, left to the network, ends; angstrom."""
    num_fidelities: PositiveInt = 1
    """Number of methods that the model predicts."""
    fidelity_offset: int = Field(default=200, ge=119)
    """Distance in `numbers` between the same element in two fidelities."""
    use_fidelity_readouts: bool = True
    """Whether every fidelity has its own readouts (else only its own embedding)."""

    @model_validator(mode="after")
    def _check(self) -> AIMNet2Spec:
        if self.rmin >= self.rc:
            raise ValueError(f"rmin must be below rc, found rmin {self.rmin} and rc {self.rc}")
        for i, layers in enumerate(self.hidden):
            if not layers:
                raise ValueError(f"every pass needs a hidden layer, hidden[{i}] has none")
        return self


PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "small": {
        "nfeature": 8,
        "ncomb_v": 8,
        "hidden": ((192, 128), (192, 128), (192, 128, 128)),
        "aim_size": 128,
        "energy_hidden": (64, 64),
        "num_charge_channels": 1,
    },
}
"""What each preset sets; everything else keeps its default."""


class _Part(NamedTuple):
    """What one block of the nested form may hold."""

    classes: tuple[str, ...] = ()
    fields: Mapping[str, str] = {}
    """Key -> field of AIMNet2Spec that takes its value."""
    fixed: Mapping[str, tuple[Any, ...]] = {}
    """Key -> values it may have: what they describe is built in."""
    nested: tuple[str, ...] = ()
    """Keys that hold further blocks."""


def _names(name: str, *modules: str) -> tuple[str, ...]:
    return tuple(f"{module}.{name}" for module in modules)


_MODULES = ("aimnet2mult.modules", "aimnet.modules", "mlff_cli.potentials.aimnet2")
_MODEL = _Part(
    classes=_names(
        "AIMNet2",
        "aimnet2mult.models.aimnet2",
        "aimnet2mult.models",
        "aimnet.models",
        "aimnet.models.aimnet2",
        "mlff_cli.potentials.aimnet2",
    ),
    fields={
        name: name
        for name in (
            "nfeature",
            "d2features",
            "ncomb_v",
            "hidden",
            "aim_size",
            "num_charge_channels",
        )
    },
    nested=("aev", "outputs"),
)
_AEV = _Part(
    fields={"rmin": "rmin", "rc_s": "rc", "nshifts_s": "nshifts"},
    fixed=dict.fromkeys(("eta_s", "rc_v", "nshifts_v", "eta_v", "shifts_s", "shifts_v"), (None,)),
)
_MLP = _Part(
    fields={"hidden": "energy_hidden"},
    fixed={
        "activation_fn": ("torch.nn.GELU",),
        "activation_kwargs": ({},),
        "weight_init_fn": ("torch.nn.init.xavier_normal_",),
        "bias": (True,),
        "last_linear": (True,),
    },
)
_ENERGY = {"key_in": ("energy",), "key_out": ("energy",)}
_OUTPUTS = {
    "energy readout": _Part(
        classes=_names("Output", *_MODULES),
        fixed={"n_out": (1,), "key_in": ("aim",), "key_out": ("energy",)},
        nested=("mlp", "n_in"),
    ),
    "atomic shift": _Part(
        classes=_names("AtomicShift", *_MODULES),
        fixed={**_ENERGY, "reduce_sum": (False,), "requires_grad": (True,)},
    ),
    "sum over atoms": _Part(classes=_names("AtomicSum", *_MODULES), fixed=_ENERGY),
    "long-range Coulomb": _Part(
        classes=_names("LRCoulomb", *_MODULES),
        fields={"rc": "coulomb_rc", "method": "coulomb"},
        fixed={
            "key_in": ("charges",),
            "key_out": ("energy",),
            "dsf_alpha": (0.2,),
            "dsf_rc": (15.0,),
            "subtract_sr": (True,),
            "envelope": ("exp",),
        },
    ),
}
_OPTIONAL_OUTPUTS = {"long-range Coulomb"}


def from_seed_yaml(
    data: Mapping[str, Any], *, where: str | None = None, **fidelities: Any
) -> AIMNet2Spec:
    """Spec from the content of a model.yaml.

    Args:
        data: the parsed YAML: the nested `class`/`kwargs` form, or fields of AIMNet2Spec.
        where: file name for messages.
        **fidelities: num_fidelities, fidelity_offset, use_fidelity_readouts, which the nested
            form does not hold.

    Raises:
        ConfigError: unknown class or key, a value that the model has no choice of, a wrong type.
    """
    found = _nested_form(data, where) if "class" in data else _flat_form(data, where)
    try:
        return AIMNet2Spec.model_validate({**found, **fidelities})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"{name or 'model'}: {first['msg']}, found {first['input']!r}", where=where
        ) from None


def _flat_form(data: Mapping[str, Any], where: str | None) -> dict[str, Any]:
    if isinstance(data.get("model"), Mapping) and "num_layers" in data["model"]:
        n = data["model"]["num_layers"]
        raise ConfigError(
            f"model.num_layers ({n!r}) belongs to the training configuration; in a model.yaml the "
            "number of message passes is the length of `hidden`",
            remedy=f"give `kwargs.hidden` {n} lists of layer sizes, one per pass, for example "
            "hidden: [[512, 380], [512, 380], [512, 380, 380]] for 3",
            where=where,
        )
    _check_keys(data, [*AIMNet2Spec.model_fields, "preset", "class"], "model", where)
    fields = dict(data)
    preset = fields.pop("preset", "default")
    if preset not in PRESETS:
        raise ConfigError(f"preset is one of {', '.join(PRESETS)}, found {preset!r}", where=where)
    return {**PRESETS[preset], **fields}


def _nested_form(data: Mapping[str, Any], where: str | None) -> dict[str, Any]:
    _check_keys(data, ("class", "kwargs"), "model", where)
    if data["class"] not in _MODEL.classes:
        _refuse_class("class", data["class"], _MODEL.classes, where)
    kwargs = _block(data, "kwargs", "model", where)
    # the class in the YAML has one charge channel unless told otherwise
    found = {"num_charge_channels": 1, "coulomb": None, **_read(_MODEL, kwargs, "kwargs", where)}
    found |= _read(_AEV, _block(kwargs, "aev", "kwargs", where), "kwargs.aev", where)
    outputs = kwargs.get("outputs") or {}
    blocks = outputs.items() if isinstance(outputs, Mapping) else enumerate(outputs)
    seen = set()
    for name, block in blocks:
        at = f"kwargs.outputs.{name}"
        if not isinstance(block, Mapping):
            raise ConfigError(f"{at} must hold class and kwargs, found {block!r}", where=where)
        _check_keys(block, ("class", "kwargs"), at, where)
        role = next((r for r, p in _OUTPUTS.items() if block.get("class") in p.classes), None)
        if role is None:
            allowed = [c for part in _OUTPUTS.values() for c in part.classes]
            _refuse_class(f"{at}.class", block.get("class"), allowed, where)
        seen.add(role)
        at = f"{at}.kwargs"
        options = _block(block, "kwargs", at, where)
        if role == "long-range Coulomb":
            found["coulomb"] = "simple"
            if options.get("method") in ("dsf", "ewald"):
                raise ConfigError(
                    f"{at}.method: {options['method']!r} comes later, found in this model",
                    remedy="use method: simple",
                    where=where,
                )
        found |= _read(_OUTPUTS[role], options, at, where)
        if role == "energy readout":
            found |= {"energy_hidden": ()}
            found |= _read(_MLP, _block(options, "mlp", at, where), f"{at}.mlp", where)
            aim_size = found.get("aim_size", AIMNet2Spec.model_fields["aim_size"].default)
            if options.get("n_in", aim_size) != aim_size:
                raise ConfigError(
                    f"{at}.n_in must equal aim_size ({aim_size}), found {options['n_in']!r}",
                    where=where,
                )
    if missing := sorted(_OUTPUTS.keys() - seen - _OPTIONAL_OUTPUTS):
        allowed = [_OUTPUTS[role].classes[0] for role in missing]
        raise ConfigError(
            f"kwargs.outputs lacks the {' and the '.join(missing)}",
            remedy=f"add {' and '.join(allowed)}",
            where=where,
        )
    return found


def _read(part: _Part, block: Mapping[str, Any], at: str, where: str | None) -> dict[str, Any]:
    """Values of the block by the names of AIMNet2Spec."""
    _check_keys(block, [*part.fields, *part.fixed, *part.nested], at, where)
    for key, allowed in part.fixed.items():
        if key in block and block[key] not in allowed:
            raise ConfigError(
                f"{at}.{key} must be {' or '.join(map(repr, allowed))} in this model, "
                f"found {block[key]!r}",
                remedy=f"leave {key} out",
                where=where,
            )
    return {field: block[key] for key, field in part.fields.items() if key in block}


def _block(data: Mapping[str, Any], key: str, at: str, where: str | None) -> Mapping[str, Any]:
    block = data.get(key) or {}
    if not isinstance(block, Mapping):
        raise ConfigError(f"{at}.{key} must hold keys and values, found {block!r}", where=where)
    return block


def _check_keys(block: Mapping[str, Any], known: Iterable[str], at: str, where: str | None) -> None:
    known = list(known)
    for key in block:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            raise ConfigError(
                f"{at}: unknown key {key!r}",
                remedy=f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}",
                where=where,
            )


def _refuse_class(at: str, found: Any, allowed: Iterable[str], where: str | None) -> NoReturn:
    raise ConfigError(
        f"{at}: {found!r} is not a class that a model can be built from",
        remedy=f"allowed: {', '.join(allowed)}",
        where=where,
    )
