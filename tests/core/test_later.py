"""What stands in for a module that is imported once something of it is used."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edgefl.later import Later, Nothing, standing_in


@pytest.fixture
def later() -> Later:
    """Stands in for a module that is not loaded."""
    sys.modules.pop("this_is_later", None)
    return Later("this_is_later", {"Rare"})


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "this_is_later.py").write_text("class Rare(Exception): ...\nclass Usual(Exception): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_class_by_which_errors_are_sorted_loads_nothing(later: Later, module: None) -> None:
    with pytest.raises(KeyError):
        try:
            raise KeyError
        except later.Rare:
            pytest.fail("a KeyError is none")
    assert not isinstance(KeyError(), later.Rare)
    assert "this_is_later" not in sys.modules


def test_once_the_module_is_loaded_its_own_classes_count(later: Later, module: None) -> None:
    import this_is_later  # type: ignore[import-not-found]

    with pytest.raises(this_is_later.Rare):
        try:
            raise this_is_later.Rare
        except later.Usual:
            pytest.fail("of another class")
    assert later.Rare is this_is_later.Rare and later.Usual is this_is_later.Usual


def test_whatever_else_is_used_loads_the_module(later: Later, module: None) -> None:
    assert later.Usual.__module__ == "this_is_later"
    assert sys.modules["this_is_later"] is not later
    with pytest.raises(AttributeError, match="'this_is_later' has no attribute 'Neither'"):
        _ = later.Neither


def test_what_another_thread_imports_while_paho_is_imported_is_the_modules_own(
    later: Later, module: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "this_is_later", later)
    from this_is_later import Rare

    assert Rare is not Nothing and Rare.__module__ == "this_is_later"
    assert sys.modules["this_is_later"] is not later


def test_while_another_thread_imports_the_module_a_class_is_none_and_all_else_waits(
    later: Later, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the owner's code imports ssl while the link's thread waits for its socket."""
    text = "import threading\ngo = threading.Event()\ngo.wait(20)\nclass Rare(Exception): ...\nUsual = 1\n"
    (tmp_path / "this_is_later.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    found: list[object] = []
    threads = [threading.Thread(target=__import__, args=("this_is_later",))]
    threads.append(threading.Thread(target=lambda: found.append(later.Usual)))
    threads[0].start()
    while not hasattr(sys.modules.get("this_is_later"), "go"):
        time.sleep(0.001)
    imported = sys.modules["this_is_later"]
    assert later.Rare is Nothing
    threads[1].start()
    time.sleep(0.05)
    imported.go.set()
    for thread in threads:
        thread.join()
    assert found == [1] and sys.modules["this_is_later"] is imported
    assert later.Rare is imported.Rare


def test_what_a_package_has_is_waited_for_too_and_is_not_taken_for_a_module_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when two threads call the first function of numpy.linalg, or ask for the first `array.ctypes`."""
    (tmp_path / "a_package").mkdir()
    (tmp_path / "a_package/part.py").write_text("")
    (tmp_path / "a_package/broken.py").write_text("import this_is_missing\n")
    text = "import threading\ngo = threading.Event()\ngo.wait(20)\nUsual = 1\n"
    (tmp_path / "a_package/__init__.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    later, found = Later("a_package"), list[object]()

    def use() -> None:
        try:
            found.append(later.Usual)
        except ImportError as error:
            found.append(error)

    threads = [threading.Thread(target=__import__, args=("a_package",)), threading.Thread(target=use)]
    threads[0].start()
    while not hasattr(sys.modules.get("a_package"), "go"):
        time.sleep(0.001)
    threads[1].start()
    time.sleep(0.05)
    sys.modules["a_package"].go.set()
    for thread in threads:
        thread.join()
    assert found == [1]
    assert later.part.__name__ == "a_package.part"
    assert not hasattr(later, "neither")
    with pytest.raises(ModuleNotFoundError, match="this_is_missing"):
        _ = later.broken


def test_a_module_that_is_missing_is_named(later: Later) -> None:
    with pytest.raises(ModuleNotFoundError, match="No module named 'this_is_later'"):
        _ = later.Usual


def test_a_function_that_is_bound_at_the_import_is_the_modules_once_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "this_is_later.py").write_text("def twice(x, *, plus=0):\n    return 2 * x + plus\nhalf = None\n")
    (tmp_path / "its_user.py").write_text("import this_is_later\nfrom this_is_later import twice\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("this_is_later", None)
    with standing_in(Later("this_is_later", functions={"twice"})):
        import its_user  # type: ignore[import-not-found]
    assert "this_is_later" not in sys.modules
    assert its_user.twice.__name__ == "twice" and "this_is_later" not in sys.modules
    assert its_user.twice(20, plus=2) == 42
    import this_is_later

    assert its_user.this_is_later.twice is this_is_later.twice


def test_what_stands_for_an_attribute_meanwhile_does_so_until_the_module_is_loaded(module: None) -> None:
    sys.modules.pop("this_is_later", None)
    later = Later("this_is_later", meanwhile={"Usual": 7})
    with standing_in(later):
        from this_is_later import Usual
    assert (Usual, later.Usual) == (7, 7)
    assert later.Rare.__module__ == "this_is_later"
    assert later.Usual is sys.modules["this_is_later"].Usual


def test_a_module_that_is_loaded_already_is_left_alone() -> None:
    with standing_in(Later("sys"), Later("pathlib")):
        import pathlib

        assert pathlib.Path is Path and sys.modules["sys"] is sys


LEAN = """
import sys
heavy = {"inspect", "ast", "ctypes", "pickle", "ipaddress", "numpy.linalg", "numpy._typing", "msgspec.inspect"}
heavy -= {*sys.modules}
import edgefl_agent
import numpy as np
print(heavy & {*sys.modules} or "lean", np.zeros(3).sum())
"""
OWNERS = """
import inspect, ipaddress, pickle, typing, urllib.parse
from dataclasses import dataclass
from inspect import cleandoc
from numpy.linalg import norm
import msgspec
@dataclass
class Bare:
    x: int = 1
square = np.array([[2.0, 1.0], [1.0, 3.0]])
print(
    norm(square) == np.sqrt(15.0), np.linalg.det(square).round(9), np.roots([1, -3, 2]),
    np.polyfit([0, 1, 2], [1, 3, 5], 1).round(9),
    (np.asmatrix(square) ** 2)[0, 0], pickle.loads(pickle.dumps(square)).sum(), np.ctypeslib.as_ctypes(np.arange(2))[1],
    np.zeros(2).ctypes.data > 0, inspect.signature(np.mean), inspect.signature(np.concatenate), Bare.__doc__,
    np.dtype("2i4,f4")["f0"], urllib.parse.urlsplit("http://[::1]:80/").port, ipaddress.ip_address("::1"),
    msgspec.inspect.type_info(int),
    msgspec.json.schema(int), sep="|",
)
signed = [name for name in sorted(dir(np)) if hasattr(getattr(np, name), "__signature__")]
print(*((name, str(inspect.signature(getattr(np, name)))) for name in ["dot", "fix", "where", *signed]))
print(inspect.__spec__.loader is inspect.__loader__, "def signature" in inspect.getsource(inspect))
import numpy._core._add_newdocs
print(np.ndarray.__doc__.startswith("ndarray("), np.linalg.inv is np.linalg._linalg.inv)
"""


FINDER = """
import sys
from importlib.machinery import PathFinder
import edgefl_agent
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "colorsys":
            import inspect
            assert inspect.signature
assert "inspect" not in sys.modules, "it is imported at the start already"
sys.meta_path.insert(sys.meta_path.index(PathFinder), Finder())
import colorsys
print("found")
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_agents_numpy_is_loaded_without_what_the_agent_does_not_use_and_works_as_ever() -> None:
    lean = run(LEAN + OWNERS)
    assert lean.startswith("lean 0.0\n")
    plain = run("import numpy as np\n" + OWNERS)
    assert lean.splitlines()[1:] == plain.splitlines()
    assert "True|5.0|[2. 1.]|[2. 1.]|5.0|7.0|" in plain


def test_an_import_during_which_inspect_is_imported_passes_over_no_finder() -> None:
    assert run(FINDER) == "found\n"


def test_numpys_docstrings_are_cleaned_as_inspect_does_it() -> None:
    import inspect

    import numpy as np
    from edgefl_agent.lean import _cleandoc

    found = [value.__doc__ for value in vars(np).values() if isinstance(getattr(value, "__doc__", None), str)]
    assert len(found) > 500
    assert [_cleandoc(doc) for doc in found] == [inspect.cleandoc(doc) for doc in found]
