"""Redis servers that misbehave: one of our own with little memory, and a proxy that is slow."""

import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

CHUNK_BYTES = 65_536


def free_port() -> int:
    """A port on the loopback interface on which nothing listens now."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def own_redis(folder: Path, port: int, *settings: str) -> Iterator[subprocess.Popen[str]]:
    """A server of the test's own, ready; it keeps nothing on disk."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed")
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    command = [binary, *options, *settings]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        try:
            for line in server.stdout or []:
                if "Ready to accept connections" in line:
                    break
            yield server
        finally:
            server.kill()


class SlowProxy:
    """Passes bytes to a server and back, until told to hold the answers.

    Parameters
    ----------
    host, port : str, int
        The real server.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._may_pass = threading.Event()
        self._may_pass.set()
        self._closed = threading.Event()
        self._drip_seconds = 0.0
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def stall(self) -> None:
        """Hold every answer from now on."""
        self._may_pass.clear()

    def drip(self, seconds: float) -> None:
        """Pass one byte of an answer at a time, so long apart."""
        self._drip_seconds = seconds

    def recover(self) -> None:
        """Pass what was held, and everything from now on."""
        self._drip_seconds = 0.0
        self._may_pass.set()

    def close(self) -> None:
        self._closed.set()
        self._may_pass.set()
        _shut(self._listener)
        self._threads[0].join()  # from here on nobody is let in
        for one in self._sockets:
            _shut(one)
        for thread in self._threads:
            thread.join()

    def _start(self, work: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            server = socket.create_connection(self._target)
            self._sockets += [client, server]
            self._start(self._pass, client, server)
            self._start(self._hold, server, client)

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(CHUNK_BYTES):
                target.sendall(data)
        except OSError:
            return  # one side went away

    def _hold(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(CHUNK_BYTES):
                self._may_pass.wait()
                while self._drip_seconds and data and not self._closed.is_set():
                    target.sendall(data[:1])
                    data = data[1:]
                    self._closed.wait(self._drip_seconds)
                target.sendall(data)
        except OSError:
            return  # one side went away


def _shut(one: socket.socket) -> None:
    with suppress(OSError):  # the other side was first
        one.shutdown(socket.SHUT_RDWR)
    one.close()
