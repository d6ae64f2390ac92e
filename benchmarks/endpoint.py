"""A light S3 endpoint: nginx with a page of Lua, since full servers cost more than any client.

Uploads to buckets whose names begin with ``kept`` are written to files, and can be downloaded;
what is sent to any other bucket is read and dropped. Downloads go by ``sendfile``.
"""

import http.client
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

DROPPED = "dropped"
"""The bucket that keeps nothing but names and sizes."""
KEPT = "kept"
"""The bucket that keeps its objects."""
KEY, SECRET, REGION = "benchmark", "benchmark-secret", "us-east-1"
"""Any key is accepted."""

_MODULES = ("/usr/lib/nginx/modules", "/usr/share/nginx/modules", "/usr/lib64/nginx/modules")
_NEEDED = ("ndk_http_module.so", "ngx_http_lua_module.so")
_READY_SECONDS = 20.0
_STOP_SECONDS = 5.0

# Not as a function to be run after forking, which is deprecated once there are threads.
_OWN_GROUP = """
import ctypes, os, signal, sys
os.setsid()
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1
    # The main process of nginx takes its workers with it.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
os.execvp(sys.argv[1], sys.argv[1:])
"""

_CONFIGURATION = """
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log error;
worker_processes {workers};
worker_rlimit_nofile 8192;
{user}
{modules}
events {{ worker_connections 2048; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    tcp_nodelay on;
    keepalive_requests 10000000;
    keepalive_timeout 600s;
    client_max_body_size 0;
    client_body_in_file_only off;
    client_body_buffer_size 4m;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    lua_socket_buffer_size 256k;
    lua_shared_dict objects 256m;
    lua_shared_dict uploads 32m;
    lua_package_path "{source}/?.lua;/usr/share/lua/5.1/?.lua;;";
    init_by_lua_block {{ endpoint = require "endpoint" }}
    init_worker_by_lua_block {{ math.randomseed(ngx.worker.pid()) }}
    server {{
        listen {address}:{port};
        set $kept_directory {directory}/objects;
        set $kept_file "";
        set $object_path "";
        location / {{
            rewrite_by_lua_block {{ ngx.var.object_path = ngx.var.uri:sub(2) }}
            content_by_lua_block {{ endpoint.handle() }}
        }}
        location @kept {{
            root /;
            try_files $kept_file =404;
            default_type application/gzip;
            header_filter_by_lua_block {{ endpoint.add_metadata() }}
        }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running endpoint."""

    host: str
    port: int
    group: int
    """The process group of nginx."""
    directory: Path

    @property
    def url(self) -> str:
        """``http://address:port``."""
        return f"http://{self.host}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What any client needs to find and accept it, and nothing else."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "S3_ENDPOINT_URL": self.url,
        }

    def path(self, key: str) -> Path:
        """Where a kept object lies."""
        return self.directory / "objects" / KEPT / quote(key, safe="")

    def delete(self, bucket: str, key: str) -> None:
        """Forget one object."""
        self._request("DELETE", f"/{bucket}/{quote(key)}")

    def size(self, bucket: str, key: str) -> int | None:
        """Bytes of one object; ``None`` if there is none."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        try:
            connection.request("HEAD", f"/{bucket}/{quote(key)}")
            answer = connection.getresponse()
            return int(answer.headers["Content-Length"]) if answer.status == 200 else None
        finally:
            connection.close()

    def put_file(self, key: str, path: Path) -> None:
        """Keep a file as an object, without copying it through a client."""
        with path.open("rb") as file:
            self._request("PUT", f"/{KEPT}/{quote(key)}", file, path.stat().st_size)

    def _request(self, method: str, path: str, body: object = None, length: int = 0) -> None:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=600)
        try:
            headers = {"Content-Length": str(length)}
            connection.request(method, path, body=body, headers=headers)  # type: ignore[arg-type]
            answer = connection.getresponse()
            answer.read()
            if answer.status >= 300:
                raise RuntimeError(f"the endpoint answers {answer.status} to {method} {path}")
        finally:
            connection.close()

    def cpu_seconds(self) -> float:
        """What all its processes have used so far."""
        ticks = 0
        for status in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                # The name of the program, in brackets, may hold anything.
                fields = status.read_text().rpartition(")")[2].split()
                if int(fields[2]) == self.group:
                    ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def available() -> str | None:
    """Why there can be no endpoint here; ``None`` if there can."""
    if _nginx() is None:
        return "nginx is not installed"
    if _modules() is None:
        return "nginx has no Lua module: install libnginx-mod-http-lua"
    return None


def version() -> str:
    """Of nginx."""
    command = [_nginx() or "nginx", "-v"]
    return subprocess.run(command, capture_output=True, text=True).stderr.strip()


def _nginx() -> str | None:
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def _modules() -> Path | None:
    for directory in map(Path, _MODULES):
        if all((directory / name).exists() for name in _NEEDED):
            return directory
    return None


@contextmanager
def running(
    parent: Path | None = None, *, address: str = "127.0.0.1", prefix: Sequence[str] = ()
) -> Iterator[Endpoint]:
    """Run an endpoint; it ends with the block, or with this process, however that ends.

    Args:
        parent: Where kept objects lie, in a directory of their own.
        address: To listen on.
        prefix: A command that runs another, as ``ip netns exec NAME`` does.
    """
    problem = available()
    if problem is not None:
        raise RuntimeError(f"{problem} (make bench installs what is missing)")
    with tempfile.TemporaryDirectory(prefix="endpoint-", dir=parent) as temporary:
        directory = Path(temporary)
        for name in ("body", f"objects/{KEPT}", "objects/parts"):
            (directory / name).mkdir(parents=True)
        port = _free_port() if not prefix else 9000
        configuration = directory / "nginx.conf"
        configuration.write_text(_configuration(directory, address, port))
        command = [sys.executable, "-c", _OWN_GROUP, *prefix, str(_nginx())]
        command += ["-p", str(directory), "-c", str(configuration), "-e", f"{directory}/error.log"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        try:
            _wait_until_ready(process, directory, None if prefix else (address, port))
            yield Endpoint(address, port, process.pid, directory)
        finally:
            _stop(process)


def _configuration(directory: Path, address: str, port: int) -> str:
    modules = _modules()
    return _CONFIGURATION.format(
        directory=directory,
        workers=os.cpu_count() or 1,
        # Otherwise the workers of root's nginx are nobody's, and may not read what is root's.
        user="user root;" if os.geteuid() == 0 else "",
        modules="\n".join(f"load_module {modules}/{name};" for name in _NEEDED),
        source=Path(__file__).parent,
        address=address,
        port=port,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(
    process: subprocess.Popen[bytes], directory: Path, place: tuple[str, int] | None
) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        if process.poll() is not None or time.monotonic() > deadline:
            log = directory / "error.log"
            raise RuntimeError(f"nginx did not start: {log.read_text() if log.exists() else ''}")
        with suppress(OSError):
            if place is None:
                # Out of reach, in another namespace; it listens before it writes this.
                if (directory / "nginx.pid").stat().st_size:
                    return
            else:
                socket.create_connection(place, timeout=1).close()
                return
        time.sleep(0.02)


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
            break
    # Workers that outlive their main process would keep the port.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def unique(name: str) -> str:
    """A key that nobody has used."""
    return f"{name}-{secrets.token_hex(4)}"
