"""nginx, one worker: bearer check by map, access log, nothing buffered, connections kept on both sides."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from bench.load.target import Target
from bench.process import BenchError, free_port, running, wait_until
from bench.procfs import children
from bench.proxies.site import Running, Site, listens, make_key

_CONFIG = """\
{user}
worker_processes 1;
daemon off;
pid nginx.pid;
error_log errors.log;
events {{ worker_connections 4096; }}
http {{
    access_log access.log;
    client_body_temp_path body; proxy_temp_path proxy;
    fastcgi_temp_path unused; uwsgi_temp_path unused; scgi_temp_path unused;
    client_max_body_size 0;
    keepalive_requests 100000000;
    map_hash_bucket_size 256;
    map $http_authorization $authorised {{ default 0; "Bearer {key}" 1; }}
    upstream ollama {{ server 127.0.0.1:{upstream_port}; keepalive 512; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port}{tls};
        location / {{
            if ($authorised = 0) {{ return 401; }}
            proxy_pass http://ollama;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_request_buffering off;
            proxy_read_timeout 1h;
        }}
    }}
}}
"""


def program() -> str | None:
    """The path of nginx, where it is installed; Debian keeps it out of an ordinary user's PATH."""
    return shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")


def version() -> str:
    """What nginx calls itself, or that it is missing."""
    found = program()
    if found is None:
        return "nginx missing (Debian package nginx-light)"
    return subprocess.run([found, "-v"], capture_output=True, text=True).stderr.split(": ")[-1].strip()


@contextmanager
def nginx(site: Site) -> Iterator[Running]:
    """Start it and wait until its worker is there."""
    port, key = free_port(), make_key()
    tls = (
        f" ssl; ssl_certificate {site.certificate}; ssl_certificate_key {site.private_key}"
        if site.tls
        else ""
    )
    user = "user root;" if os.geteuid() == 0 else ""
    (site.directory / "nginx.conf").write_text(
        _CONFIG.format(port=port, key=key, upstream_port=site.upstream_port, tls=tls, user=user)
    )
    errors = site.directory / "errors.log"
    command = [program() or "nginx", "-p", str(site.directory), "-c", "nginx.conf", "-e", "errors.log"]
    with running(command, core=site.core, errors=errors) as process:
        wait_until(lambda: listens(port) and bool(children(process.pid)), process, "nginx", errors)
        workers = children(process.pid)
        if len(workers) != 1:
            raise BenchError(f"nginx has {len(workers)} processes beside its master, not one worker")
        yield Running(workers[0], Target(port, site.tls, key))
