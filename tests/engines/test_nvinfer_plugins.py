"""Plugin libraries as a compiler makes them, in TensorRT for RTX's own registry: loaded, or refused in a sentence."""

import subprocess
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from enginesmith_contract.errors import BuildError, EngineRefusedError
from enginesmith_runtime.engines.nvinfer.library import RTX_LIBRARY
from enginesmith_runtime.engines.nvinfer.messages import create_logger
from enginesmith_runtime.engines.nvinfer.plugins import load_plugins

Compile = Callable[..., Path]
Load = Callable[..., None]

_SOURCE = Path(__file__).with_name("sample_plugin.cpp")
_ELF_MACHINE = 18


@pytest.fixture
def compile_plugin(tmp_path: Path) -> Compile:
    """Return a compiler of `sample_plugin.cpp`: `compile_plugin("name.so", "-DNAME=...")`."""

    def run(name: str, *options: str) -> Path:
        path = tmp_path / name
        subprocess.run(["g++", "-shared", "-fPIC", *options, "-o", path, _SOURCE], check=True, timeout=60)
        return path

    return run


@pytest.fixture
def load() -> Load:
    """Return a loader of libraries that have the digests that the key names."""
    module = RTX_LIBRARY.load()

    def run(*libraries: Path, digests: tuple[str, ...] | None = None) -> None:
        found = tuple(sha256(library.read_bytes()).hexdigest() for library in libraries)
        load_plugins(
            module, create_logger(module), libraries, BuildError, digests=found if digests is None else digests
        )

    return run


def _registered() -> Callable[[str], bool]:
    registry: Any = RTX_LIBRARY.load().get_plugin_registry()
    return lambda name: registry.get_creator(name, "1", "") is not None


def test_a_library_s_plugin_is_in_the_registry_and_an_engine_may_bring_it_again(
    compile_plugin: Compile, load: Load, tmp_path: Path
) -> None:
    name = "EnginesmithLoaded"
    library = compile_plugin("00-libloaded.so", f'-DNAME="{name}"')
    assert not _registered()(name)
    load(library)
    assert _registered()(name)
    elsewhere = tmp_path / "00-again.so"
    elsewhere.write_bytes(library.read_bytes())
    load(elsewhere)


def test_another_library_with_a_plugin_of_the_same_name_is_refused(compile_plugin: Compile, load: Load) -> None:
    load(compile_plugin("one.so", '-DNAME="EnginesmithTwice"'))
    with pytest.raises(BuildError) as refusal:
        load(compile_plugin("other.so", '-DNAME="EnginesmithTwice"', "-O2"))
    assert (refusal.value.reason, refusal.value.where) == ("PluginRefused", "other.so")
    assert "already registered" in refusal.value.why


@pytest.mark.parametrize(
    ("options", "want"),
    [
        (("-DUNRESOLVED",), "undefined symbol: enginesmith_no_library_has_this"),
        (("-DNO_ENTRY",), "neither getCreators nor getPluginCreators"),
        (("-Wl,--no-as-needed", "-l:libenginesmith_absent.so"), "libenginesmith_absent.so: cannot open shared object"),
    ],
    ids=["a symbol is missing", "no plugins in it", "a library is missing"],
)
def test_a_library_that_does_not_load_is_refused_in_the_linker_s_words(
    options: tuple[str, ...], want: str, compile_plugin: Compile, load: Load, tmp_path: Path
) -> None:
    absent = tmp_path / "libenginesmith_absent.so"
    subprocess.run(["gcc", "-shared", "-x", "c", "/dev/null", "-o", absent], check=True, timeout=60)
    library = compile_plugin("libsample.so", *options, f"-L{tmp_path}")
    absent.unlink()
    with pytest.raises(BuildError) as refusal:
        load(library)
    assert (refusal.value.reason, refusal.value.where) == ("PluginRefused", "libsample.so")
    assert want in refusal.value.why
    assert str(tmp_path) not in str(refusal.value)


def test_a_library_for_another_processor_is_refused_by_its_name(compile_plugin: Compile, load: Load) -> None:
    library = compile_plugin("libother.so")
    header = bytearray(library.read_bytes())
    header[_ELF_MACHINE : _ELF_MACHINE + 2] = (243).to_bytes(2, "little")
    library.write_bytes(header)
    with pytest.raises(BuildError) as refusal:
        load(library)
    assert refusal.value.reason == "PluginRefused"
    assert "it is for machine 243, 64 bit; this is" in refusal.value.why


@pytest.mark.parametrize("content", [b"", b"hello", b"no library at all" * 64])
def test_what_is_no_library_is_refused(content: bytes, load: Load, tmp_path: Path) -> None:
    library = tmp_path / "garbage.so"
    library.write_bytes(content)
    with pytest.raises(BuildError) as refusal:
        load(library)
    assert refusal.value.reason == "PluginRefused"
    assert "no ELF header" in refusal.value.why


def test_a_program_is_no_library(load: Load, tmp_path: Path) -> None:
    program = tmp_path / "program.so"
    subprocess.run(["gcc", "-c", "-x", "c", "/dev/null", "-o", program], check=True, timeout=60)
    with pytest.raises(BuildError) as refusal:
        load(program)
    assert "not a shared library" in refusal.value.why


def test_a_server_refuses_libraries_that_the_engine_s_key_does_not_name(compile_plugin: Compile) -> None:
    module = RTX_LIBRARY.load()
    library = compile_plugin("libchanged.so", '-DNAME="EnginesmithChanged"')
    for digests in (("0" * 64,), ()):
        with pytest.raises(EngineRefusedError) as refusal:
            load_plugins(module, create_logger(module), [library], EngineRefusedError, digests=digests)
        assert refusal.value.reason == "PluginDiffers"
    with pytest.raises(EngineRefusedError):
        load_plugins(module, create_logger(module), [], EngineRefusedError, digests=("0" * 64,))
    assert not _registered()("EnginesmithChanged")
