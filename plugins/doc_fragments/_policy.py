# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: this doc fragment is not part of its public API and may change in any release.
# Note that this is a doc fragment: GNU General Public License v3.0+
# (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The options that choose a policy; the spec is in ``_ansible/policy.py``."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  policy:
    description:
      - Which recommendations to go by.
      - V(current) is what Proxmox VE 8 and 9 recommend, and what their source makes of it. V(chapter-2016) is the
        advice of a book chapter of 2016, to compare. V(none) recommends nothing.
      - Each recommendation comes with its rule, the reason, who says so, and since when.
    type: str
    choices: [none, current, chapter-2016]
    default: none
  policy_rules:
    description:
      - A site's own rules, which extend those of O(policy), or override those with the same C(id).
      - A rule has C(id), C(when) (a condition in JMESPath over facts), C(sets) or C(forbids) (choices and their
        values), C(because) (the reason, a sentence), and as it likes C(source), C(rank), C(since), C(until) and
        C(severity). An entry with C(disable) alone, a list of ids, takes rules away.
      - Rules are checked before anything is read. What is wrong with them is told with the rule's name.
    type: list
    elements: dict
    default: []
  facts:
    description:
      - What rules may look at and the cluster does not know, in the groups C(guest), C(storage), C(need), C(team) and
        C(measurements).
      - Below C(guests) the same for single guests by name or number, below C(storages) the facts of the group
        C(storage) for single storages by name, and C(measurements) beside them.
      - A fact that nobody knows makes no rule true.
    type: dict
    default: {}
requirements:
  - "jmespath (for policies)"
"""
