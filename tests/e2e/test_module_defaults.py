# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Said once for all modules: module_defaults for the group, and the environment, by community.proxmox's names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from e2e.documented import examples_of, modules, uses_api
from e2e.kit import HERE, Run, play, run_playbook, started, token_env
from lab import Lab
from tools.checkout import TOP

GROUP = "group/diskwright.proxmox.api"
API_MODULES = [module for module in modules() if uses_api(module)]
TRUSTED = {"validate_certs": True}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with started(yaml.safe_load((HERE / "examples.yml").read_text())) as lab:
        yield lab


def tasks(prefix: str) -> list[dict[str, Any]]:
    """Each module once, with its first example, in check mode."""
    first = {module: examples_of(module)[0] for module in API_MODULES}
    return [
        {**{k: v for k, v in task.items() if k != "register"}, "name": f"{prefix} {module}", "check_mode": True}
        for module, task in first.items()
    ]


def plays(lab: Lab) -> list[dict[str, Any]]:
    """Who asks is said in three ways: for the group by token, by password, and not at all."""
    common = {"api_host": lab.host, "api_port": lab.port, "api_user": "root@pam", "ca_path": str(lab.cafile), **TRUSTED}
    token = {**common, "api_token_id": "test", "api_token_secret": lab.token(), "api_timeout": 20, "timeout": 120}
    # The full id is what PVE's dialog shows, and what people paste.
    pasted = {**token, "api_token_id": "root@pam!test"}
    return [
        *play(tasks("token"), module_defaults={GROUP: token}),
        *play(tasks("pasted"), module_defaults={GROUP: pasted}),
        *play(tasks("password"), module_defaults={GROUP: {**common, "api_password": lab.password}}),
        *play([{**task, "ignore_errors": True} for task in tasks("nothing")]),
    ]


@pytest.fixture(scope="module")
def defaults(lab: Lab) -> Run:
    return run_playbook(plays(lab), {})


@pytest.fixture(scope="module")
def environment(lab: Lab) -> Run:
    words = {"PROXMOX_VALIDATE_CERTS": "true", "PROXMOX_CA_PATH": str(lab.cafile), "PROXMOX_API_TIMEOUT": "20"}
    host = {"PROXMOX_HOST": lab.host, "PROXMOX_PORT": str(lab.port)}
    return run_playbook(play(tasks("environment")), {**token_env(lab), **host, **words})


def test_the_group_has_every_module_of_the_api() -> None:
    groups = yaml.safe_load((TOP / "meta/runtime.yml").read_text())["action_groups"]
    assert set(API_MODULES) <= set(groups["api"])
    assert not set(groups["api"]) & set(modules()) - set(API_MODULES)


@pytest.mark.parametrize("module", API_MODULES)
@pytest.mark.parametrize("way", ["token", "pasted", "password"])
def test_module_defaults(way: str, module: str, defaults: Run) -> None:
    one = defaults.task(f"{way} {module}")
    assert one.status == "ok", one.result.get("msg")


@pytest.mark.parametrize("module", API_MODULES)
def test_environment(module: str, environment: Run) -> None:
    one = environment.task(f"environment {module}")
    assert one.status == "ok", one.result.get("msg")


@pytest.mark.parametrize("module", API_MODULES)
def test_without_either_the_missing_options_are_named(module: str, defaults: Run) -> None:
    one = defaults.task(f"nothing {module}")
    assert one.status == "failed"
    assert one.result["msg"] == "missing required arguments: api_host, api_user"
