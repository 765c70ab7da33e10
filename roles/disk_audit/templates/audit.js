// SPDX-FileCopyrightText: The diskwright.proxmox authors
// SPDX-License-Identifier: GPL-3.0-or-later
// The list of guests: made from the data in the page, in portions, as texts only and never as HTML.
"use strict";
(() => {
  const $ = (selector) => document.querySelector(selector);
  const { rules, copies, guests: rows, texts } = JSON.parse($("#data").textContent);
  const WORDS = { danger: "Danger", warning: "Warning", info: "Hint", none: "None" };
  const KINDS = ["danger", "warning", "info"];
  const PORTION = 60;
  const form = $(".tools"), table = $(".guests"), collator = new Intl.Collator("en", { numeric: true });

  // ---- data: the order of these lists is that of report_text.py

  const guests = rows.map(([vmid, name, node, status, disks, bytes, size, error, facts, drives, findings, yaml]) => {
    const guest = {
      vmid, name, disks, bytes, node: texts[node], status: texts[status], size: texts[size], error: texts[error],
      yaml: texts[yaml], facts: facts.map((pair) => pair.map((n) => texts[n])),
      drives: drives.map((drive) => drive.map((n) => texts[n])),
      findings: findings.map(([rule, mends, ...rest]) => [rule, mends, ...rest.map((n) => texts[n])]),
    };
    guest.count = { danger: 0, warning: 0, info: 0 };
    for (const [rule] of guest.findings) guest.count[rules[rule][1]]++;
    guest.weight = guest.count.danger * 1e8 + guest.count.warning * 1e4 + guest.count.info;
    guest.text = [vmid, name, guest.node, guest.status, ...guest.facts.flat(), ...guest.drives.flat(), guest.error,
      ...guest.findings.map(([rule]) => rules[rule][0])].join("\n").toLowerCase();
    return guest;
  });
  const COLUMNS = [
    ["Guest", (a, b) => collator.compare(a.name, b.name) || a.vmid - b.vmid],
    ["Node", (a, b) => collator.compare(a.node, b.node)],
    ["Status", (a, b) => collator.compare(a.status, b.status)],
    ["Disks", (a, b) => a.disks - b.disks, "num", true],
    ["Space", (a, b) => a.bytes - b.bytes, "num", true],
    ["Findings", (a, b) => a.weight - b.weight, "", true],
  ];

  const CHOICES = {
    any: (guest) => guest.weight > 0,
    none: (guest) => !guest.weight && !guest.error,
    unread: (guest) => guest.error,
    ...Object.fromEntries(KINDS.map((kind) => [kind, (guest) => guest.count[kind] > 0])),
  };

  // ---- elements

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children.filter((child) => child !== "" && child != null));
    return element;
  };
  const icon = (kind) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
    use.setAttribute("href", `#i-${kind}`);
    svg.setAttribute("class", "icon");
    svg.setAttribute("aria-hidden", "true");
    svg.append(use);
    return svg;
  };
  const badge = (kind, number) => {
    const word = number == null ? WORDS[kind] : `${number} ${WORDS[kind].toLowerCase()}${number === 1 ? "" : "s"}`;
    return make("span", { class: `badge ${kind}` }, icon(kind), word);
  };
  const tally = (guest) => {
    if (guest.error) return make("span", { class: "tally" }, make("span", { class: "badge" }, "could not be read"));
    const found = KINDS.filter((kind) => guest.count[kind]).map((kind) => badge(kind, guest.count[kind]));
    return make("span", { class: "tally" }, ...(found.length ? found : [make("span", { class: "badge none" }, icon("none"), "none")]));
  };
  const guestRow = (guest) => {
    const open = make("button", { type: "button", class: "open", "aria-expanded": "false" },
      make("span", {}, guest.name || String(guest.vmid), make("span", { class: "vmid" }, String(guest.vmid))));
    const cells = [[guest.node], [guest.status, `state-${guest.status}`], [String(guest.disks), "num"], [guest.size, "num"]]
      .map(([text, kind = ""], n) => make("td", { class: `c${n + 1} ${kind}` }, text));
    const body = make("tbody", {}, make("tr", { class: "row" }, make("th", { scope: "row", class: "c0" }, open), ...cells,
      make("td", { class: "c5" }, tally(guest))));
    open.addEventListener("click", () => toggle(body, guest));
    guest.body = body;
    return body;
  };
  const toggle = (body, guest, show) => {
    const open = body.querySelector(".open");
    show ??= open.getAttribute("aria-expanded") !== "true";
    if (show && !body.children[1]) body.append(make("tr", { class: "detail", id: `d${guest.vmid}` }, make("td", { colspan: COLUMNS.length }, ...detail(guest))));
    if (body.children[1]) body.children[1].hidden = !show;
    open.setAttribute("aria-expanded", show);
    if (show) open.setAttribute("aria-controls", `d${guest.vmid}`);
  };
  const detail = (guest) => {
    if (guest.error) return [make("p", {}, guest.error)];
    const slots = new Set(guest.drives.map(([slot]) => slot));
    const of = (slot) => guest.findings.filter((row) => row[2] === slot).map((row) => finding(row));
    const others = guest.findings.filter((row) => !slots.has(row[2])).map((row) => finding(row, row[2]));
    return [
      make("dl", { class: "facts" }, ...guest.facts.map(([name, text]) => make("div", {}, make("dt", {}, `${name} `), make("dd", {}, text)))),
      others.length ? make("div", { class: "drive" }, make("h4", {}, "guest"), make("div", {}, ...others)) : "",
      ...guest.drives.map(([slot, , what, volume, options]) => make("div", { class: "drive" }, make("h4", {}, slot),
        make("div", {}, make("p", { class: "what" }, what, make("code", {}, [volume, options].filter(Boolean).join(", "))), ...of(slot)))),
      guest.yaml ? yamlBox(guest) : "",
    ];
  };
  const value = (text, kind) => make(text.includes("default") ? "span" : "code", { class: kind }, text);
  const finding = ([rule, mends, , option, actual, recommended, reason, decision, note], slot) => {
    const [name, severity, source, since] = rules[rule];
    const change = [make("code", {}, slot && slot !== option ? `${slot} ${option}` : option)];
    if (actual !== recommended || !mends) {
      change.push(" ", actual ? value(actual, recommended || mends ? "old" : "as") : "not set");
      if (recommended) change.push(" → ", value(recommended, "new"));
      else if (mends) change.push(" → ", make("b", {}, "not set"));
    }
    const from = [name, source, since && `since ${since}`, mends ? "" : "somebody has to decide"].filter(Boolean).join(" · ");
    return make("div", { class: `finding ${severity}` }, make("p", {}, badge(severity), ...(option ? change : [actual])),
      make("p", {}, reason), decision ? make("p", { class: "decision" }, make("code", {}, decision), ` ${note}`) : "",
      make("p", { class: "from" }, from));
  };
  const yamlBox = (guest) => {
    const button = make("button", { type: "button", "aria-label": `Copy the declaration of ${guest.name}` }, "Copy");
    button.addEventListener("click", () => copy(guest.yaml));
    return make("div", { class: "yaml" }, make("div", {}, make("span", {}, make("b", {}, "What mends it"), ": merge into the host's ", make("code", {}, "proxmox_disks"),
      ". It destroys nothing: a volume that is replaced stays as unusedN."), button),
      make("pre", { tabindex: "0", "aria-label": "YAML" }, guest.yaml));
  };

  // ---- filter, sort, render

  let order = { column: 5, down: true }, shown = [], rendered = 0;
  const fits = () => {
    const { find, severity, rule, node, storage } = Object.fromEntries(new FormData(form));
    const words = find.toLowerCase().split(/\s+/).filter(Boolean);
    return (guest) => words.every((word) => guest.text.includes(word))
      && (!severity || CHOICES[severity](guest))
      && (!rule || guest.findings.some((row) => row[0] === Number(rule)))
      && (!node || guest.node === node)
      && (!storage || guest.drives.some((drive) => drive[1] === storage));
  };
  const compare = (a, b) => (order.down ? -1 : 1) * COLUMNS[order.column][1](a, b) || a.vmid - b.vmid;
  const more = (number = PORTION) => {
    const end = Math.min(shown.length, rendered + number);
    const portion = document.createDocumentFragment();
    for (; rendered < end; rendered++) portion.append(shown[rendered].body ?? guestRow(shown[rendered]));
    table.append(portion);
    $(".rest").hidden = rendered >= shown.length;
  };
  const update = () => {
    shown = guests.filter(fits()).sort(compare);
    for (const body of table.querySelectorAll("tbody")) body.remove();
    rendered = 0;
    more();
    table.hidden = !shown.length;
    $(".shown").textContent = shown.length === guests.length ? `All ${guests.length.toLocaleString("en")} guests`
      : `${shown.length.toLocaleString("en")} of ${guests.length.toLocaleString("en")} guests`;
    table.querySelectorAll("thead th").forEach((head, n) => n === order.column
      ? head.setAttribute("aria-sort", order.down ? "descending" : "ascending") : head.removeAttribute("aria-sort"));
    form.elements.sort.value = order.column;
    if (shown.length === 1) toggle(shown[0].body, shown[0], true);
  };
  const sortBy = (column) => {
    order = { column, down: column === order.column ? !order.down : Boolean(COLUMNS[column][3]) };
    update();
  };

  // ---- copying

  let forget;
  const say = (text) => {
    $(".toast").textContent = text;
    clearTimeout(forget);
    forget = setTimeout(() => { $(".toast").textContent = ""; }, 2500);
  };
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // a page from a plain HTTP server has no clipboard
      const area = make("textarea", { class: "sr" }, text), before = document.activeElement;
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      before?.focus();
      if (!done) return say("This browser does not let the page copy: mark the text and copy it");
    }
    return say("Copied");
  };

  // ---- begin

  COLUMNS.forEach(([name, , kind = ""], n) => {
    const button = make("button", { type: "button" }, name);
    button.addEventListener("click", () => sortBy(n));
    table.tHead.rows[0].append(make("th", { scope: "col", class: `c${n} ${kind}` }, button));
    form.elements.sort.append(make("option", { value: n }, name));
  });
  form.elements.sort.addEventListener("change", (event) => { order.column = -1; sortBy(Number(event.target.value)); });
  form.elements.find.addEventListener("input", update);
  for (const name of ["severity", "rule", "node", "storage"]) form.elements[name].addEventListener("change", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(update));
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href='#guests'], [data-copy-rule], [data-more]");
    if (!link) return;
    if (link.dataset.copyRule) return copy(copies[link.dataset.copyRule]);
    if ("more" in link.dataset) return later(link.getAttribute("aria-expanded") !== "true");
    const wanted = ["severity", "rule", "node", "storage"].map((name) => [name, link.dataset[`set${name[0].toUpperCase()}${name.slice(1)}`]]);
    if (wanted.every(([, value]) => value == null)) return;
    form.reset();
    for (const [name, value] of wanted) if (value != null) form.elements[name].value = value;
    update();
    $("#guests").focus({ preventScroll: true });
  });
  const later = (show) => {
    document.querySelectorAll("[data-later]").forEach((step) => { step.hidden = !show; });
    const button = $("[data-more]");
    if (!button) return;
    button.hidden = false;
    button.setAttribute("aria-expanded", show);
    button.textContent = show ? "The first five only" : `All ${rules.length} kinds of findings`;
  };
  later(false);
  new IntersectionObserver((seen) => seen[0].isIntersecting && more(), { rootMargin: "600px" }).observe($(".rest"));
  let opened = []; // for printing alone
  addEventListener("beforeprint", () => {
    more(Infinity);
    opened = shown.filter((guest) => (guest.findings.length || guest.error) && !guest.body.querySelector("[aria-expanded=true]"));
    for (const guest of opened) toggle(guest.body, guest, true);
  });
  addEventListener("afterprint", () => {
    for (const guest of opened) toggle(guest.body, guest, false);
  });
  for (const element of [form, table, $(".theme")]) element.hidden = false;

  const theme = (name) => { document.documentElement.dataset.theme = name; };
  const keep = { get: () => { try { return localStorage.getItem("theme"); } catch { return null; } },
    set: (name) => { try { localStorage.setItem("theme", name); } catch { /* not kept, then */ } } };
  const before = document.querySelector(`[name=theme][value="${CSS.escape(keep.get() ?? "auto")}"]`);
  if (before) { before.checked = true; theme(before.value); }
  $(".theme").addEventListener("change", (event) => { theme(event.target.value); keep.set(event.target.value); });
  update();
  performance.mark("ready");
})();
