"""Configuration: later layers win, and every mistake is named with its place and its mending."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mlff_cli.core.config import (
    Loaded,
    differences,
    load_config,
    merge,
    nearest,
    normalise,
    parse_override,
)
from mlff_cli.core.errors import ConfigError

Loader = Callable[..., Loaded[Any]]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Optimizer(Strict):
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)


class Trainer(Strict):
    epochs: Annotated[int, Field(ge=1)] = 10
    optimizer: Optimizer = Optimizer()
    hidden: int | list[int] = 3

    @model_validator(mode="after")
    def _few(self) -> "Trainer":
        if self.epochs == 13:
            raise ValueError("epochs may not be 13")
        return self


class Data(Strict):
    fidelity_datasets: dict[int, str] = {}
    sizes: list[int] = [1, 2, 3]


class Settings(Strict):
    name: str = "unnamed"
    trainer: Trainer = Trainer()
    data: Data = Data()
    optimizers: list[Optimizer] = []
    extra: Optimizer | None = None


class Needy(Strict):
    must: int
    trainer: Trainer = Trainer()


@pytest.fixture
def load(tmp_path: Path) -> Loader:
    """A loader of texts as files a.yaml, b.yaml, ...; with overrides and a schema."""

    def loader(
        *texts: str,
        overrides: tuple[str, ...] = (),
        schema: type[BaseModel] = Settings,
        defaults: tuple[dict[Any, Any], ...] = (),
    ) -> Loaded[Any]:
        files = []
        for name, text in zip("abc", texts, strict=False):
            files.append(tmp_path / f"{name}.yaml")
            files[-1].write_text(text)
        return load_config(files, overrides, schema, defaults=defaults)

    return loader


def refusal(load: Loader, *texts: str, **more: Any) -> str:
    """The message of the ConfigError, file names without their folder."""
    with pytest.raises(ConfigError) as caught:
        load(*texts, **more)
    assert caught.value.exit_code == 2
    message = str(caught.value)
    folder = message.partition("/a.yaml")[0].rpartition(" ")[2]
    return message.replace(f"{folder}/", "") if "/a.yaml" in message else message


# --- merging


def test_later_layers_win(load: Loader) -> None:
    settings = load(
        "trainer: {epochs: 2, hidden: 2}\nname: a\n",
        "trainer: {epochs: 3}\n",
        overrides=("trainer.epochs=4", "trainer.epochs=5"),
        defaults=({"trainer": {"epochs": 1, "optimizer": {"lr": 0.5}}},),
    ).model
    assert settings.trainer.epochs == 5
    assert settings.trainer.hidden == 2
    assert settings.trainer.optimizer.lr == 0.5
    assert settings.name == "a"


Tree = st.recursive(
    st.integers() | st.text(max_size=3) | st.booleans() | st.lists(st.integers(), max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)
Mappings = st.dictionaries(st.sampled_from("abcd"), Tree, max_size=4)


@given(a=Mappings, b=Mappings, c=Mappings)
def test_merging_is_idempotent_and_associative(a: dict, b: dict, c: dict) -> None:
    assert merge(a, {}) == a
    assert merge({}, a) == a
    assert merge(a, a) == a
    if not _kinds_clash(a, b, c):
        assert merge(merge(a, b), c) == merge(a, merge(b, c))


def _kinds_clash(*trees: dict) -> bool:
    """A scalar between two mappings cuts what lay below it: the order then matters."""
    kinds: dict[tuple[str, ...], set[bool]] = {}

    def walk(tree: Any, path: tuple[str, ...]) -> None:
        kinds.setdefault(path, set()).add(isinstance(tree, dict))
        for key, value in tree.items() if isinstance(tree, dict) else ():
            walk(value, (*path, key))

    for tree in trees:
        walk(tree, ())
    return any(len(k) == 2 for k in kinds.values())


@given(a=Mappings, b=Mappings)
def test_differences_are_none_exactly_between_equals(a: dict, b: dict) -> None:
    assert differences(a, a) == []
    assert bool(differences(a, b)) == (a != b)


def test_differences_name_both_values() -> None:
    old, new = {"t": {"epochs": 10, "lr": 1}}, {"t": {"epochs": 20, "lr": 1}, "x": 0}
    assert differences(old, new) == ["t.epochs: 10 -> 20", "x: (absent) -> 0"]


def test_digit_keys_are_one_key_however_written(load: Loader) -> None:
    for text in ("{0: a.h5}", "{'0': a.h5}", '{"0": a.h5}'):
        loaded = load(
            f"data:\n  fidelity_datasets: {text}\n",
            overrides=("data.fidelity_datasets.1=b.h5", "data.fidelity_datasets.0=c.h5"),
        )
        assert loaded.model.data.fidelity_datasets == {0: "c.h5", 1: "b.h5"}
        assert loaded.resolved["data"]["fidelity_datasets"] == {0: "c.h5", 1: "b.h5"}
    assert normalise({"²": 1, "-1": 2, "12": 3}) == {"²": 1, "-1": 2, 12: 3}


def test_list_items_are_set_by_index(load: Loader) -> None:
    text = "optimizers:\n- {lr: 1}\n- {lr: 2}\ndata: {sizes: [4, 5]}\n"
    model = load(text, overrides=("optimizers.1.lr=3", "data.sizes.0=9")).model
    assert [o.lr for o in model.optimizers] == [1, 3]
    assert model.data.sizes == [9, 5]
    message = refusal(load, text, overrides=("data.sizes.2=9",))
    assert "data.sizes" in message
    assert "command line" in message or "a.yaml:4" in message


# --- values


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        ("-2.5e+3", -2500.0),
        ("20", 20),
        ("true", True),
        ("null", None),
        ("[1, 2]", [1, 2]),
        ("{a: 1e-3, 0: x}", {"a": 1e-3, 0: "x"}),
        ("a=b", "a=b"),
        ('"1"', "1"),
        ("fid0.h5", "fid0.h5"),
        ("/data/a b.h5", "/data/a b.h5"),
        ("2020-01-01", "2020-01-01"),
    ],
)
def test_override_values_are_yaml(raw: str, value: Any) -> None:
    path, found = parse_override(f"trainer.0.x={raw}")
    assert path == ("trainer", 0, "x")
    assert found == value
    assert type(found) is type(value)


def test_an_exponent_without_a_dot_is_a_number_in_files_too(load: Loader) -> None:
    resolved = load("trainer: {optimizer: {lr: 1e-5}}\n").resolved
    assert resolved["trainer"]["optimizer"]["lr"] == 1e-5


def test_interpolations_are_resolved_after_merging(load: Loader) -> None:
    text = "name: ${trainer.epochs} epochs\ntrainer: {epochs: 3, hidden: '${.epochs}'}\n"
    loaded = load(text, overrides=("trainer.epochs=7",))
    assert loaded.model.name == "7 epochs"
    assert loaded.model.trainer.hidden == 7
    assert loaded.resolved["trainer"]["hidden"] == 7


def test_empty_file_is_an_empty_layer(load: Loader) -> None:
    assert load("", "# nothing but a comment\n").model == Settings()


def test_yaml_merge_keys_work(load: Loader) -> None:
    text = "extra: &e {lr: 2}\ntrainer:\n  optimizer:\n    <<: *e\n    betas: [0.1, 0.2]\n"
    assert load(text).model.trainer.optimizer.lr == 2


# --- mistakes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "name: a\ntrainer:\n  epoch: 3\n",
            "a.yaml:3: unknown key 'trainer.epoch'\n  remedy: did you mean 'trainer.epochs'?",
        ),
        (
            "name: a\nlr: 3\n",  # a key that stands elsewhere
            "a.yaml:2: unknown key 'lr'\n  remedy: did you mean 'trainer.optimizer.lr'?",
        ),
        (
            "optimizers:\n- lr: 1\n- lrr: 2\n",
            "a.yaml:3: unknown key 'optimizers.1.lrr'\n  remedy: did you mean 'optimizers.1.lr'?",
        ),
        (
            "extra:\n  lrr: 2\n",  # inside a union
            "a.yaml:2: unknown key 'extra.lrr'\n  remedy: did you mean 'extra.lr'?",
        ),
        (
            "data:\n  qqqq: 2\n",
            "a.yaml:2: unknown key 'data.qqqq'\n"
            "  remedy: valid keys here: fidelity_datasets, sizes",
        ),
    ],
)
def test_unknown_key_has_line_and_nearest_key(load: Loader, text: str, expected: str) -> None:
    assert refusal(load, text) == expected


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("trainer:\n  epochs: three\n", ("a.yaml:2: 'trainer.epochs'", "integer", "'three'")),
        ("trainer:\n  epochs: 1.5\n", ("a.yaml:2: 'trainer.epochs'", "integer", "1.5")),
        ("trainer:\n  epochs: 0\n", ("a.yaml:2: 'trainer.epochs'", "greater", "found 0")),
        ("data:\n  sizes:\n  - 1\n  - x\n", ("a.yaml:4: 'data.sizes.1'", "integer", "'x'")),
        ("name: a\ntrainer:\n", ("a.yaml:2: 'trainer'", "found None")),
        ("\ntrainer:\n  epochs: 13\n", ("a.yaml:2: 'trainer'", "epochs may not be 13")),
        ("trainer:\n  hidden: abc\n", ("a.yaml:2: 'trainer.hidden': ", "found 'abc'")),
        ("name: [1]\n", ("a.yaml:1: 'name'", "string", "[1]")),
        ("data: {fidelity_datasets: {x: y}}\n", ("a.yaml:1: 'data.fidelity_datasets.x'", "'x'")),
    ],
)
def test_wrong_value_has_line_key_rule_and_value(
    load: Loader, text: str, parts: tuple[str, ...]
) -> None:
    message = refusal(load, text)
    assert message.startswith(parts[0])
    for part in parts[1:]:
        assert part in message


def test_all_problems_are_told_at_once(load: Loader) -> None:
    message = refusal(
        load, "trainer:\n  epochs: x\n  epoch: 3\nnam: a\n", overrides=("data.size=3",)
    )
    assert "a.yaml:2: 'trainer.epochs'" in message
    assert "a.yaml:3: unknown key 'trainer.epoch'" in message
    assert "a.yaml:4: unknown key 'nam' (did you mean 'name'?)" in message
    assert "command line (data.size=3): unknown key 'data.size'" in message


def test_a_flood_of_problems_is_cut_and_counted(load: Loader) -> None:
    message = refusal(load, "".join(f"zz{i}: 1\n" for i in range(30)))
    assert message.count("unknown key") == 5
    assert "and 25 more" in message


@pytest.mark.parametrize(
    "override", ["trainer={epochs: x}", "trainer.epochs=x", "trainer={epochs: 3, optimizer: x}"]
)
def test_the_layer_that_brought_the_value_in_is_named(load: Loader, override: str) -> None:
    text = "trainer:\n  epochs: 3\n  optimizer: {lr: 1}\n"
    assert refusal(load, text, overrides=(override,)).startswith(f"command line ({override}): ")


def test_a_rule_of_several_keys_names_the_layer_of_those_keys(load: Loader) -> None:
    overrides = ("trainer.hidden=4", "trainer.epochs=13", "name=x")
    message = refusal(load, "{}", overrides=overrides)
    assert message.startswith("command line (trainer.epochs=13): 'trainer': epochs may not be 13")


def test_the_file_that_brought_the_value_in_is_named(load: Loader, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load("trainer:\n  epochs: 3\n", "\n\n\ntrainer: {epochs: x}\n")
    assert caught.value.where == f"{tmp_path}/b.yaml:4"


def test_a_list_item_of_an_override_is_not_blamed_on_the_file(load: Loader) -> None:
    message = refusal(load, "data:\n  sizes:\n  - 1\n  - 2\n", overrides=("data.sizes=[1, x]",))
    assert message.startswith("command line (data.sizes=[1, x]): 'data.sizes.1'")


def test_required_key_names_the_way_to_give_it(load: Loader) -> None:
    assert "'must' is required\n  remedy: add must=VALUE" in refusal(load, "", schema=Needy)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("name: ???\n", ("a.yaml:1: 'name' must be set", "name=VALUE")),
        ("data:\n  sizes: [1, '???']\n", ("a.yaml:2: 'data.sizes.1' must be set",)),
        (
            "name: ???\ntrainer:\n  epochs: ???\n",
            ("a.yaml:1: 'name' must be set", "a.yaml:3: 'trainer.epochs'"),
        ),
    ],
)
def test_missing_values_must_be_set(load: Loader, text: str, parts: tuple[str, ...]) -> None:
    message = refusal(load, text)
    for part in parts:
        assert part in message


def test_a_missing_value_may_come_from_the_command_line(load: Loader) -> None:
    assert load("name: ???\n", overrides=("name=x",)).model.name == "x"


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("name: ${nothing}\n", "a.yaml:1: 'name': an interpolation cannot be resolved"),
        ("trainer:\n  epochs: ${name}\nname: ${trainer.epochs}\n", "a.yaml:"),
        ("name: ${trainer.epochs}\ntrainer: {epochs: '???'}\n", "a.yaml:1: 'name'"),
        ("data:\n  sizes:\n  - 1\n  - ${x}\n", "a.yaml:4: 'data.sizes.1'"),
    ],
)
def test_interpolations_that_lead_nowhere_are_named(load: Loader, text: str, start: str) -> None:
    message = refusal(load, text)
    assert message.startswith(start)
    assert "object_type" not in message  # OmegaConf's own bookkeeping


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("name: a\ntrainer:\n  epochs: [1,\n", "a.yaml:4: not valid YAML"),
        ("name: a\n\tx: 1\n", "a.yaml:2: not valid YAML"),
        ("name: a\nname: b\n", "a.yaml:2: not valid YAML: found duplicate key name"),
        ("name: !!python/object/apply:os.system [ls]\n", "a.yaml:1: not valid YAML"),
        ("a: &x [*x]\n", "a.yaml:1: not valid YAML"),
        ("- a\n- b\n", "a.yaml: a mapping of keys is needed, found a list"),
        ("42\n", "a.yaml: a mapping of keys is needed"),
        ("name: ${\n", "a.yaml: not a configuration"),
    ],
)
def test_broken_files_have_file_and_line(load: Loader, text: str, start: str) -> None:
    assert refusal(load, text).startswith(start)


def test_unreadable_files_are_configuration_errors(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x89PNG")
    for path in (tmp_path / "absent.yaml", tmp_path, tmp_path / "binary.yaml"):
        with pytest.raises(ConfigError) as caught:
            load_config([path], [], Settings)
        assert caught.value.where == str(path)
        assert caught.value.exit_code == 2


@pytest.mark.parametrize("override", ["x", "=3", "a..b=3", ".a=1", "a.=1", " =1", ""])
def test_an_override_without_key_or_sign_is_shown_how(override: str) -> None:
    with pytest.raises(ConfigError, match=r"key=value[\s\S]*trainer\.epochs=20"):
        parse_override(override)


@pytest.mark.parametrize("override", ["a={x: [}", "a=${", "a=[1, 2"])
def test_an_override_that_is_no_yaml_is_shown(override: str) -> None:
    with pytest.raises(ConfigError, match="is not YAML") as caught:
        parse_override(override)
    assert repr(override) in str(caught.value)


def test_nearest_names_come_best_first() -> None:
    assert nearest("epoch", ["epochs", "epsilon", "batch"])[0] == "epochs"
    assert nearest("zzz", ["epochs"]) == []
