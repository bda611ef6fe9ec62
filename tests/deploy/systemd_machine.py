"""A machine with a real systemd as its first process: a container over this machine's own files.

What it writes is kept in memory and gone at its end. It shares the network of this machine, so tests reach
what it serves on loopback. None of this machine's own services run in it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import uuid
from pathlib import Path

from ..clients.programs import cannot_run

CHECKOUT = Path(__file__).parents[2]
BOOT_TIMEOUT = 60.0
RUN_TIMEOUT = 60.0

PROGRAM = """#!/opt/ollama-auth-proxy/bin/python3
import sys
from proxy.__main__ import main
sys.exit(main())
"""


class Machine:
    """It is running once made, with this checkout's program in /opt/ollama-auth-proxy, as pip leaves it."""

    def __init__(self, folder: Path) -> None:
        for program, package in {
            "systemd-nspawn": "systemd-container",
            "nsenter": "util-linux",
            "unshare": "util-linux",
        }.items():
            if shutil.which(program) is None:
                cannot_run(f"{program} is not installed; on Debian, apt-get install {package}")
        if os.geteuid() != 0:
            cannot_run("only root can start a container with systemd in it")
        root, self.units = folder / "root", folder / "units"
        root.mkdir()
        self.units.mkdir()
        # Without an id it would take this for its first boot, and enable every service it finds.
        identity = folder / "machine-id"
        identity.write_text(f"{uuid.uuid4().hex}\n")
        binds = [
            f"--bind={self.units}:/etc/systemd/system",
            f"--bind-ro={identity}:/etc/machine-id",
            *_program(folder / "opt"),
        ]
        words = [
            "systemd-nspawn",
            *("--quiet", "--boot", f"--directory={root}", "--volatile=overlay", "--console=pipe"),
            *("--register=no", "--keep-unit", "--link-journal=no", "--notify-ready=yes"),
            f"--machine=ollama-auth-proxy-{os.getpid()}",
            # For IPAddressDeny=, which is a BPF program on a cgroup.
            *("--capability=CAP_BPF,CAP_NET_ADMIN", "--system-call-filter=bpf"),
            *binds,
            "systemd.unit=basic.target",
        ]
        # In a mount namespace of its own, so that nothing stays mounted whatever happens.
        script = f"mount --bind / {shlex.quote(str(root))} && exec {shlex.join(words)}"
        self.console = folder / "console"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, self.console.open("wb") as console:
            manager.bind(str(folder / "notify"))
            manager.settimeout(BOOT_TIMEOUT)
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--propagation=private", "sh", "-c", script],
                env={
                    "PATH": os.environ["PATH"],
                    "NOTIFY_SOCKET": str(folder / "notify"),
                    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
                },
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
            self.leader = self._boot(manager)

    def _boot(self, manager: socket.socket) -> int:
        """Wait until it has booted; returns the process id of its systemd."""
        leader, ready = 0, False
        try:
            while not (leader and ready):
                state = manager.recv(4096).decode()
                if found := re.search(r"^X_NSPAWN_LEADER_PID=(\d+)$", state, re.MULTILINE):
                    leader = int(found[1])
                ready = ready or "READY=1" in state.splitlines()
        except TimeoutError:
            self.process.kill()
            cannot_run(f"a container with systemd does not boot here:\n{self.console.read_text()[-2000:]}")
        return leader

    def run(self, *words: str, check: bool = True) -> str:
        """Run a command in the machine, as root, and return all that it printed."""
        done = subprocess.run(
            ["nsenter", f"--target={self.leader}", "--all", "--wdns=/", *words],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LD_LIBRARY_PATH": "/opt/python/lib"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=RUN_TIMEOUT,
            check=False,
        )
        assert not check or done.returncode == 0, (
            f"{shlex.join(words)}: exit {done.returncode}\n{done.stdout}"
        )
        return done.stdout

    def succeeds(self, *words: str) -> bool:
        return "\x00 0" in self.run("sh", "-c", f"{shlex.join(words)}; printf '\\0 %s' $?")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Make a file, as root."""
        folder = os.path.dirname(path)
        script = f"umask 077; mkdir -p {folder} && cat > {path} <<'END'\n{text}\nEND\nchmod {mode:o} {path}"
        self.run("sh", "-c", script)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "-P", name, unit).strip()

    def journal(self, unit: str) -> str:
        return self.run("journalctl", "--no-pager", "-o", "cat", "-u", unit)

    def stop(self) -> None:
        os.kill(self.leader, signal.SIGKILL)  # and all others in it with it
        self.process.wait(20)


def _program(folder: Path) -> list[str]:
    """Lay out the program in a folder; returns the binds that bring it into the machine.

    The interpreter may stand in somebody's home, which the proxy must not see, so it is bound elsewhere.
    """
    python = Path(sys.executable).resolve()
    base = Path(sys.base_prefix)
    binds = []
    if base != Path("/usr"):
        binds.append(f"--bind-ro={base}:/opt/python")
        python = Path("/opt/python") / python.relative_to(base)
    packages = Path(sysconfig.get_path("purelib"))
    site = folder / "lib" / packages.parent.name / "site-packages"
    (folder / "bin").mkdir(parents=True)
    site.mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text(f"home = {python.parent}\ninclude-system-site-packages = false\n")
    (folder / "bin" / "python3").symlink_to(python)
    program = folder / "bin" / "ollama-auth-proxy"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    for entry in packages.iterdir():
        (site / entry.name).symlink_to(Path("/opt/packages") / entry.name)
    (site / "proxy").symlink_to("/opt/checkout/proxy")
    return [
        *binds,
        f"--bind-ro={packages}:/opt/packages",
        f"--bind-ro={CHECKOUT}:/opt/checkout",
        f"--bind-ro={folder}:/opt/ollama-auth-proxy",
    ]
