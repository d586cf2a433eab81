"""What of the package a rule runs: the import closure of its modules, compared with Python's own module finder."""

from __future__ import annotations

import graphlib
import modulefinder
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from iqt.planning import closure as planning
from iqt.planning.closure import closure, imports

TOY = {
    "__init__": "",
    "a": "from __future__ import annotations\nfrom typing import TYPE_CHECKING\nfrom toy.config import Size\n"
    "if TYPE_CHECKING:\n    from toy.types_only import T\n",
    "b": "def lazy():\n    try:\n        import toy.a\n    except ImportError:\n        from toy import c\n",
    "c": "import os.path\n",
    "types_only": "T = 1\n",
    "config/__init__": "from toy.config.sizes import Size\nfrom toy.config.colours import Colour\n",
    "config/sizes": "Size = 1\n",
    "config/colours": "Colour = 1\n",
}


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, text in TOY.items():
        path = tmp_path / "toy" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(planning, "PACKAGE", tmp_path / "toy")
    monkeypatch.setattr(planning, "NAME", "toy")
    forget()
    yield
    forget()


def forget() -> None:
    for cached in (planning.imports, planning._tree, planning._file, planning._exists):
        cached.cache_clear()


def names(*modules: str, without: tuple[str, ...] = ()) -> set[str]:
    return {str(path.with_suffix("")) for path in closure(*modules, without=without)}


def test_imports_are_followed_to_where_a_name_is_defined(toy: None) -> None:
    assert names("toy.a") == {"a", "config/sizes"}, "neither types alone nor what else a package gathers"
    assert names("toy.b") == {"a", "b", "c", "config/sizes"}, "lazily too"
    assert names("toy.b", without=("toy.a",)) == {"b", "c"}
    assert names("toy.a", "toy.c") == {"a", "c", "config/sizes"}
    assert names("toy.config") == {"config/__init__", "config/sizes", "config/colours"}
    with pytest.raises(ModuleNotFoundError, match=r"toy\.none"):
        closure("toy.none")


MODULES = ("cohort.build", "cohort.ingest", "degrade.run", "training.enhancement", "enhance.run", "evaluate.run")


@pytest.mark.parametrize("module", MODULES)
def test_it_is_what_python_would_import(module: str, tmp_path: Path, repository: Path) -> None:
    """Python's finder reads bytecode, and takes what an `__init__.py` gathers too: these are emptied for it here."""
    shutil.copytree(repository / "workflow" / "iqt", tmp_path / "iqt", ignore=shutil.ignore_patterns("resources"))
    for path in (tmp_path / "iqt").rglob("__init__.py"):
        path.write_text("")
    finder = modulefinder.ModuleFinder([str(tmp_path)])
    script = tmp_path / "script.py"
    script.write_text(f"import iqt.{module}\n")
    finder.run_script(str(script))
    found = {name for name, one in finder.modules.items() if name.startswith("iqt.") and "__init__" not in one.__file__}
    own, gathered = ({dotted(path) for path in closure(start)} for start in (f"iqt.{module}", "iqt.config"))
    assert found <= own
    assert own - found <= gathered, "the finder sees no name that an emptied __init__.py would have gathered"


def dotted(path: Path) -> str:
    return ".".join(("iqt", *path.with_suffix("").parts)).removesuffix(".__init__")


def test_what_makes_the_voxels_is_in_and_what_does_not_is_out() -> None:
    template, training = closure("iqt.cohort.build"), closure("iqt.training.enhancement")
    assert {Path("cohort/anatomy.py"), Path("cohort/deform.py")} <= set(template)
    assert not {Path("networks/describe.py"), Path("networks/multiview.py"), Path("diffusion/samplers.py")} & set(
        training
    )


def test_a_diffusion_model_needs_no_regression_unless_it_starts_from_one() -> None:
    """Then the rule names the regression's kind beside its own."""
    files = {str(path) for path in closure("iqt.methods.diffusion_iqt", "iqt.training.enhancement")}
    assert {"networks/diffusion_iqt.py", "training/tasks/denoising.py"} < files
    assert not {"methods/unet.py", "networks/unet.py", "networks/residual_unet.py"} & files


def test_no_module_needs_itself(repository: Path) -> None:
    """Neither at once nor lazily."""
    package = repository / "workflow" / "iqt"
    modules = [dotted(path.relative_to(package)) for path in package.rglob("*.py")]
    graph = {module: [one for one in imports(module) if one != "iqt"] for module in modules}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, with the circle


def test_stages_import_no_other_stage(repository: Path) -> None:
    stages = {"cohort", "degrade", "training", "enhance", "parcellate", "evaluate", "report"}
    allowed = {("enhance", "training"), ("parcellate", "training")}  # its cards, checkpoints and fit loop
    package = repository / "workflow" / "iqt"
    found = set()
    for path in package.rglob("*.py"):
        own = path.relative_to(package).parts[0]
        for module in imports(dotted(path.relative_to(package))) if own in stages else ():
            other = module.split(".")[1] if "." in module else ""
            found |= {(own, other)} if other in stages - {own} else set()
    assert found <= allowed
