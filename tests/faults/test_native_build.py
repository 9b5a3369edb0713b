"""The extension under sanitizers, on another architecture, and an install without a compiler."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src" / "clipper" / "engine" / "native"
BUILD = (SOURCES / "CMakeLists.txt").read_text()
KERNELS = re.findall(r"(\w+)\.cpp", BUILD.split("set(kernel_sources")[1].split(")")[0])
PLAIN = re.findall(r"(\w+)\.cpp", BUILD.split("nanobind_add_module(_native")[1].split(")")[0])
TASKS = sorted((SOURCES / "envs").glob("*.c"))
X86_VARIANTS = {"avx512": (16, "x86-64-v4"), "avx2": (8, "x86-64-v3"), "sse2": (4, "x86-64")}
WARNINGS = (
    "-std=gnu++17",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-psabi",
    "-Wno-unknown-pragmas",
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def call(*command: str | Path, **environment: str) -> str:
    """Runs a command and returns what it printed; fails with all of it."""
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def needs(*tools: str) -> None:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"there is no {' and no '.join(missing)}")


def compile_kernels(compiler: str, variant: str, lanes: int, flags: list[str], to: Path) -> None:
    for name in KERNELS:
        call(
            compiler, *WARNINGS, *flags, "-ffp-contract=off", "-c", SOURCES / f"{name}.cpp",
            f"-DCLIPPER_VARIANT={variant}", f"-DCLIPPER_LANES={lanes}", "-o", to / f"{name}.o",
        )  # fmt: skip


def build_check(
    compiler: str, variant: str, lanes: int, flags: list[str], to: Path, *last: str
) -> Path:
    """Returns a program that compares the kernels' arithmetic with the C library's."""
    compile_kernels(compiler, variant, lanes, flags, to)
    call(
        # a compiler of today fails on the check's own loops when it vectorises them
        compiler, *WARNINGS, *flags, "-fno-tree-vectorize", "-ffp-contract=off", f"-I{SOURCES}",
        f"-DCLIPPER_VARIANT={variant}", f"-DCLIPPER_LANES={lanes}",
        Path(__file__).with_name("lanes_check.cpp"), *sorted(to.glob("*.o")), *last,
        "-o", to / "check",
    )  # fmt: skip
    return to / "check"


@pytest.mark.parametrize("variant", X86_VARIANTS)
def test_arithmetic_on_lanes(tmp_path: Path, variant: str) -> None:
    """exp, log, activations and products against double precision, on each instruction set here."""
    needs("g++")
    from clipper.engine import kernels

    if kernels.ABSENCE is not None or variant not in kernels.compiled.variants():
        pytest.skip(f"this machine has no {variant}")
    lanes, march = X86_VARIANTS[variant]
    assert call(build_check("g++", variant, lanes, [f"-march={march}"], tmp_path)) == ""


def test_arithmetic_on_lanes_of_arm64(tmp_path: Path) -> None:
    """The same on NEON, with a cross compiler and an emulator."""
    needs("aarch64-linux-gnu-g++", "qemu-aarch64")
    check = build_check("aarch64-linux-gnu-g++", "generic", 4, [], tmp_path, "-static")
    assert call("qemu-aarch64", check) == ""


def test_how_late_a_second_thread_may_be() -> None:
    """The rule grows with the number of tasks: see `partner_check.cpp`."""
    needs("g++")
    check = Path(__file__).with_name("partner_check.cpp")
    limit = "-fconstexpr-ops-limit=100000000"
    call(
        "g++",
        *WARNINGS,
        limit,
        "-fconstexpr-loop-limit=1000000",
        f"-I{SOURCES}",
        "-fsyntax-only",
        check,
    )


def test_no_fault_under_address_and_undefined_behaviour_sanitizers(tmp_path: Path) -> None:
    """Every kernel, head and activation on shapes that fill no vector."""
    needs("cmake", "g++")
    build = tmp_path / "build"
    call(
        "cmake", "-S", SOURCES, "-B", build, "-DCLIPPER_SANITIZE=ON", "-DCLIPPER_WERROR=ON",
        f"-DPython_EXECUTABLE={sys.executable}", "-DCMAKE_CXX_COMPILER=g++",
    )  # fmt: skip
    call("cmake", "--build", build, "--parallel", "2")
    (extension,) = build.glob("_native*.so")
    libraries = [
        call("g++", f"-print-file-name={name}").strip()
        for name in ("libasan.so", "libubsan.so", "libstdc++.so")
    ]
    printed = call(
        sys.executable,
        Path(__file__).with_name("native_driver.py"),
        extension,
        LD_PRELOAD=" ".join(libraries),
        ASAN_OPTIONS="detect_leaks=0",
        PYTHONMALLOC="malloc",
    )
    assert printed.startswith("fine:")


@pytest.mark.parametrize("variant", X86_VARIANTS)
def test_a_variant_shares_no_code_with_another(tmp_path: Path, variant: str) -> None:
    """No weak symbols: the linker could give one instruction set's copy of a function to all."""
    needs("g++", "nm")
    lanes, march = X86_VARIANTS[variant]
    compile_kernels("g++", variant, lanes, [f"-march={march}"], tmp_path)
    for name in KERNELS:
        symbols = call("nm", "-C", tmp_path / f"{name}.o").splitlines()
        shared = [line for line in symbols if line[17:18] in "WwVvu"]
        assert shared == []


def test_the_kernels_compile_for_arm64(tmp_path: Path) -> None:
    """With a cross compiler, warnings as errors; NEON is part of the architecture."""
    compiler, c_compiler = "aarch64-linux-gnu-g++", "aarch64-linux-gnu-gcc"
    needs(compiler, c_compiler)
    nanobind = pytest.importorskip("nanobind")
    compile_kernels(compiler, "generic", 4, [], tmp_path)
    ours = f"-I{ROOT / 'src' / 'clipper' / 'include'}"
    # headers of this machine's Python: both architectures have the same types
    others = (sysconfig.get_path("include"), nanobind.include_dir(), np.get_include())
    for name in PLAIN:
        call(
            compiler, *WARNINGS, "-fvisibility=hidden", "-DCLIPPER_X86=0", ours,
            *(f"-isystem{folder}" for folder in others),
            "-c", SOURCES / f"{name}.cpp", "-o", tmp_path / f"{name}.o",
        )  # fmt: skip
    for task in TASKS:
        flags = ("-std=c11", *WARNINGS[1:])
        call(c_compiler, *flags, ours, "-c", task, "-o", tmp_path / f"{task.stem}.o")


def test_every_source_is_compiled() -> None:
    """What is in the folder is in the build, and so in the tests above."""
    assert sorted([*KERNELS, *PLAIN]) == sorted(file.stem for file in SOURCES.glob("*.cpp"))
    assert [task.stem for task in TASKS] == sorted(
        re.findall(r"\w+", BUILD.split("foreach(task ")[1].split(")")[0])
    )


@pytest.mark.parametrize("option", [(), ("-DCLIPPER_WERROR=ON",)])
def test_warnings_are_errors_where_they_are_asked_to_be(
    tmp_path: Path, option: tuple[str, ...]
) -> None:
    """A user's new compiler may warn of what ours does not, and must not cost the engine."""
    needs("cmake", "g++")
    call(
        "cmake", "-S", SOURCES, "-B", tmp_path, f"-DPython_EXECUTABLE={sys.executable}",
        "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON", *option,
    )  # fmt: skip
    steps = json.loads((tmp_path / "compile_commands.json").read_text())
    ours = [step["command"] for step in steps if Path(step["file"]).is_relative_to(SOURCES)]
    assert len(ours) > len(PLAIN) + len(TASKS)
    assert {"-Werror" in command for command in ours} == {bool(option)}


def test_without_a_compiler_the_install_succeeds(tmp_path: Path) -> None:
    """The wheel is complete but for the extension."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__"))
    call(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check",
        "--no-build-isolation", "--no-deps", "-w", tmp_path, source,
        CXX="/bin/false",
    )  # fmt: skip
    (wheel,) = tmp_path.glob("clipper_rl-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "clipper/engine/native.py" in names
    assert not [name for name in names if name.endswith((".so", ".cpp", ".hpp"))]
