# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a client without Ansible needs at least: http.client, a connection for each thread."""

from __future__ import annotations

import http.client
import json
import queue
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlencode

from bench.servers import API, Address

WORKERS = 8  # what the collection takes for a server near by
WRITERS = 4  # the default of its option concurrency


class BareClient:
    """One thread's connection."""

    def __init__(self, address: Address, context: ssl.SSLContext) -> None:
        self._connection = http.client.HTTPSConnection(address.host, address.port, context=context)
        self._headers = address.headers

    def call(self, method: str, path: str, form: dict[str, str] | None = None) -> Any:
        """The data of the answer."""
        headers = self._headers | ({"Content-Type": "application/x-www-form-urlencoded"} if form else {})
        self._connection.request(method, API + path, urlencode(form) if form else None, headers)
        response = self._connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise RuntimeError(f"{method} {path}: {response.status} {response.reason} {body.decode()}")
        return json.loads(body)["data"]

    def write(self, path: str, form: dict[str, str]) -> None:
        """Post a change and wait for its task, asking as often as the collection does."""
        upid, pause = self.call("POST", path, form), 0.05
        node = upid.split(":")[1]
        while self.call("GET", f"/nodes/{node}/tasks/{upid}/status")["status"] != "stopped":
            time.sleep(pause)
            pause = min(pause * 1.5, 0.3)

    def close(self) -> None:
        self._connection.close()


def _spread(address: Address, workers: int, work: Sequence[Callable[[BareClient], object]]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    todo: queue.SimpleQueue[Callable[[BareClient], object]] = queue.SimpleQueue()
    for job in work:
        todo.put(job)
    failures: list[Exception] = []

    def run() -> None:
        client = BareClient(address, context)
        try:
            while True:
                todo.get_nowait()(client)
        except queue.Empty:
            client.close()
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def read_all(address: Address, paths: Sequence[str]) -> None:
    """Get every path."""
    _spread(address, WORKERS, [partial(BareClient.call, method="GET", path=path) for path in paths])


def write_all(address: Address, forms: dict[str, dict[str, str]]) -> None:
    """Post every form to its path, each until its task has ended."""
    _spread(address, WRITERS, [partial(BareClient.write, path=path, form=form) for path, form in forms.items()])
