# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: this doc fragment is not part of its public API and may change in any release.
# Note that this is a doc fragment: GNU General Public License v3.0+
# (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The connection options of the modules that talk to the PVE API; the spec is in ``_ansible/connection.py``."""

from __future__ import annotations


class ModuleDocFragment:
    # The options of the action group diskwright.proxmox.api
    DOCUMENTATION = r"""
options:
  api_host:
    description:
      - Name or address of a node of the Proxmox VE cluster. Any node will do.
      - May carry the port (V(pve1.example.com:443)), and may be written as an V(https://) address.
      - If not set, the value of the environment variable E(PROXMOX_HOST) is used.
      - The proxy for it is taken from the environment (E(https_proxy), E(no_proxy)).
    type: str
    required: true
  api_port:
    description:
      - Port of the API. If neither this nor O(api_host) names one, it is 8006.
      - If not set, the value of the environment variable E(PROXMOX_PORT) is used.
    type: int
  api_user:
    description:
      - Who asks, with the realm, for example V(root@pam) or V(ansible@pve).
      - With an API token this may also be the token's full id, V(ansible@pve!disks), instead of O(api_token_id).
      - If not set, the value of the environment variable E(PROXMOX_USER) is used.
    type: str
    required: true
  api_password:
    description:
      - Password of O(api_user).
      - Either this, or O(api_token_id) and O(api_token_secret), is needed. If all are set, the password is used.
      - If not set, the value of the environment variable E(PROXMOX_PASSWORD) is used.
    type: str
  api_otp:
    description:
      - One-time password, for an O(api_user) who logs in with a second factor; needs proxmoxer 2.0 or newer.
        An API token is usually what you want.
      - If not set, the value of the environment variable E(PROXMOX_OTP) is used.
    type: str
  api_token_id:
    description:
      - Name of an API token of O(api_user).
      - If not set, the value of the environment variable E(PROXMOX_TOKEN_ID) is used.
    type: str
  api_token_secret:
    description:
      - Secret of the API token.
      - If not set, the value of the environment variable E(PROXMOX_TOKEN_SECRET) is used.
    type: str
  validate_certs:
    description:
      - Whether the certificate of O(api_host) must be valid.
      - It is not checked by default, because a Proxmox VE node signs its own.
        Better is V(true) together with O(ca_path).
      - If not set, the value of the environment variable E(PROXMOX_VALIDATE_CERTS) is used.
    type: bool
    default: false
  ca_path:
    description:
      - Path to the CA certificates that O(api_host) is verified with, a file or a directory.
        A cluster's own CA is C(/etc/pve/pve-root-ca.pem) on each node.
      - Ignored with O(validate_certs=false).
      - If not set, the value of the environment variable E(PROXMOX_CA_PATH) is used.
    type: path
  api_timeout:
    description:
      - Seconds to wait for each answer of the API.
      - Proxmox VE itself gives up after 30 seconds and says so. With less, a call that takes long, for example because
        it waits for a lock, is cut off and goes on unseen.
      - If not set, the value of the environment variable E(PROXMOX_API_TIMEOUT) is used.
    type: int
    default: 35
  task_timeout:
    description:
      - Seconds to wait for each of the tasks that the module starts in Proxmox VE, and for locks that others hold.
      - When they have passed, the module fails and names the task. The task goes on, and a later run picks up where
        it is.
    type: int
    default: 3600
    aliases: [timeout]
requirements:
  - "proxmoxer >= 1.2"
  - "requests"
"""
