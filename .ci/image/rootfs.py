"""Lay out the root of the image: an application, Python, and the libraries that both load.

    python3 rootfs.py ROOT APPLICATION

Runs in the Dockerfile's first stage, on Debian or a kin of it. The application is a virtual
environment. What is copied is what it needs, found by asking the dynamic linker; so there is no
list of packages to keep, and nothing that an intruder could use. The packages that the files belong
to are written down as distroless images do it (`/var/lib/dpkg/status.d`), so that scanners still
find their vulnerabilities, with their licences.
"""

from __future__ import annotations

import compileall
import py_compile
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

# Of the standard library: what runs, tests or draws for developers. ensurepip holds a whole pip.
DEVELOPERS_ONLY = (
    "__pycache__",
    "_ctypes_test.*",
    "_test*",
    # Slim images have it, and no Tk.
    "_tkinter.*",
    "config-*",
    "dist-packages",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
    "tkinter",
    "turtledemo",
    "xxlimited*",
)
SYSTEM = (
    "/etc/ld.so.cache",
    # Without it, glibc asks DNS before /etc/hosts.
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/ssl/certs/ca-certificates.crt",
)
COMMANDS = {"certagent"}
"""What stays of the application's bin/: libraries bring tools of their own."""

USERS = {
    "/etc/passwd": "root:x:0:0::/:/none\ncertagent:x:1337:1337::/:/none\n",
    "/etc/group": "root:x:0:\ncertagent:x:1337:\n",
}


class Root:
    """The new root, under a directory; `packaged` are the files that came from the system."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.packaged: set[str] = set()
        for name in ("lib", "lib64"):
            if Path("/", name).is_symlink():
                target = Path("/", name).readlink()
                self.inside(f"/{target}").mkdir(parents=True)
                self.inside(f"/{name}").symlink_to(target)

    def inside(self, path: str | Path) -> Path:
        """Return where a path of the system is in the new root."""
        return self.path / str(path).lstrip("/")

    def copy(self, path: str) -> None:
        """Copy a file under the name that it is asked for."""
        self.inside(path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, self.inside(path))
        self.packaged |= {path, str(Path(path).resolve())}

    def copy_tree(self, path: Path, *without: str) -> None:
        """Copy a directory, links as what they lead to."""
        ignore = shutil.ignore_patterns(*without)
        shutil.copytree(path, self.inside(path), ignore=ignore, ignore_dangling_symlinks=True)
        self.packaged |= {str(file) for file in path.rglob("*") if file.is_file()}

    def write(self, path: str, text: str) -> None:
        """Write a file."""
        self.inside(path).parent.mkdir(parents=True, exist_ok=True)
        self.inside(path).write_text(text)


def libraries(root: Root) -> set[str]:
    """Return all libraries that the dynamic linker loads for what is in the new root."""
    found: set[str] = set()
    binaries = [
        str(path)
        for path in root.path.rglob("*")
        if path.is_file() and (".so" in path.suffixes or path.parent.name == "bin")
    ]
    told = subprocess.run(  # noqa: S603 - the arguments are files of this build
        ["/usr/bin/ldd", *binaries], capture_output=True, text=True, check=False
    ).stdout
    for line in told.splitlines():
        if "not found" in line:
            raise SystemExit(f"a library is missing: {line.strip()}")
        words = line.split()
        path = words[2] if "=>" in words else words[0] if words else ""
        if path.startswith("/") and not path.endswith(":"):
            found.add(path)
    # What wheels bring along lies in the root already.
    return {path for path in found if not path.startswith(str(root.path))}


def describe_packages(root: Root) -> None:
    """Write down the packages, and copy their licences."""
    status = Path("/var/lib/dpkg/status").read_text(encoding="utf-8")
    for stanza in status.split("\n\n"):
        fields = dict(
            line.split(": ", 1)
            for line in stanza.splitlines()
            if line[:1].isalpha() and ": " in line
        )
        name = fields.get("Package", "")
        names = (name, f"{name}:{fields.get('Architecture', '')}")
        lists = [Path(f"/var/lib/dpkg/info/{each}.list") for each in names]
        owned = {line for each in lists if each.exists() for line in each.read_text().splitlines()}
        if not owned & root.packaged:
            continue
        root.write(f"/var/lib/dpkg/status.d/{name}", stanza + "\n")
        licence = f"/usr/share/doc/{name}/copyright"
        if Path(licence).exists():
            root.copy(licence)


def main(target: str, application: str) -> None:
    """Make the root."""
    root = Root(Path(target))
    python = Path(application, "bin", "python").resolve()
    root.copy(str(python))
    root.copy_tree(Path(sysconfig.get_path("stdlib")), *DEVELOPERS_ONLY)
    shutil.copytree(application, root.inside(application), symlinks=True)
    for path in root.inside(application).joinpath("bin").iterdir():
        if path.name not in COMMANDS:
            path.unlink()
    link = root.inside(application) / "bin" / "python"
    link.symlink_to(python)
    for path in libraries(root):
        root.copy(path)
    for path in SYSTEM:
        if Path(path).exists():
            root.copy(path)
    for path, text in USERS.items():
        root.write(path, text)
    describe_packages(root)
    # Not by time: files that come from a layer have any, and byte code must count nevertheless.
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    for each in (sysconfig.get_path("stdlib"), application):
        compiled = compileall.compile_dir(
            root.inside(each), quiet=1, stripdir=target, prependdir="/", invalidation_mode=mode
        )
        if not compiled:
            raise SystemExit(f"{each} does not compile")


if __name__ == "__main__":
    main(*sys.argv[1:])
