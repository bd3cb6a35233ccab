"""Files and modules that an installed package needs, checked before it is installed."""

import re
from configparser import ConfigParser
from pathlib import Path

import lim_keras

ROOT = Path(__file__).parents[1]


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for path in (ROOT / "lim_keras").rglob("*.py")}
    assert [str(folder.relative_to(ROOT)) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_changelog_opens_with_this_version():
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    released = [heading for heading in headings if heading != "## [Unreleased]"]
    assert released[0].split()[1] == lim_keras.__version__ and len(headings) - len(released) <= 1


def test_readme_has_the_commands_that_ci_runs():
    readme = (ROOT / "README.md").read_text().splitlines()
    for name in ("demo", "tests"):
        begin = readme.index(f"<!-- command:{name} -->")
        block = readme[begin + 1 : readme.index("<!-- end -->", begin)]
        assert block[0].startswith("```"), name
        assert block[-1] == "```", name
        assert any(".venv/bin/" in line for line in block), name


def extras() -> dict[str, set[str]]:
    """Names of what each extra installs; "" is what every install has."""
    options = ConfigParser()
    options.read(ROOT / "setup.cfg")
    lists = {"": options["options"]["install_requires"], **options["options.extras_require"]}
    lines = {extra: [line for line in text.splitlines() if line and line[0] != "#"] for extra, text in lists.items()}
    return {extra: {re.split(r"[\[<>=~! ]", line)[0] for line in kept} for extra, kept in lines.items()}


def test_tensorflow_is_an_extra():
    known = extras()
    training = {"tensorflow", "keras", "h5py", "tensorboard"}
    assert known["tensorflow"] == training
    assert not training & (known[""] | known["edge"])
    assert {"rasterio", "numpy", "geopandas"} <= known[""] and known["edge"] == {"ai-edge-litert"}


def test_dev_installs_what_the_tests_need():
    line = next(line for line in (ROOT / "setup.cfg").read_text().splitlines() if line.strip().startswith("lim-keras["))
    assert {"tensorflow", "edge", "serving"} <= set(line.split("[")[1].rstrip("]").split(","))


def test_the_demo_is_installed_with_tensorflow():
    assert "pip install -q '.[tensorflow]' && .venv/bin/lim-keras demo" in (ROOT / "README.md").read_text()
