"""What an installed package would miss, found before it is installed."""

from pathlib import Path

import lim_keras

ROOT = Path(__file__).parents[1]


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for path in (ROOT / "lim_keras").rglob("*.py")}
    assert [str(folder.relative_to(ROOT)) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_changelog_opens_with_this_version():
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    assert headings[0].split()[1] == lim_keras.__version__


def test_readme_has_the_commands_that_ci_runs():
    readme = (ROOT / "README.md").read_text().splitlines()
    for name in ("demo", "tests"):
        begin = readme.index(f"<!-- command:{name} -->")
        block = readme[begin + 1 : readme.index("<!-- end -->", begin)]
        assert block[0].startswith("```"), name
        assert block[-1] == "```", name
        assert any(".venv/bin/" in line for line in block), name
