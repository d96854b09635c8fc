"""Parameters of flows: what all have in common, and how params.yaml, a profile and overrides make them."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from paperflows.components.errors import InputError

PROFILES = ("laptop", "smoke", "study", "paper")
P = TypeVar("P", bound=BaseModel)
T = TypeVar("T")


class Section(BaseModel):
    """A group of parameters: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BySource(Section, Generic[T]):
    """What is read from which source of data."""

    builtin: T = Field(description="Read when data is builtin")
    folder: T = Field(description="Read when data is a folder")
    hub: T = Field(description="Read when data is hub")

    def of(self, source: str) -> T:
        """What is read for a source; anything but builtin and hub is a folder."""
        return {"builtin": self.builtin, "hub": self.hub}.get(source, self.folder)


class Ray(Section):
    """Where mapped tasks run."""

    address: str | None = Field(
        None, description="Address of a Ray cluster (ray://host:10001, or auto); empty runs the tasks in this process"
    )


class FlowParameters(Section):
    """What every flow takes."""

    profile: Literal["laptop", "smoke", "study", "paper"] = Field(
        "laptop", description="Name of the profile, for the record"
    )
    data: str = Field("builtin", description="Where datasets come from: builtin, hub, or a folder of datasets")
    seeds: tuple[int, ...] = Field(min_length=1, description="One training of every method for each seed")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU where torch sees one")
    ray: Ray = Ray()


def load_parameters(
    kind: type[P],
    slug: str,
    root: Path,
    *,
    profile: str = "laptop",
    data: str | None = None,
    overrides: Sequence[str] = (),
) -> P:
    """The parameters of one run: params.yaml, then params/<profile>.yaml, then `data`, then `a.b=value` overrides.

    Raises:
        InputError: unknown profile, section or key (with near ones), a wrong type or value, a missing folder.
    """
    if profile not in PROFILES:
        raise InputError(f"unknown profile {profile!r}{near(profile, PROFILES)} There are: {', '.join(PROFILES)}")
    values = _section(root / "params.yaml", slug)
    if profile != "laptop":
        values = _merge(values, _section(root / "params" / f"{profile}.yaml", slug))
    values["profile"] = profile
    if data is not None:
        values["data"] = data
    for text in overrides:
        _override(values, text)
    if (source := values.get("data")) not in (None, "builtin", "hub"):
        folder = Path(str(source)).expanduser()
        if not folder.is_dir():
            raise InputError(f"data: {source!r} is neither builtin, hub nor a folder that exists")
        values["data"] = str(folder.resolve())
    return validate(kind, values, slug)


def validate(kind: type[P], values: dict[str, Any], slug: str) -> P:
    """`values` as parameters of `slug`.

    Raises:
        InputError: the first wrong key or value, by its dotted name.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = [str(part) for part in first["loc"]]
        name = ".".join([slug, *place])
        if first["type"] == "extra_forbidden":
            known = _fields(kind, place[:-1])
            raise InputError(
                f"unknown parameter {name}{near(place[-1], known)} There are: {', '.join(known)}"
            ) from error
        if first["type"] == "missing":
            raise InputError(f"parameter {name} is missing in params.yaml") from error
        said = first["msg"].removeprefix("Value error, ")
        # what a rule on several values was given is the whole section: the rule says which of it is wrong
        given = "" if isinstance(first["input"], dict) else f", got {first['input']!r}"
        raise InputError(f"parameter {name}: {said[:1].lower()}{said[1:]}{given}") from error


def near(name: str, known: Sequence[str]) -> str:
    """`; did you mean x?` for the known names close to `name`, else `.`."""
    found = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    return f"; did you mean {' or '.join(found)}?" if found else "."


def _section(path: Path, slug: str) -> dict[str, Any]:
    try:
        content = yaml.CSafeLoader(path.read_text(encoding="utf-8")).get_single_data() or {}
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict) or slug not in content:
        raise InputError(f"{path} has no section {slug}")
    return dict(content[slug] or {})


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _override(values: dict[str, Any], text: str) -> None:
    name, equals, raw = text.partition("=")
    if not equals or not name:
        raise InputError(f"--set {text!r}: expected name=value, such as student.layers=4")
    *path, last = name.split(".")
    place = values
    for part in path:
        inner = place.get(part)
        place[part] = dict(inner) if isinstance(inner, dict) else {}
        place = place[part]
    try:
        place[last] = yaml.safe_load(raw)
    except yaml.YAMLError as error:
        raise InputError(f"--set {text!r}: the value is not YAML") from error


def _fields(kind: type[BaseModel], path: Sequence[str]) -> list[str]:
    model: Any = kind
    for part in path:
        if isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
            model = model.model_fields[part].annotation
    return sorted(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []
