# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Users, tokens, roles and ACLs, and the question whether somebody may do something.

fakepve grants single privileges. Roles, propagation, pools and tokens with separated privileges decide what an
automation account sees, so the lab keeps them as PVE's user.cfg does (pve-access-control, AccessControl.pm, `roles`).
"""

from __future__ import annotations

import json
import secrets
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fakepve.shapes import PRIVILEGES, ROLES

from lab.api import ApiError, Call, Route, bad

_VM_USER = ("VM.Config.CDROM VM.Config.Cloudinit VM.Console VM.Backup VM.GuestAgent.FileRead "
            "VM.GuestAgent.FileSystemMgmt VM.GuestAgent.FileWrite VM.PowerMgmt VM.Audit VM.GuestAgent.Audit").split()
_VM_ADMIN = ("VM.Config.Disk VM.Config.CPU VM.Config.Memory VM.Config.Network VM.Config.HWType VM.Config.Options "
             "VM.Allocate VM.Clone VM.GuestAgent.Unrestricted VM.Migrate VM.Replicate VM.Snapshot "
             "VM.Snapshot.Rollback").split()
_STORE_USER = ["Datastore.AllocateSpace", "Datastore.Audit"]
BUILT_IN: dict[str, frozenset[str]] = {
    **{name: frozenset(privileges) for name, privileges in ROLES.items()},
    "PVEVMUser": frozenset(_VM_USER),
    "PVEVMAdmin": frozenset(_VM_USER + _VM_ADMIN),
    "PVEDatastoreUser": frozenset(_STORE_USER),
    "PVEDatastoreAdmin": frozenset([*_STORE_USER, "Datastore.Allocate", "Datastore.AllocateTemplate"]),
    "PVESysAdmin": frozenset(["Sys.Console", "Sys.Syslog", "Sys.Audit"]),
    "PVETemplateUser": frozenset(["VM.Clone", "VM.Audit"]),
    "PVEAdmin": frozenset(p for p in PRIVILEGES if p not in (
        "Sys.PowerMgmt", "Sys.Modify", "Sys.Incoming", "Sys.AccessNetwork", "Realm.Allocate", "Permissions.Modify",
        "Mapping.Modify")),
}
ALWAYS_SHOWN = ("/", "/access", "/access/groups", "/nodes", "/pool", "/sdn", "/storage", "/vms")


@dataclass
class Account:
    """A user with its tokens: token name -> (secret, separated privileges)."""

    password: str | None = None
    tokens: dict[str, tuple[str, bool]] = field(default_factory=dict)


class Access:
    """What user.cfg holds. The file `access.json` in the state folder keeps it."""

    def __init__(self, path: Path, password: str) -> None:
        self._path = path
        self._lock = threading.RLock()
        self.users: dict[str, Account] = {"root@pam": Account(password)}
        self.roles: dict[str, frozenset[str]] = dict(BUILT_IN)
        self.acl: dict[str, dict[str, dict[str, bool]]] = {}
        """path -> user or token -> role -> propagated."""
        self.pools: dict[str, set[str]] = {}
        """pool -> the ACL paths of its members (`/vms/100`, `/storage/local`)."""
        self._cache: dict[tuple[str, str], frozenset[str]] = {}
        if path.exists():
            self._read()

    # ---- state

    def _read(self) -> None:
        data = json.loads(self._path.read_text())
        self.users = {name: Account(user["password"], {t: (s, p) for t, (s, p) in user["tokens"].items()})
                      for name, user in data["users"].items()}
        self.roles = {name: frozenset(privileges) for name, privileges in data["roles"].items()}
        self.acl = data["acl"]
        self.pools = {name: set(members) for name, members in data["pools"].items()}

    def save(self) -> None:
        """Writes the file and forgets what was computed; to be called after each change."""
        with self._lock:
            self._cache.clear()
            data = {"users": {n: {"password": u.password, "tokens": u.tokens} for n, u in self.users.items()},
                    "roles": {name: sorted(privileges) for name, privileges in self.roles.items()}, "acl": self.acl,
                    "pools": {name: sorted(members) for name, members in self.pools.items()}}
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._path.with_suffix(".tmp")
            temporary.write_text(json.dumps(data, indent=1))
            temporary.chmod(0o600)
            temporary.replace(self._path)

    def add_token(self, userid: str, name: str, privsep: bool = True, secret: str | None = None) -> str:
        """Makes a token of a user and returns its secret."""
        secret = secret or str(uuid.uuid4())
        self.users.setdefault(userid, Account()).tokens[name] = (secret, privsep)
        self.save()
        return secret

    def grant(self, who: str, path: str, role: str, propagate: bool = True) -> None:
        """Gives a user or token a role on a path."""
        self.acl.setdefault(path.rstrip("/") or "/", {}).setdefault(who, {})[role] = propagate
        self.save()

    def remove_guest(self, vmid: int) -> None:
        """Forgets the ACL entries and the pool membership of a destroyed guest."""
        path = f"/vms/{vmid}"
        members = [name for name, paths in self.pools.items() if path in paths]
        if self.acl.pop(path, None) is None and not members:
            return
        for name in members:
            self.pools[name].discard(path)
        self.save()

    def pool_of(self, vmid: int) -> str | None:
        """The pool that a guest is in."""
        return next((name for name, paths in self.pools.items() if f"/vms/{vmid}" in paths), None)

    # ---- questions

    def secret_fits(self, tokenid: str, secret: str) -> bool:
        """Whether this is the secret of that token."""
        user, _, name = tokenid.partition("!")
        known = self.users.get(user, Account()).tokens.get(name)
        return known is not None and secrets.compare_digest(known[0].encode(), secret.encode())

    def password_fits(self, userid: str, password: str) -> bool:
        """Whether this is the password of that user."""
        known = self.users.get(userid, Account()).password
        return known is not None and secrets.compare_digest(known.encode(), password.encode())

    def allowed(self, who: str, path: str, privilege: str) -> bool:
        """Whether a user or token has a privilege on a path."""
        return privilege in self.privileges(who, path)

    def all_powerful(self, who: str) -> bool:
        """Whether a token of root@pam has all of root's privileges everywhere."""
        user, _, name = who.partition("!")
        token = self.users.get(user, Account()).tokens.get(name)
        return user == "root@pam" and token is not None and not token[1]

    def privileges(self, who: str, path: str) -> frozenset[str]:
        """Everything that a user or token may do on a path."""
        key = (who, path)
        found = self._cache.get(key)
        if found is None:
            with self._lock:
                found = self._cache[key] = self._compute(who, path)
        return found

    def _compute(self, who: str, path: str) -> frozenset[str]:
        if who == "root@pam":
            return self.roles["Administrator"]
        user, _, name = who.partition("!")
        if name:
            token = self.users.get(user, Account()).tokens.get(name)
            if token is None:
                return frozenset()
            of_user = self._compute(user, path)
            return of_user & self._of_roles(who, path) if token[1] else of_user
        return self._of_roles(who, path)

    def _of_roles(self, who: str, path: str) -> frozenset[str]:
        roles = set(self._roles(who, path))
        if "NoAccess" not in roles:
            for pool, members in self.pools.items():
                if path in members:
                    roles |= self._roles(who, f"/pool/{pool}")
        if "NoAccess" in roles:
            return frozenset()
        return frozenset().union(*(self.roles.get(role, frozenset()) for role in roles))

    def _roles(self, who: str, path: str) -> set[str]:
        """The roles of the deepest ACL entry on the way down to the path."""
        parts = [part for part in path.split("/") if part]
        roles: set[str] = set()
        for depth in range(len(parts) + 1):
            step = "/" + "/".join(parts[:depth])
            entries = self.acl.get(step, {}).get(who, {})
            new = {role for role, propagate in entries.items() if propagate or depth == len(parts)}
            roles = new or roles
        return roles

    def report(self, who: str, path: str | None) -> dict[str, dict[str, int]]:
        """The answer of GET /access/permissions: by path the privileges, and whether each is passed on below it."""
        paths = [path] if path else [*ALWAYS_SHOWN, *self.acl, *(m for members in self.pools.values() for m in members)]
        held = {step: self.privileges(who, step) for step in dict.fromkeys(paths)}
        below = {step: self.privileges(who, f"{step.rstrip('/')}/below") for step in held}
        return {
            step: {privilege: int(privilege in below[step]) for privilege in sorted(privileges)}
            for step, privileges in held.items() if privileges
        }  # fmt: skip


def _words(text: Any) -> list[str]:
    return [word for word in str(text or "").replace(";", ",").replace(" ", ",").split(",") if word]


def _permissions(call: Call) -> dict[str, dict[str, int]]:
    who = str(call.values.get("userid") or call.user)
    if who != call.user and not (call.user or "").startswith(who):
        call.check("/access", "Sys.Audit")
    return call.cluster.access.report(who, call.values.get("path"))


def _add_user(call: Call) -> None:
    access, userid = call.cluster.access, str(call.values["userid"])
    if userid in access.users:
        raise ApiError(f"create user failed: user '{userid}' already exists")
    access.users[userid] = Account(call.values.get("password"))
    access.save()


def _delete_user(call: Call) -> None:
    access, userid = call.cluster.access, str(call.values["userid"])
    if access.users.pop(userid, None) is None:
        raise ApiError(f"delete user failed: user '{userid}' does not exist")
    for entries in access.acl.values():
        for who in [who for who in entries if who == userid or who.startswith(userid + "!")]:
            del entries[who]
    access.save()


def _add_token(call: Call) -> dict[str, Any]:
    access, userid, name = call.cluster.access, str(call.values["userid"]), str(call.values["tokenid"])
    if userid not in access.users:
        raise bad(userid=f"no such user ('{userid}')")
    if name in access.users[userid].tokens:
        raise bad(tokenid="Token already exists.")
    privsep = bool(call.values.get("privsep", 1))
    secret = access.add_token(userid, name, privsep)
    return {"full-tokenid": f"{userid}!{name}", "info": {"privsep": str(int(privsep))}, "value": secret}


def _delete_token(call: Call) -> None:
    access = call.cluster.access
    account = access.users.get(str(call.values["userid"]))
    if account is None or account.tokens.pop(str(call.values["tokenid"]), None) is None:
        raise bad(tokenid=f"no such token '{call.values['tokenid']}' for user '{call.values['userid']}'")
    access.save()


def _add_role(call: Call) -> None:
    access, role = call.cluster.access, str(call.values["roleid"])
    if role in access.roles:
        raise ApiError(f"create role failed: role '{role}' already exists")
    privileges = _words(call.values.get("privs"))
    for privilege in privileges:
        if privilege not in PRIVILEGES:
            raise ApiError(f"create role failed: invalid privilege '{privilege}'")
    access.roles[role] = frozenset(privileges)
    access.save()


def _delete_role(call: Call) -> None:
    access, role = call.cluster.access, str(call.values["roleid"])
    if role in BUILT_IN:
        raise ApiError(f"auto-generated role '{role}' cannot be deleted")
    if access.roles.pop(role, None) is None:
        raise ApiError(f"delete role failed: role '{role}' does not exist")
    access.save()


def _set_acl(call: Call) -> None:
    access, values = call.cluster.access, call.values
    path = str(values["path"]).rstrip("/") or "/"
    for who in _words(values.get("users")) + _words(values.get("tokens")):
        for role in _words(values["roles"]):
            if role not in access.roles:
                raise ApiError(f"ACL update failed: role '{role}' does not exist")
            if values.get("delete"):
                access.acl.get(path, {}).get(who, {}).pop(role, None)
            else:
                access.acl.setdefault(path, {}).setdefault(who, {})[role] = bool(values.get("propagate", 1))
    access.save()


ROUTES = [
    Route("GET", "/access/permissions", _permissions),
    Route("POST", "/access/users", _add_user),
    Route("DELETE", "/access/users/{userid}", _delete_user),
    Route("POST", "/access/users/{userid}/token/{tokenid}", _add_token),
    Route("DELETE", "/access/users/{userid}/token/{tokenid}", _delete_token),
    Route("POST", "/access/roles", _add_role),
    Route("DELETE", "/access/roles/{roleid}", _delete_role),
    Route("PUT", "/access/acl", _set_acl),
]
