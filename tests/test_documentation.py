"""README.md, the pages of docs/ and the code that their site is built with."""

import importlib.util
import re
from pathlib import Path

import nbclient
import nbformat
import pytest
import yaml

import lim_keras
from lim_keras.config import RunConfig

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "exported_models/README.md")
"""Outside of the site, whose links MkDocs checks."""


def hook(name):
    path = ROOT / "docs" / "scripts" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def configuration_tables():
    return hook("configuration_reference").on_page_markdown("before\n<!-- configuration -->\nafter")


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_files(name):
    page = ROOT / name
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    assert [link for link in links if not link.startswith("http") and not (page.parent / link).exists()] == []


def test_every_page_is_in_the_navigation():
    nav = re.findall(r"[\w/]+\.(?:md|ipynb)", (ROOT / "mkdocs.yml").read_text())
    found = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.ipynb")]
    assert sorted(nav) == sorted(str(path.relative_to(ROOT / "docs")) for path in found)


def keys(model, prefix=""):
    """Dotted names of all keys of a configuration."""
    for name, field in model.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and hasattr(section, "model_fields"):
            yield from keys(section, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_configuration_tables_have_every_key_once():
    rows = re.findall(r"^\| `([\w.]+)` \|", configuration_tables(), re.MULTILINE)
    assert sorted(rows) == sorted(keys(RunConfig))


def test_configuration_tables_say_type_limits_and_default():
    text = configuration_tables()
    assert "| `name` | text | required |" in text
    assert "| `training.epochs` | whole number, >= 1 | `30` |" in text
    assert "| `sampling.scale_jitter` | list of number | `[0.7, 1.4]` |" in text
    assert "| `training.deterministic` | `true` or `false` | `false` |" in text
    assert "| `training.early_stopping` | whole number or `null`, >= 1 | `null` |" in text


def test_every_dependency_is_explained():
    text = (ROOT / "setup.cfg").read_text()
    listed = text[text.index("install_requires") : text.index("[options.packages.find]")]
    names = {re.split(r"[\[<>=]", line.strip())[0] for line in listed.splitlines() if re.match(r" +[\w-]+[\[<>]", line)}
    page = (ROOT / "docs" / "reference" / "dependencies.md").read_text()
    assert {"numpy", "tensorflow", "ruff"} <= names
    assert [name for name in sorted(names - {"lim-keras"}) if f"`{name}`" not in page] == []


def test_citation_names_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == lim_keras.__version__


@pytest.mark.slow
def test_notebook_runs_and_shows_its_results(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "docs" / "tutorials" / "python_api.ipynb", as_version=4)
    stored = [cell.source for cell in notebook.cells if cell.cell_type == "code" and not cell.outputs]
    nbclient.execute(notebook, cwd=str(tmp_path), timeout=300)
    assert [cell.source for cell in notebook.cells if cell.cell_type == "code" and not cell.outputs] == stored
    assert (tmp_path / "maps" / "scene_inventory.gpkg").exists()


def test_the_attributes_of_the_inventory_are_on_their_page():
    page = (ROOT / "docs" / "reference" / "predict_outputs.md").read_text()
    rows = hook("attribute_table").on_page_markdown(page)
    assert "| `area_m2` | m² | area without holes |" in rows and "| `aspect_mean_deg` | degrees |" in rows
