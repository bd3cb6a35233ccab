"""QGIS style of a review: colours by status, drop-down lists, read-only fields and an automatic reviewer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element, SubElement, indent, tostring

STATUS_COLOURS: Mapping[str | None, str] = {
    "accepted": "#2fbf5b",
    "rejected": "#ff4b33",
    "unsure": "#ffb000",
    None: "#1fc3ff",
}
"""Colour of the outlines of each status, bright enough for dark scenes; None: without a verdict."""

EDITABLE = ("status", "class", "note")
"""Fields that a reviewer fills in; all others are read-only in QGIS."""

_LABELS = {"accepted": "accepted", "rejected": "rejected", "unsure": "unsure", None: "no verdict"}
_NULL = "{2839923C-8B7D-419E-B84B-CA2FE9B80EC7}"  # how QGIS writes NULL in lists of values
_WHO = "coalesce(nullif(@user_full_name, ''), @user_account_name)"


def landslides_style(columns: Sequence[str], classes: Sequence[str]) -> str:
    """Make the QML of the landslides.

    Args:
        columns: names of their columns.
        classes: classes of landslides to choose from.
    """
    root = _root("Symbology|Fields|Forms|AttributeTable")
    renderer = SubElement(root, "renderer-v2", type="categorizedSymbol", attr="status", symbollevels="0")
    categories = SubElement(renderer, "categories")
    symbols = SubElement(renderer, "symbols")
    for number, (status, colour) in enumerate(STATUS_COLOURS.items()):
        value = {"value": status or "", "label": _LABELS[status], "symbol": str(number), "render": "true"}
        SubElement(categories, "category", value | {"type": "string"})
        symbols.append(_fill(str(number), colour))
    configuration = SubElement(root, "fieldConfiguration")
    lists = {"status": [status for status in STATUS_COLOURS if status], "class": list(classes)}
    for name in columns:
        field = SubElement(SubElement(configuration, "field", name=name), "editWidget")
        field.set("type", "ValueMap" if name in lists else "TextEdit")
        if name in lists:
            _value_map(field, lists[name])
    _defaults(root, columns, {"reviewer": (_WHO, True), "status": ("'accepted'", False)})
    _editable(root, columns, EDITABLE)
    return _text(root)


def searched_style(columns: Sequence[str]) -> str:
    """Make the QML of the searched ground, whose polygons may be drawn in QGIS, too."""
    root = _root("Symbology|Fields|Forms")
    renderer = SubElement(root, "renderer-v2", type="singleSymbol", symbollevels="0")
    SubElement(renderer, "symbols").append(_fill("0", "#6b7280", "b_diagonal"))
    _defaults(root, columns, {"reviewer": (_WHO, True)})
    _editable(root, columns, ())
    return _text(root)


def originals_style(columns: Sequence[str]) -> str:
    """Make the QML of the landslides as the model drew them; nothing in them can be edited."""
    root = _root("Symbology|Fields|Forms", readOnly="1")
    renderer = SubElement(root, "renderer-v2", type="singleSymbol", symbollevels="0")
    SubElement(renderer, "symbols").append(_fill("0", "#9ca3af", "no", line="dash"))
    _editable(root, columns, ())
    return _text(root)


def _root(categories: str, **attributes: str) -> Element:
    return Element("qgis", {"version": "3.22.0", "styleCategories": categories, **attributes})


def _fill(name: str, colour: str, style: str = "solid", line: str = "solid") -> Element:
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    symbol = Element("symbol", {"type": "fill", "name": name, "alpha": "1", "clip_to_extent": "1"})
    layer = SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"})
    options = SubElement(layer, "Option", type="Map")
    values = {
        "color": f"{red},{green},{blue},70",
        "style": style,
        "outline_color": f"{red},{green},{blue},255",
        "outline_style": line,
        "outline_width": "0.5",
        "outline_width_unit": "MM",
        "joinstyle": "bevel",
    }
    for key, value in values.items():
        SubElement(options, "Option", name=key, type="QString", value=value)
    return symbol


def _value_map(widget: Element, values: Sequence[str]) -> None:
    outer = SubElement(SubElement(widget, "config"), "Option", type="Map")
    listed = SubElement(outer, "Option", name="map", type="List")
    for label, value in [("", _NULL), *((one, one) for one in values)]:
        entry = SubElement(listed, "Option", type="Map")
        SubElement(entry, "Option", name=label, type="QString", value=value)


def _defaults(root: Element, columns: Sequence[str], expressions: Mapping[str, tuple[str, bool]]) -> None:
    """Add default values; those with True are written at each change, too."""
    defaults = SubElement(root, "defaults")
    for name in columns:
        expression, on_update = expressions.get(name, ("", False))
        SubElement(defaults, "default", field=name, expression=expression, applyOnUpdate=str(int(on_update)))


def _editable(root: Element, columns: Sequence[str], chosen: Sequence[str]) -> None:
    editable = SubElement(root, "editable")
    for name in columns:
        SubElement(editable, "field", name=name, editable=str(int(name in chosen)))


def _text(root: Element) -> str:
    indent(root)
    return "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + tostring(root, "unicode") + "\n"
