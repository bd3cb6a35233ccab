"""Parts of the report: the function that makes each one, and the data that it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lim_keras.reproduction import ablation, claims, differences, table2, table3, table4
from lim_keras.reproduction.context import ReproductionContext
from lim_keras.reproduction.parts import Part
from lim_keras.reproduction.settings import ReproductionSettings


@dataclass(frozen=True, slots=True)
class Maker:
    """Function of a part, its title, and the settings without which it says only what is missing."""

    title: str
    make: Callable[[ReproductionContext], Part]
    needs: tuple[str, ...] = ()


# One line for each part, in the order of `settings.PARTS`.
MAKERS: Mapping[str, Maker] = {
    "table2": Maker(table2.TITLE, table2.make_table2),
    "table3": Maker(table3.TITLE, table3.make_table3),
    "table4": Maker(table4.TITLE, table4.make_table4),
    "ablation": Maker(ablation.TITLE, ablation.make_ablation),
    "claims": Maker(claims.TITLE, claims.make_claims),
    "differences": Maker(differences.TITLE, differences.make_differences),
}

_ADDED_BY: Mapping[str, str] = {
    "scene": "This part needs a scene that no tile was cut from, and its labels: add `--scene` and `--truth`.",
    "transfer": "This part needs tiles of another region: add `--transfer`.",
    "coarse": "This part needs tiles of about 10 m: add `--coarse`.",
    "coarse_scene": "This part needs a scene of about 10 m: add `--coarse-scene`.",
}


def lacking(name: str, settings: ReproductionSettings) -> str:
    """Return a sentence on the data that a part lacks, with the option that adds it; "" if it lacks none."""
    missing = [one for one in MAKERS[name].needs if getattr(settings, one) is None]
    return _ADDED_BY[missing[0]] if missing else ""


def make_part(name: str, context: ReproductionContext) -> Part:
    """Make a part, or the part that says what it lacks."""
    reason = lacking(name, context.settings)
    return Part(name, MAKERS[name].title, text=(reason,)) if reason else MAKERS[name].make(context)
