"""Classes of annotated objects: those that are landslides, and those without a label."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from lim_keras.data.convert.sample import ConvertOptions
from lim_keras.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Classes:
    """Numbers of the classes that are landslides, of those without a label, and of all classes."""

    landslide: frozenset[int]
    ignored: frozenset[int]
    known: frozenset[int]

    @classmethod
    def of(cls, names: Mapping[int, str], landslide: Collection[str], ignored: Collection[str]) -> Classes:
        """Find the numbers of classes that are given by name or number; unknown ones are left out."""
        chosen, unlabelled = _numbers(names, landslide), _numbers(names, ignored)
        return cls(chosen, unlabelled - chosen, frozenset(names))


def landslide_classes(
    names: Mapping[int, str], used: Collection[int], options: ConvertOptions, where: object
) -> tuple[str, ...]:
    """Return the classes that are landslides: those that the options name, else the only class that is used.

    Args:
        names: name of each class by its number.
        used: numbers that objects have.
        where: file or folder of the classes, for errors.

    Raises:
        ConfigError: a name of the options is unknown, or there are several classes and none is chosen.
    """
    for argument, wanted in (("classes", options.classes), ("ignore_classes", options.ignore_classes)):
        for one in wanted:
            if not _numbers(names, [one]):
                raise ConfigError(
                    f"Invalid value for `{argument}`. Expected classes of {where}: {_listed(names)}. Received: {one}."
                )
    if options.classes:
        return options.classes
    left = set(names) - _numbers(names, options.ignore_classes)
    found = {names[number] for number in (left & set(used)) or left}
    if len(found) > 1:
        raise ConfigError(
            f"{where}: several classes. Name those that are landslides as `classes`. Found {_listed(names)}."
        )
    return tuple(found)


def _numbers(names: Mapping[int, str], wanted: Collection[str]) -> frozenset[int]:
    found: set[int] = set()
    for one in wanted:
        by_name = {number for number, name in names.items() if name.casefold() == one.casefold()}
        found |= by_name or {number for number in names if str(number) == one}
    return frozenset(found)


def _listed(names: Mapping[int, str]) -> str:
    shown = [name if name == str(number) else f"{name} ({number})" for number, name in sorted(names.items())]
    return ", ".join(shown[:20]) + (f", ... ({len(shown)} classes)" if len(shown) > 20 else "") or "no class"
