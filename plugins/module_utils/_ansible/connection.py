# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The options that say where the PVE API is and who asks; documented in the fragment ``_connection``.

Names, types, aliases and environment variables are those of community.proxmox, so that one ``module_defaults`` block
and one environment serve both collections. The default of ``api_timeout`` differs, with its reason in the fragment.
"""

from __future__ import annotations

import typing as t

from ansible.module_utils.basic import env_fallback

from .._pve.endpoint import DEFAULT_TIMEOUT, Endpoint

if t.TYPE_CHECKING:
    from collections.abc import Mapping

# Seconds for the tasks that one module run starts in PVE: copies of large disks take long.
DEFAULT_TASK_TIMEOUT = 3600


def connection_argument_spec() -> dict[str, dict[str, t.Any]]:
    """The argument spec of the connection options, a new one each time."""
    return {
        "api_host": _option("PROXMOX_HOST", required=True),
        "api_port": _option("PROXMOX_PORT", type="int"),
        "api_user": _option("PROXMOX_USER", required=True),
        "api_password": _option("PROXMOX_PASSWORD", no_log=True),
        "api_otp": _option("PROXMOX_OTP", no_log=True),
        "api_token_id": _option("PROXMOX_TOKEN_ID", no_log=False),
        "api_token_secret": _option("PROXMOX_TOKEN_SECRET", no_log=True),
        "validate_certs": _option("PROXMOX_VALIDATE_CERTS", type="bool", default=False),
        "ca_path": _option("PROXMOX_CA_PATH", type="path"),
        "api_timeout": _option("PROXMOX_API_TIMEOUT", type="int", default=DEFAULT_TIMEOUT),
        "task_timeout": {"type": "int", "default": DEFAULT_TASK_TIMEOUT, "aliases": ["timeout"]},
    }


def _option(variable: str, **details: t.Any) -> dict[str, t.Any]:
    return {"type": "str", "fallback": (env_fallback, [variable]), **details}


def endpoint(params: Mapping[str, t.Any]) -> Endpoint:
    """The endpoint that a module's parameters name.

    :raises DiskwrightError: options that are missing or contradict each other.
    """
    return Endpoint.from_options(params)
