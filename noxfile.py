# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ./dev hands over to. The sessions run in .venv, which ./dev makes; only where versions must differ do they
have an environment of their own, kept under .cache/nox.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
from pathlib import Path

import nox

sys.path.insert(0, str(Path(__file__).parent / "tests"))
# They are found only through the line above.
from tools import ansible_test_home, checkout, molecule_runs, pythons  # noqa: E402
from tools import integration as integration_runs  # noqa: E402

nox.options.sessions = ["test"]

TOP = Path(__file__).parent.resolve()
CACHE = TOP / ".cache"
REQUIREMENTS = TOP / "tests" / "requirements"
TARGETS = str(integration_runs.FOLDER)
PYTHON = sys.executable  # that of .venv
# Every supported ansible-core, and the Pythons that it runs on as controller.
CORES = {
    "2.18.19": ("3.11", "3.12", "3.13"),
    "2.19.14": ("3.11", "3.12", "3.13"),
    "2.20.10": ("3.12", "3.13", "3.14"),
    "2.21.5": ("3.12", "3.13", "3.14"),
}
KNOW_ANSIBLE = ["tests/unit/_ansible", "tests/unit/_pve", "tests/unit/filter"]
here = functools.partial(nox.session, python=False)


def environment(*path: Path) -> dict[str, str]:
    """The environment for a command: `path` first, this collection importable, Ansible's own files in .cache."""
    search = [*path, Path(PYTHON).parent, *pythons.search_path()]
    (CACHE / "home").mkdir(parents=True, exist_ok=True)
    return {
        "PATH": os.pathsep.join(map(str, search)),
        "PYTHONPATH": os.pathsep.join([str(TOP / "tests"), str(checkout.link())]),
        "ANSIBLE_COLLECTIONS_PATH": str(checkout.link()),
        "ANSIBLE_HOME": str(CACHE / "ansible"),
    }


def own_environment(session: nox.Session, name: str, python: str, *arguments: str) -> Path:
    """The bin folder of the virtual environment .cache/nox/<name>, holding `arguments`; made anew when they change."""
    folder = CACHE / "nox" / name
    stamp = folder / "stamp"
    wanted = "\n".join([str(folder), python, *arguments])
    wanted += "".join(Path(word).read_text("utf-8") for word in arguments if word.endswith(".txt"))
    if not stamp.is_file() or stamp.read_text("utf-8") != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        session.run(PYTHON, "-m", "virtualenv", "-q", "-p", python, str(folder), env=environment())
        session.run(str(folder / "bin" / "python"), "-m", "pip", "install", "-q", *arguments, env=environment())
        stamp.write_text(wanted, "utf-8")
    return folder / "bin"


def linters(session: nox.Session) -> Path:
    return own_environment(session, "lint", PYTHON, "-r", str(REQUIREMENTS / "lint.txt"))


def run_sanity(session: nox.Session, bin_folder: Path, *arguments: str) -> None:
    """ansible-test sanity on what the artifact will hold and the targets, with the ansible-core of `bin_folder`."""
    with checkout.alone("sanity"):
        tree = checkout.stage(CACHE / "sanity" / bin_folder.parent.name, TARGETS)
        run_ansible_test(session, bin_folder, tree, "sanity", *arguments)


def run_ansible_test(session: nox.Session, bin_folder: Path, tree: Path, kind: str, *arguments: str) -> None:
    ansible_test_home.prepare(CACHE / "home", bin_folder)
    # ansible-test keeps a virtual environment for each of its tests in HOME.
    env = environment(bin_folder, pythons.folder(CACHE / "pythons")) | {"HOME": str(CACHE / "home")}
    del env["PYTHONPATH"], env["ANSIBLE_COLLECTIONS_PATH"]
    with session.chdir(tree):
        ansible_test = (str(bin_folder / "python"), str(bin_folder / "ansible-test"))
        session.run(*ansible_test, kind, "--color", "no", *arguments, env=env)


@here
def test(session: nox.Session) -> None:
    """Style, sanity and all tests. With arguments: pytest with them, nothing else."""
    for name in ["units"] if session.posargs else ["style", "types", "sanity", "units"]:
        session.notify(name)


@here(default=False)
def style(session: nox.Session) -> None:
    """ruff."""
    session.run(PYTHON, "-m", "ruff", "check", "--output-format", "concise", ".", env=environment())


@here(default=False)
def types(session: nox.Session) -> None:
    """mypy on all plugins."""
    if packages := checkout.packages():
        session.run(PYTHON, "-m", "mypy", *(f"--package={name}" for name in packages), env=environment())


@here(default=False)
def sanity(session: nox.Session) -> None:
    """ansible-test sanity with the ansible-core and the Python of .venv."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    run_sanity(session, Path(PYTHON).parent, "--local", "--python", python)


@here(default=False)
def units(session: nox.Session) -> None:
    """Unit, lab and end-to-end tests with pytest, on both cores; or pytest with the arguments given."""
    arguments = session.posargs or ["--numprocesses", "2", "--dist", "loadfile"]
    session.run(PYTHON, "-m", "pytest", *arguments, env=environment())


@here(default=False)
def check(session: nox.Session) -> None:
    """Everything that a release needs."""
    once = ("style", "types", "units", "integration", "molecule", "neighbours", "lint", "artifact", "docs")
    for name in (*once, *(f"core({release})" for release in CORES)):
        session.notify(name)


@here(default=False)
@nox.parametrize("release", list(CORES), ids=list(CORES))
def core(session: nox.Session, release: str) -> None:
    """Sanity and unit tests on a supported ansible-core, with the newest Python of this machine that can run it.

    The rooms that know nothing of Ansible are tested on the newest of them only.
    """
    found = pythons.find()
    usable = [version for version in CORES[release] if version in found]
    if not usable:
        session.skip(f"needs Python {' or '.join(CORES[release])}, which this machine has not")
    packages = (f"ansible-core=={release}", "-r", str(REQUIREMENTS / "test.txt"))
    bin_folder = own_environment(session, f"core-{release}", found[usable[-1]], *packages)
    run_sanity(session, bin_folder, "--local")
    some = [*KNOW_ANSIBLE, *map(str, sorted(TOP.glob("tests/unit/test_*.py")))]
    tests = ["tests/unit"] if release == max(CORES) else some
    pytest = (str(bin_folder / "python"), "-m", "pytest", "--numprocesses", "2", "--dist", "loadfile")
    session.run(*pytest, *tests, env=environment(bin_folder))


@here(default=False)
def integration(session: nox.Session) -> None:
    """The integration targets on a lab, or the cluster in integration_config.yml; with arguments, only those."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    with checkout.alone("integration"):
        tree = checkout.stage(CACHE / "integration", TARGETS)
        with integration_runs.configured(tree) as where:
            session.log(f"integration targets on {where}")
            how = ("--local", "--python", python, "--continue-on-error")
            run_ansible_test(session, Path(PYTHON).parent, tree, "integration", *how, *session.posargs)


@here(default=False)
def molecule(session: nox.Session) -> None:
    """Molecule's scenarios and that of the guide, each with a lab of its own; with arguments, only those."""
    with checkout.alone("molecule"):
        bin_folder = own_environment(session, "molecule", PYTHON, "-r", str(REQUIREMENTS / "molecule.txt"))
        env = environment(bin_folder) | {"HOME": str(CACHE / "home"), "LAB_PYTHON": PYTHON}
        test = (str(bin_folder / "molecule"), "test", "--scenario-name")
        for name in session.posargs or molecule_runs.names():
            if name == molecule_runs.GUIDES_SCENARIO:
                with molecule_runs.users_repository() as (repository, lab_env), session.chdir(repository):
                    session.run(*test, "disks", env=env | lab_env)
            else:
                session.run(*test, name, env=env | {"LAB_PORT": str(molecule_runs.free_port())})


@here(default=False)
def neighbours(session: nox.Session) -> None:
    """The tests beside the real community.proxmox, which this installs."""
    session.run(PYTHON, "-c", "from bench import playbooks; playbooks.peer()", env=environment())
    session.run(PYTHON, "-m", "pytest", "tests/e2e/test_neighbours.py", env=environment())


@here(default=False)
def lint(session: nox.Session) -> None:
    """The linters of YAML, documentation, changelog and licences."""
    with checkout.alone("lint"):
        bin_folder = linters(session)
        env = environment(bin_folder) | {"HOME": str(CACHE / "home")}
        tree = checkout.stage(CACHE / "lint")
        session.run(str(bin_folder / "yamllint"), "--strict", ".", env=env)
        session.run(str(bin_folder / "reuse"), "lint", "--lines", env=env)
        session.run(str(bin_folder / "ansible-lint"), "--offline", env=env)
        with session.chdir(tree):
            antsibull = (str(bin_folder / "antsibull-docs"), "lint-collection-docs", "--plugin-docs")
            session.run(*antsibull, "--validate-collection-refs", "self", ".", env=env)
            session.run(str(bin_folder / "antsibull-changelog"), "lint", env=env)


@here(default=False)
def artifact(session: nox.Session) -> None:
    """Builds what Galaxy gets, installs it, runs the demo from there, and lets Galaxy's importer judge."""
    with checkout.alone("artifact"):
        bin_folder = own_environment(session, "importer", PYTHON, "-r", str(REQUIREMENTS / "importer.txt"))
        output = CACHE / "artifact"
        shutil.rmtree(output, ignore_errors=True)
        installed = output / "collections"
        env = environment(bin_folder) | {"HOME": str(CACHE / "home"), "ANSIBLE_COLLECTIONS_PATH": str(installed)}
        del env["PYTHONPATH"]
        galaxy = (str(bin_folder / "ansible-galaxy"), "collection")
        session.run(*galaxy, "build", "--output-path", str(output), str(checkout.stage(CACHE / "build")), env=env)
        (tarball,) = output.glob("*.tar.gz")
        session.run(*galaxy, "install", "--offline", "-p", str(installed), str(tarball), env=env)
        session.run(str(bin_folder / "ansible-doc"), "--list", "diskwright.proxmox", env=env)
        search = os.pathsep.join([str(TOP / "tests"), str(installed)])  # what is not in the artifact is not there
        from_there = {"PYTHONPATH": search, "ANSIBLE_COLLECTIONS_PATH": str(installed)}
        session.run(PYTHON, "-m", "demo", env=environment() | from_there)
        with session.chdir(output):
            session.run(str(bin_folder / "python"), "-m", "galaxy_importer.main", str(tarball), env=env)


@here(default=False)
def docs(session: nox.Session) -> None:
    """The documentation as static HTML in .cache/docs/html."""
    with checkout.alone("docs"):
        bin_folder = own_environment(session, "docs", PYTHON, "-r", str(REQUIREMENTS / "docs.txt"))
        source, html = checkout.docs_source(CACHE / "docs"), CACHE / "docs" / "html"
        env = environment(bin_folder)
        antsibull = (str(bin_folder / "antsibull-docs"), "collection", "--use-current", "--dest-dir", str(source))
        session.run(*antsibull, "--fail-on-error", "diskwright.proxmox", env=env)
        session.run(str(bin_folder / "sphinx-build"), "-q", "-W", "--keep-going", str(source), str(html), env=env)
        session.log(f"open {html / 'index.html'}")


def run_package(session: nox.Session, name: str) -> None:
    session.run(PYTHON, "-m", name, *session.posargs, env=environment())


@here(default=False)
def lab(session: nox.Session) -> None:
    """The Proxmox VE lookalike of the tests."""
    run_package(session, "lab")


@here(default=False)
def demo(session: nox.Session) -> None:
    """Shows the collection at work, in a lab."""
    run_package(session, "demo")


@here(name="demo-windows", default=False)
def demo_windows(session: nox.Session) -> None:
    """Shows two Windows guests on their way to VirtIO, in a lab that plays them."""
    run_package(session, "demo.windows")


@here(default=False)
def bench(session: nox.Session) -> None:
    """Measures the collection."""
    run_package(session, "bench")


@here(default=False)
def generate(session: nox.Session) -> None:
    """Makes anew what is written from tables and argument specs: options, rules, Windows releases, READMEs of roles."""
    for name in ("drive_fragment", "policy_table", "windows_table", "role_readme"):
        session.run(PYTHON, f"tests/tools/{name}.py", env=environment())


@here(default=False)
def changelog(session: nox.Session) -> None:
    """Makes CHANGELOG.md from the fragments, for the version in galaxy.yml."""
    bin_folder = linters(session)
    session.run(str(bin_folder / "antsibull-changelog"), "release", *session.posargs, env=environment(bin_folder))


@here(default=False)
def lock(session: nox.Session) -> None:
    """Makes the exact pins in tests/requirements/*.txt anew from the *.in files."""
    bin_folder = own_environment(session, "lock", PYTHON, "uv")
    for name in ("test", "ansible", "lint", "docs", "importer", "molecule"):
        command = ["pip", "compile", "-q", "--universal", "--python-version", "3.11", "--no-annotate", "--no-header"]
        if name == "ansible":  # installed together with test.txt
            command += ["-c", "test.txt"]
        with session.chdir(REQUIREMENTS):
            pins = session.run(str(bin_folder / "uv"), *command, f"{name}.in", silent=True, env=environment())
        checkout.write_pins(REQUIREMENTS / f"{name}.txt", pins)
