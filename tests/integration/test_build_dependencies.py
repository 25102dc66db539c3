"""Real npm and real pip against small registries on loopback: what is fetched, what is built, what fails."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cloudlet.functions.archive import pack
from cloudlet.functions.build import Builder, Built
from cloudlet.functions.toolchain import find_toolchain
from cloudlet.functions.wire import FunctionUpload
from cloudlet.model.errors import BuildFailed
from cloudlet.model.function import FunctionConfig, Runtime, VersionKey
from cloudlet.settings import Paths

pytestmark = pytest.mark.anyio


class Registry:
    """Packages over HTTP; remembers every path that was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.asked.append(self.path)
                body = registry.files.get(self.path)
                self.send_response(200 if body is not None else 404)
                kind = "text/html" if self.path.startswith("/simple/") else "application/json"
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body or b"{}")))
                self.end_headers()
                self.wfile.write(b"{}" if body is None else body)

            def log_message(self, format: str, *args: object) -> None:
                """Tests look at `asked`."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def add_npm(self, name: str, version: str, manifest: Mapping[str, object], host: str = "") -> str:
        """Publish a package; return its integrity sum. `host` is what its metadata names."""
        full = {"name": name, "version": version, "main": "index.js", **manifest}
        tarball = tgz(
            {"package/package.json": json.dumps(full), "package/index.js": f"module.exports = '{version}'"}
        )
        path = f"/{name}/-/{name}-{version}.tgz"
        integrity = "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()
        self.files[path] = tarball
        dist = {"tarball": f"{host or self.url}{path}", "integrity": integrity}
        known = json.loads(self.files.get(f"/{name}", b'{"versions": {}}'))
        versions = {**known["versions"], version: {**full, "dist": dist}}
        self.files[f"/{name}"] = json.dumps(
            {"name": name, "dist-tags": {"latest": version}, "versions": versions}
        ).encode()
        return integrity

    def add_wheel(self, name: str, version: str) -> None:
        info = f"{name}-{version}.dist-info"
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as wheel:
            wheel.writestr(f"{name}.py", f"version = '{version}'\n")
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
        self._add_simple(name, f"{name}-{version}-py3-none-any.whl", out.getvalue())

    def add_source(self, name: str, version: str) -> None:
        """A package that must be built: its setup.py leaves a mark when it is run."""
        setup = "import pathlib; pathlib.Path('/dev/null').touch(); from setuptools import setup; setup()"
        self._add_simple(name, f"{name}-{version}.tar.gz", tgz({f"{name}-{version}/setup.py": setup}))

    def _add_simple(self, name: str, file: str, content: bytes) -> None:
        self.files[f"/files/{file}"] = content
        link = f'<a href="/files/{file}">{file}</a>'.encode()
        self.files[f"/simple/{name}/"] = b"<!DOCTYPE html><html><body>" + link + b"</body></html>"


def tgz(files: Mapping[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


@pytest.fixture
def registry() -> Iterator[Registry]:
    registry = Registry()
    yield registry
    registry.close()


class Workshop:
    """A builder whose installers know the test's registry only."""

    def __init__(self, tmp_path: Path, registry: Registry) -> None:
        self._tmp_path = tmp_path
        home = tmp_path / "home"
        home.mkdir()
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "npm_config_registry": registry.url,
            "npm_config_fetch_retries": "0",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": f"{registry.url}/simple/",
            "PIP_RETRIES": "0",
        }
        self.paths = Paths(tmp_path / "data")
        self.builder = Builder(self.paths, find_toolchain(environ))
        self._count = 0

    async def build(
        self, files: Mapping[str, str], runtime: Runtime = Runtime.NODE24, scripts: bool = False
    ) -> Built:
        self._count += 1
        folder = self._tmp_path / f"source-{self._count}"
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        archive = self._tmp_path / f"upload-{self._count}.tar"
        with archive.open("wb") as out:
            pack(folder, out)
        upload = FunctionUpload("f", "", FunctionConfig(runtime=runtime), scripts=scripts)
        staged = await self.builder.stage(archive, upload)
        return await self.builder.build(VersionKey("default", "f", staged.digest), staged, 0.0)


@pytest.fixture
def workshop(tmp_path: Path, registry: Registry) -> Workshop:
    return Workshop(tmp_path, registry)


def package(**dependencies: str) -> str:
    return json.dumps({"name": "f", "version": "1.0.0", "dependencies": dependencies})


async def test_npm_installs_once_and_fetches_nothing_when_nothing_changed(
    workshop: Workshop, registry: Registry
) -> None:
    registry.add_npm("inner", "1.0.0", {})
    registry.add_npm("outer", "2.0.0", {"dependencies": {"inner": "^1.0.0"}})
    first = await workshop.build({"index.js": "1", "package.json": package(outer="^2.0.0")})
    assert (first.code_dir / "node_modules/inner/index.js").read_text() == "module.exports = '1.0.0'"
    assert not (first.code_dir / "package-lock.json").exists()
    registry.asked.clear()
    second = await workshop.build({"index.js": "2", "package.json": package(outer="^2.0.0")})
    assert registry.asked == []
    assert second.code_dir != first.code_dir
    installed = second.code_dir / "node_modules/outer/package.json"
    assert installed.stat().st_mode & 0o777 == 0o444
    assert installed.stat().st_ino == (first.code_dir / "node_modules/outer/package.json").stat().st_ino


async def test_a_lock_file_is_honoured_and_its_host_replaced(workshop: Workshop, registry: Registry) -> None:
    integrity = registry.add_npm("dep", "1.0.0", {})
    registry.add_npm("dep", "1.1.0", {})
    lock = {
        "name": "f",
        "version": "1.0.0",
        "lockfileVersion": 3,
        "packages": {
            "": {"name": "f", "version": "1.0.0", "dependencies": {"dep": "^1.0.0"}},
            "node_modules/dep": {
                "version": "1.0.0",
                "resolved": "http://mirror.invalid/dep/-/dep-1.0.0.tgz",
                "integrity": integrity,
            },
        },
    }
    files = {"index.js": "1", "package.json": package(dep="^1.0.0"), "package-lock.json": json.dumps(lock)}
    built = await workshop.build(files)
    assert "'1.0.0'" in (built.code_dir / "node_modules/dep/index.js").read_text()
    assert built.notes == ()
    assert (built.code_dir / "package-lock.json").read_text() == json.dumps(lock)


async def test_a_lock_file_that_does_not_fit_is_a_note(workshop: Workshop, registry: Registry) -> None:
    registry.add_npm("dep", "1.0.0", {})
    lock = {"name": "f", "version": "1.0.0", "lockfileVersion": 3, "packages": {"": {"name": "f"}}}
    built = await workshop.build(
        {"index.js": "1", "package.json": package(dep="^1.0.0"), "package-lock.json": json.dumps(lock)}
    )
    assert (built.code_dir / "node_modules/dep/index.js").is_file()
    assert "npm install was used instead of npm ci" in built.notes[0]


async def test_a_dependency_that_does_not_exist(workshop: Workshop) -> None:
    with pytest.raises(BuildFailed) as caught:
        await workshop.build({"index.js": "1", "package.json": package(**{"no-such-package": "1.0.0"})})
    first, _, log = caught.value.message.partition("\n")
    assert first.startswith("npm could not install the dependencies: 404 Not Found")
    assert "no-such-package" in first
    assert "npm error code E404" in log
    assert list((workshop.paths.cache / "deps").iterdir()) == []
    assert list((workshop.paths.code / ".staging").iterdir()) == []


async def test_install_scripts_run_only_when_the_function_says_so(
    workshop: Workshop, registry: Registry
) -> None:
    script = {"scripts": {"install": "node -e \"require('fs').writeFileSync('ran', '')\""}}
    registry.add_npm("native", "1.0.0", {**script, "hasInstallScript": True})
    files = {"index.js": "1", "package.json": package(native="1.0.0")}
    without = await workshop.build(files)
    assert not (without.code_dir / "node_modules/native/ran").exists()
    assert "install scripts of native were not run" in without.hints[0]
    files["index.js"] = "2"
    with_scripts = await workshop.build(files, scripts=True)
    assert (with_scripts.code_dir / "node_modules/native/ran").exists()
    assert with_scripts.hints == ()


async def test_a_projects_npmrc_cannot_choose_what_is_run(workshop: Workshop, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    evil = tmp_path / "evil.sh"
    evil.write_text(f"#!/bin/sh\ntouch {mark}\nexit 1\n")
    evil.chmod(0o755)
    npmrc = f"git={evil}\nignore-scripts=false\nscript-shell={evil}\n"
    with pytest.raises(BuildFailed):
        await workshop.build(
            {
                "index.js": "1",
                ".npmrc": npmrc,
                "package.json": json.dumps(
                    {
                        "name": "f",
                        "scripts": {"preinstall": "x"},
                        "dependencies": {"x": "git+file:///nonexistent/x.git"},
                    }
                ),
            }
        )
    assert not mark.exists()


async def test_a_package_inside_the_folder(workshop: Workshop) -> None:
    built = await workshop.build(
        {
            "index.js": "1",
            "package.json": package(shared="file:./lib/shared"),
            "lib/shared/package.json": '{"name": "shared", "version": "1.0.0"}',
            "lib/shared/index.js": "module.exports = 'shared'",
        }
    )
    assert (built.code_dir / "node_modules/shared/index.js").read_text() == "module.exports = 'shared'"
    assert (built.code_dir / "node_modules/shared").resolve().is_relative_to(built.code_dir)


async def test_pip_installs_beside_the_functions_own_modules(workshop: Workshop, registry: Registry) -> None:
    registry.add_wheel("helper", "1.5")
    registry.add_wheel("own", "1.0")
    files = {"index.py": "1", "own.py": "mine", "requirements.txt": "helper>=1\nown\n"}
    built = await workshop.build(files, Runtime.PYTHON3)
    assert (built.code_dir / "helper.py").read_text() == "version = '1.5'\n"
    assert (built.code_dir / "own.py").read_text() == "mine"
    assert not (built.code_dir / ".cloudlet-tmp").exists()
    registry.asked.clear()
    await workshop.build({**files, "index.py": "2"}, Runtime.PYTHON3)
    assert registry.asked == []


async def test_a_requirement_that_does_not_exist(workshop: Workshop) -> None:
    with pytest.raises(BuildFailed) as caught:
        await workshop.build({"index.py": "1", "requirements.txt": "no-such-package==9\n"}, Runtime.PYTHON3)
    first, _, log = caught.value.message.partition("\n")
    assert first.startswith("pip could not install the requirements: No matching distribution found")
    assert "no-such-package" in log


async def test_source_packages_are_not_built_by_default(workshop: Workshop, registry: Registry) -> None:
    registry.add_source("sourceonly", "1.0")
    with pytest.raises(BuildFailed, match="only wheels are installed unless"):
        await workshop.build({"index.py": "1", "requirements.txt": "sourceonly\n"}, Runtime.PYTHON3)


async def test_a_file_named_pip_is_not_run(workshop: Workshop, registry: Registry, tmp_path: Path) -> None:
    registry.add_wheel("helper", "1.0")
    evil = f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()"
    files = {"index.py": "1", "requirements.txt": "./helper-1.0-py3-none-any.whl\n", "pip.py": evil}
    with pytest.raises(BuildFailed):
        await workshop.build(files, Runtime.PYTHON3)
    assert not (tmp_path / "ran").exists()
