"""What is shipped, and that the two source roots stay source roots.

`operator/` shares its name with a module of the standard library: with an `__init__.py` it would shadow
that module in every process whose first path entry is the repository.
"""

import pathlib
import re
import subprocess
import sys
import tarfile
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGES = {"kedge": ROOT / "operator", "kedge_server": ROOT / "model_server"}

# Written in two parts, so that this file does not name them itself.
REGISTRY_HOSTS = [
    f"{name}.{domain}"
    for name, domain in (
        ("pypi", "org"),
        ("files.pythonhosted", "org"),
        ("registry.npmjs", "org"),
        ("proxy.golang", "org"),
        ("sum.golang", "org"),
        ("index.crates", "io"),
        ("static.crates", "io"),
        ("repo1.maven", "org"),
        ("repo.maven.apache", "org"),
        ("deb.debian", "org"),
        ("security.debian", "org"),
    )
]
# The home of a person or of root, or the folder that a machine happens to keep its checkouts in.
MACHINE_PATH = re.compile(r"(?<![\w./>})-])/(?:home|root|Users|work)/[\w.-]")


def sources(package: str) -> set[str]:
    """Returns the Python files of a package by their path inside the distribution."""
    root = PACKAGES[package]
    return {path.relative_to(root).as_posix() for path in (root / package).rglob("*.py")}


def run(*command: str, folder: pathlib.Path = ROOT) -> str:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def build(target: str, source: pathlib.Path, destination: pathlib.Path) -> pathlib.Path:
    run(sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(destination), folder=source)
    (built,) = destination.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return built


def tracked_texts() -> dict[str, str]:
    """Returns the text of every tracked file that is not binary, by its path."""
    texts = {}
    for name in run("git", "ls-files", "-z").split("\0"):
        path = ROOT / name
        if path.is_file() and not path.is_symlink():
            try:
                texts[name] = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
    return texts


@pytest.mark.parametrize("root", PACKAGES.values(), ids=lambda root: root.name)
def test_a_source_root_is_no_package(root: pathlib.Path) -> None:
    assert not (root / "__init__.py").exists(), f"{root.name}/ is a source root: remove its __init__.py"


def test_the_tests_are_no_package() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_of_a_package_is_a_package(package: str) -> None:
    folders = {pathlib.PurePath(path).parent for path in sources(package)}

    assert {folder for folder in folders if f"{folder.as_posix()}/__init__.py" not in sources(package)} == set()


def test_running_from_the_repository_leaves_the_standard_library_alone() -> None:
    assert "pytest" in run(sys.executable, "-W", "error", "-m", "pytest", "--version")
    found = run(sys.executable, "-c", "import operator; print(operator.__file__)")

    assert not pathlib.Path(found.strip()).is_relative_to(ROOT / "operator")


def test_a_package_named_operator_would_be_noticed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "operator").mkdir()
    (tmp_path / "operator" / "__init__.py").touch()

    shadowed = subprocess.run(
        [sys.executable, "-m", "pytest", "--version"], cwd=tmp_path, capture_output=True, timeout=60, check=False
    )

    assert shadowed.returncode != 0


@pytest.mark.parametrize("through_sdist", [False, True])
def test_the_wheel_holds_both_packages_and_nothing_else(tmp_path: pathlib.Path, through_sdist: bool) -> None:
    source = ROOT
    if through_sdist:
        with tarfile.open(build("sdist", ROOT, tmp_path / "sdist")) as archive:
            archive.extractall(tmp_path, filter="data")
        (source,) = tmp_path.glob("kedge-*")
    with zipfile.ZipFile(build("wheel", source, tmp_path / "wheel")) as wheel:
        names = {name for name in wheel.namelist() if not name.endswith("/")}

    assert {name.partition("/")[0].partition("-")[0] for name in names} == set(PACKAGES)
    assert {name for name in names if name.endswith(".py")} == sources("kedge") | sources("kedge_server")
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


@pytest.mark.parametrize("host", REGISTRY_HOSTS)
def test_no_tracked_file_names_a_package_registry(host: str) -> None:
    whole_name = re.compile(rf"(?<![\w.-]){re.escape(host)}(?![\w-])")

    assert [name for name, text in tracked_texts().items() if whole_name.search(text)] == []


def test_no_tracked_file_names_a_path_of_one_machine() -> None:
    found = {name: match[0] for name, text in tracked_texts().items() if (match := MACHINE_PATH.search(text))}

    assert found == {}
