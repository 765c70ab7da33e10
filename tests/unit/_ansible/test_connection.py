# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection options: as community.proxmox has them, as they are documented, and what becomes of them."""

from __future__ import annotations

import importlib.util

import pytest
import yaml
from ansible.module_utils.basic import env_fallback
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible import connection
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import DiskwrightError
from tools import checkout

# The options of community.proxmox 1.4 and later: name, type, and environment variable.
COMMUNITY_OPTIONS = {
    "api_host": ("str", "PROXMOX_HOST"),
    "api_port": ("int", "PROXMOX_PORT"),
    "api_user": ("str", "PROXMOX_USER"),
    "api_password": ("str", "PROXMOX_PASSWORD"),
    "api_otp": ("str", "PROXMOX_OTP"),
    "api_token_id": ("str", "PROXMOX_TOKEN_ID"),
    "api_token_secret": ("str", "PROXMOX_TOKEN_SECRET"),
    "validate_certs": ("bool", "PROXMOX_VALIDATE_CERTS"),
    "ca_path": ("path", "PROXMOX_CA_PATH"),
    "api_timeout": ("int", "PROXMOX_API_TIMEOUT"),
}
SECRETS = {"api_password", "api_otp", "api_token_secret"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for _type, variable in COMMUNITY_OPTIONS.values():
        monkeypatch.delenv(variable, raising=False)


def fragment(name: str) -> dict[str, dict[str, object]]:
    """The blocks of a doc fragment, by name."""
    spec = importlib.util.spec_from_file_location(name, checkout.TOP / "plugins" / "doc_fragments" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    blocks = vars(module.ModuleDocFragment)
    return {block: yaml.safe_load(text) for block, text in blocks.items() if block.isupper()}


def params(**options: object) -> dict[str, object]:
    result = ArgumentSpecValidator(connection.connection_argument_spec()).validate(options)
    assert result.error_messages == []
    return result.validated_parameters


def test_options_are_those_of_community_proxmox() -> None:
    spec = connection.connection_argument_spec()
    ours = {name: (option["type"], option["fallback"][1][0]) for name, option in spec.items() if "fallback" in option}
    assert ours == COMMUNITY_OPTIONS
    assert all(option["fallback"][0] is env_fallback for option in spec.values() if "fallback" in option)


def test_secrets_are_not_logged() -> None:
    spec = connection.connection_argument_spec()
    assert {name for name, option in spec.items() if option.get("no_log")} == SECRETS


def test_documentation_and_spec_agree() -> None:
    documented = fragment("_connection")["DOCUMENTATION"]["options"]
    assert isinstance(documented, dict)
    keys = ("type", "required", "default", "aliases")
    spec = connection.connection_argument_spec()
    assert {name: {key: option.get(key) for key in keys} for name, option in documented.items()} == {
        name: {key: option.get(key) for key in keys} for name, option in spec.items()
    }
    for name, (_type, variable) in COMMUNITY_OPTIONS.items():
        assert f"E({variable})" in str(documented[name]["description"])


def test_blocks_of_attributes_only_speak_of_known_attributes() -> None:
    blocks = fragment("_attributes")
    known = set(blocks["DOCUMENTATION"]["attributes"])  # type: ignore[call-overload]
    described = {
        attribute
        for block in blocks.values()
        for attribute, details in block["attributes"].items()  # type: ignore[attr-defined]
        if "description" in details
    }
    assert known == {"check_mode", "diff_mode", "idempotent"}
    assert described == known | {"action_group", "platform"}
    assert all(block["options"] == {} for block in blocks.values())


def test_endpoint_from_options() -> None:
    made = connection.endpoint(
        params(api_host="pve1:443", api_user="ansible@pve", api_token_id="disks", api_token_secret="s", api_timeout="7")
    )
    assert (made.host, made.port, made.user, made.token_id) == ("pve1", 443, "ansible@pve", "disks")
    assert (made.token_secret, made.timeout, made.validate_certs) == ("s", 7, False)


def test_endpoint_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "HOST": "pve1",
        "PORT": "443",
        "USER": "root@pam",
        "PASSWORD": "p4ss",
        "OTP": "123456",
        "VALIDATE_CERTS": "yes",
        "CA_PATH": "/etc/ssl/pve.pem",
        "API_TIMEOUT": "60",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"PROXMOX_{name}", value)
    made = connection.endpoint(params())
    assert (made.host, made.port, made.user, made.password, made.otp) == ("pve1", 443, "root@pam", "p4ss", "123456")
    assert (made.validate_certs, made.ca_path, made.timeout) == (True, "/etc/ssl/pve.pem", 60)


def test_task_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROXMOX_HOST", "pve1")
    monkeypatch.setenv("PROXMOX_USER", "root@pam")
    monkeypatch.setenv("PROXMOX_PASSWORD", "p4ss")
    assert connection.endpoint(params(api_host="pve2")).host == "pve2"


def test_missing_host_and_user() -> None:
    result = ArgumentSpecValidator(connection.connection_argument_spec()).validate({})
    assert result.error_messages == ["missing required arguments: api_host, api_user"]


def test_missing_credentials() -> None:
    with pytest.raises(DiskwrightError, match="no credentials"):
        connection.endpoint(params(api_host="pve1", api_user="root@pam"))
