# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Shows how far image_convert is. The module itself runs in the background, as with the keyword async."""

from __future__ import annotations

import os
import shlex
import shutil
import time
import typing as t
import uuid

from ansible import constants
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ..module_utils._image.progress import SEEN, Report
from ..module_utils._image.watch import AGAIN, Watch

#: The module's default.
_STATE_DIR = "/var/lib/diskwright"
#: Seconds after which async_wrapper would kill the module: never, as far as disks go.
_LIMIT = 60 * 24 * 3600
#: Seconds between two looks, from the first to the longest; and until the job itself is asked, if nothing is seen.
_FIRST, _LONGEST, _ASK = 0.3, 2.0, 30.0
_OF_ASYNC = ("ansible_job_id", "results_file", "started", "finished")
_EMPTY = ("stdout", "stderr", "stdout_lines", "stderr_lines")


class ActionModule(ActionBase):
    """Starts the module, shows its progress until it ends, and returns its result."""

    _supports_async = True
    _supports_check_mode = True
    _headed = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Run the task."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        if self._task.check_mode or self._task.async_val:
            ran = self._execute_module(task_vars=variables, wrap_async=self._task.async_val)
        else:
            ran = self._watched(variables)
        return {**result, **ran}

    def _watched(self, variables: dict[str, t.Any]) -> dict[str, t.Any]:
        arguments = dict(self._task.args)
        own = not arguments.get("progress_file")
        if own:
            folder = str(arguments.get("state_dir") or _STATE_DIR)
            arguments["progress_file"] = os.path.join(folder, "progress", f"{uuid.uuid4().hex}.json")
        started = self._start(arguments, variables)
        if "ansible_job_id" not in started:
            return started
        path = shlex.quote(arguments["progress_file"])
        ended = self._follow(started, path, self._report(variables), variables)
        self._asked(started, "cleanup", variables)
        self._low_level_execute_command(f"rm -f {path} {path}{SEEN}" if own else f"rm -f {path}{SEEN}")
        return _as_of_the_module(ended)

    def _start(self, arguments: dict[str, t.Any], variables: dict[str, t.Any]) -> dict[str, t.Any]:
        """Start the module as the keyword async would, which is the task's only while this lasts."""
        self._task.async_val = _LIMIT
        try:
            started: dict[str, t.Any] = self._execute_module(
                module_args=arguments, task_vars=variables, wrap_async=True
            )
            return started
        finally:
            self._task.async_val = 0

    def _follow(
        self, started: dict[str, t.Any], path: str, report: Report, variables: dict[str, t.Any]
    ) -> dict[str, t.Any]:
        """Show the progress until the job has ended.

        The reader's mark tells the module that somebody still waits for it. A look that fails is repeated: the
        connection may be back the next time, and if it is not, asking for the job says so.
        """
        nap, asked, node = _FIRST, time.monotonic(), Watch()
        while True:
            time.sleep(nap)
            nap = min(nap * 1.3, _LONGEST)
            seen = self._low_level_execute_command(node.command(path))
            images = node.look(seen.get("stdout", "") if seen.get("rc") == 0 else "")
            self._show(report.text(images))
            all_ended = bool(images) and all(one.phase in ("done", "failed") for one in images)
            if all_ended or not images or node.gone or time.monotonic() - asked > _ASK:
                asked = time.monotonic()
                answer = self._asked(started, "status", variables)
                if answer.get("finished") or "ansible_job_id" not in answer:
                    return answer
                if node.lost:
                    return {"failed": True, "msg": node.loss}

    def _asked(self, started: dict[str, t.Any], mode: str, variables: dict[str, t.Any]) -> dict[str, t.Any]:
        """Where the job's file is, it has said itself: its ~ is HOME, Ansible's the home in the password database."""
        folder = os.path.dirname(started["results_file"])
        arguments = {"jid": started["ansible_job_id"], "mode": mode, "_async_dir": folder}
        answer: dict[str, t.Any] = self._execute_module(
            module_name="ansible.legacy.async_status", module_args=arguments, task_vars=variables
        )
        return answer

    def _report(self, variables: dict[str, t.Any]) -> Report:
        """In place on a terminal, if no other host prints there, too."""
        alone = len(variables.get("ansible_play_hosts_all", [])) <= 1
        host = "" if alone else str(variables.get("inventory_hostname", ""))
        return Report(host, shutil.get_terminal_size().columns if alone and _on_terminal() else 0)

    def _show(self, text: str) -> None:
        if text and not self._headed:
            self._headed = True
            if _banner_waits():
                Display().display(f"\n{self._task.get_name()}:")
        if text:
            Display().display(text[:-1], newline=True, screen_only="\x1b" in text)


def _banner_waits() -> bool:
    """Whether Ansible shows a task's name only with its first result: what it does not show, it must know before."""
    names = ("display_skipped_hosts", "display_ok_hosts")
    return not all(
        constants.config.get_config_value(name, plugin_type="callback", plugin_name="default") for name in names
    )


def _on_terminal() -> bool:
    """Whether Ansible prints to a terminal.

    This runs in a worker without a standard output of its own; that of its parent is what people see.
    """
    try:
        return os.readlink(f"/proc/{os.getppid()}/fd/1").startswith(("/dev/pts/", "/dev/tty"))
    except OSError:
        return False


def _as_of_the_module(answer: dict[str, t.Any]) -> dict[str, t.Any]:
    """The module's result, without what async adds to it; async's own, if the module has left none, in words."""
    if answer.get("failed") and "cmd" in answer and not answer.get("data", "-").strip():
        said = str(answer.get("stderr", "")).strip()
        why = f": {said}" if said else ": it was ended by somebody, or by the kernel for want of memory"
        return {"failed": True, "msg": f"image_convert has ended on the node without a result{why}. {AGAIN}"}
    gone = {*_OF_ASYNC, *(name for name in _EMPTY if not answer.get(name))}
    return {name: value for name, value in answer.items() if name not in gone}
