// The tables of links and nodes: sorted, filtered, and a page of rows at a time, so that ten thousand cost no more than fifty.

import { byId, h, put, facts, number, octets, ofRank, plural, reconcile, sayChosen, severityMark, time, transportMark, visible, wire } from "./dom.js";
import { selectionOf, socket } from "./feed.js";
import { touches } from "./store.js";

/** Rows of a page. */
const ROWS = 50;

/**
 * A table. `columns` are `{id, label, value(row), cell(row), numeric}`; `text(row)` is what is searched, `key(row)` and
 * `signature(row)` tell rows apart and old from new, `detail(row)` is shown under a row that was opened.
 */
class Table {
  #rows = [];
  #page = 0;
  #sort;
  #open = new Set();

  constructor({ id, label, columns, key, signature, text, detail, sort, filters = [], empty }) {
    Object.assign(this, { id, columns, key, signature, text, detail, empty });
    this.#sort = sort;
    this.search = h("input", { type: "search", id: `${id}-text`, placeholder: "Search", "aria-label": `Search in ${label}`, spellcheck: "false", oninput: () => this.#first() });
    this.selects = filters.map(({ name, options, test }) => ({
      test,
      element: h("select", { id: `${id}-${name}`, "aria-label": name, onchange: () => this.#first() }, options.map(([value, words]) => h("option", { value }, words))),
    }));
    this.count = h("span", { class: "muted", role: "status" });
    this.chosen = h("span", { class: "chosen", hidden: true });
    this.heads = columns.map((column) => this.#head(column));
    this.body = h("tbody", { role: "rowgroup" });
    this.hint = h("div", { class: "empty", hidden: true });
    this.previous = h("button", { type: "button", onclick: () => this.#turn(-1) }, "Previous");
    this.next = h("button", { type: "button", onclick: () => this.#turn(1) }, "Next");
    this.place = h("span", { class: "muted" });
    this.pager = h("div", { class: "pager" }, this.previous, this.place, this.next);
    this.element = h("div", {},
      h("div", { class: "filters" }, h("div", { class: "row" }, this.selects.map(({ element }) => element), this.search, this.count), this.chosen),
      h("div", { class: "scroll", role: "region", "aria-label": label, tabindex: "0" },
        h("table", { role: "table", "aria-label": label }, h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, this.heads)), this.body)),
      this.hint, this.pager);
  }

  #head(column) {
    const flip = () => {
      const isSame = this.#sort.id === column.id;
      this.#sort = { id: column.id, isDown: isSame ? !this.#sort.isDown : Boolean(column.numeric) };
      this.#first();
    };
    return h("th", { role: "columnheader", scope: "col", class: column.numeric ? "numeric" : null, "data-column": column.id }, h("button", { type: "button", onclick: flip }, column.label));
  }

  #first() {
    this.#page = 0;
    this.#draw();
  }

  #turn(by) {
    this.#page += by;
    this.#draw();
    this.element.querySelector(".scroll").scrollTop = 0;
  }

  /** Takes other rows; `selection` is said above them, `whole` what is missing at the end of their number. */
  render(rows, selection, whole, select) {
    this.#rows = rows;
    this.whole = whole;
    sayChosen(this.chosen, selection, select);
    this.#draw();
  }

  #draw() {
    const needle = this.search.value.trim().toLowerCase();
    const tests = this.selects.map(({ element, test }) => (row) => test(row, element.value));
    const rows = this.#rows.filter((row) => tests.every((test) => test(row)) && (!needle || this.text(row).toLowerCase().includes(needle)));
    const { value } = this.columns.find((column) => column.id === this.#sort.id);
    const sign = this.#sort.isDown ? -1 : 1;
    const keyed = rows.map((row) => [value(row), row]);
    keyed.sort(([a], [b]) => sign * (a < b ? -1 : a > b ? 1 : 0));
    const pages = Math.max(1, Math.ceil(rows.length / ROWS));
    this.#page = Math.min(Math.max(0, this.#page), pages - 1);
    const part = keyed.slice(this.#page * ROWS, (this.#page + 1) * ROWS).map(([, row]) => row);
    this.heads.forEach((head) => {
      const isSorted = head.dataset.column === this.#sort.id;
      head.setAttribute("aria-sort", !isSorted ? "none" : this.#sort.isDown ? "descending" : "ascending");
    });
    reconcile(this.body, part.flatMap((row) => (this.#open.has(this.key(row)) ? [[row, false], [row, true]] : [[row, false]])),
      ([row, isDetail]) => `${this.key(row)}${isDetail ? "\n+" : ""}`,
      ([row]) => `${this.signature(row)} ${this.#open.has(this.key(row))}`,
      ([row, isDetail]) => (isDetail ? this.#detail(row) : this.#row(row)));
    this.count.textContent = `${number(rows.length)} of ${number(this.#rows.length)}${this.whole ?? ""}`;
    this.pager.hidden = pages === 1;
    this.previous.disabled = this.#page === 0;
    this.next.disabled = this.#page === pages - 1;
    this.place.textContent = `page ${number(this.#page + 1)} of ${number(pages)}`;
    this.hint.hidden = rows.length > 0;
    if (!rows.length) put(this.hint, h("p", {}, this.#rows.length ? "No row matches the filters." : this.empty));
  }

  #row(row) {
    const isOpen = this.#open.has(this.key(row));
    const flip = () => {
      if (!this.#open.delete(this.key(row))) this.#open.add(this.key(row));
      this.#draw();
    };
    return h("tr", { role: "row", class: isOpen ? "open" : null }, this.columns.map((column, index) => h("td", { role: "cell", "data-label": column.label, class: column.numeric ? "numeric" : null },
      index ? column.cell(row) : h("button", { type: "button", class: "opener", "aria-expanded": String(isOpen), "data-part": "open", onclick: flip }, column.cell(row)))));
  }

  #detail(row) {
    return h("tr", { role: "row", class: "detail" }, h("td", { role: "cell", colspan: this.columns.length }, this.detail(row)));
  }
}

const HANDSHAKES = {
  ok: "passed", bad_cookie: "bad cookie", not_allowed: "not allowed", nok: "lost the race", alive: "gave way", flags_refused: "flags refused",
  incomplete: "incomplete", unseen: "not seen", foreign: "not the protocol",
};

const TLS_OUTCOMES = {
  ok: "passed, distribution inside", established: "established", bad_cookie: "bad cookie inside", refused_by_server: "refused by the server",
  refused_by_client: "refused by the client", incomplete: "incomplete", unseen: "not seen", not_tls: "the other side speaks no TLS",
};

const words = (text) => (text ?? "").replaceAll("_", " ");

const both = (sides) => (sides ? sides.from_initiator + sides.from_acceptor : 0);

const endText = (end) => `${end.node ?? ""} ${socket(end.ip, end.port)}`;

function endCell(end) {
  if (!end.node) return wire(socket(end.ip, end.port), "mono");
  return h("span", { class: "end" }, wire(end.node, "mono"), wire(socket(end.ip, end.port), "mono muted small"));
}

function transportCell(link) {
  const { tls } = link;
  if (!tls) return transportMark(link.transport);
  const mutual = { yes: "mutual", no: "no client certificate", unknown: "" }[tls.mutual_auth] ?? "";
  return [transportMark(link.transport, tls.version ? `TLS ${visible(tls.version)}` : undefined), mutual ? h("span", { class: "small muted block" }, mutual) : null];
}

function outcome(link) {
  const { handshake, tls } = link;
  if (handshake.outcome === "unseen" && tls) return TLS_OUTCOMES[tls.outcome] ?? words(tls.outcome);
  return HANDSHAKES[handshake.outcome] ?? words(handshake.outcome);
}

function linkDetail(link, derived, select) {
  const { handshake, tls } = link;
  const sides = (pair, show = number) => (pair ? `${show(pair.from_initiator)} → · ← ${show(pair.from_acceptor)}` : null);
  const flags = (value) => (value === null || value === undefined ? null : h("code", {}, `0x${BigInt(value).toString(16)}`));
  const build = (found) => (found ? `OTP ${found.otp} (${found.name}), ${found.confidence}` : null);
  const certificates = (tls?.certificates ?? []).map((item) => facts([
    [`${item.from === "client" ? "Client" : "Server"} certificate`, wire(item.subject, "mono")],
    ["Issuer", item.self_signed ? "itself (self-signed)" : wire(item.issuer, "mono")],
    ["Names", item.names?.length ? wire(item.names.join(", "), "mono") : null],
    ["Valid", h("span", {}, time(item.not_before), " to ", time(item.not_after))],
    ["SHA-256", wire(item.sha256, "mono")],
  ]));
  return [
    facts([
      ["Opened", time(link.opened)],
      ["Closed", link.closed ? h("span", {}, time(link.closed), link.close_reason ? ` (${words(link.close_reason)})` : "") : "open"],
      ["Last seen", time(link.last_seen)],
      ["Handshake", [outcome(link), handshake.version ? `, version ${handshake.version}` : "", handshake.status ? [", status ", wire(handshake.status)] : null]],
      ["Weak cookie", handshake.weak_cookie && wire(handshake.weak_cookie)],
      ["Flags of the initiator", flags(handshake.initiator_flags)],
      ["Flags of the acceptor", flags(handshake.acceptor_flags)],
      ["Build of the initiator", build(link.builds?.initiator)],
      ["Build of the acceptor", build(link.builds?.acceptor)],
      ["TLS", tls && wire([tls.version, tls.cipher].filter(Boolean).join(", ") || "not negotiated")],
      ["TLS handshake", tls && (TLS_OUTCOMES[tls.outcome] ?? words(tls.outcome))],
      ["TLS alert", tls?.alert && wire(tls.alert)],
      ["Server name", tls?.sni && wire(tls.sni, "mono")],
      ["Both show certificates", tls && `${tls.mutual_auth} (${tls.mutual_auth_confidence})`],
      ["Messages", sides(link.messages)],
      ["Octets", sides(link.bytes, octets)],
      ["Ticks", sides(link.ticks)],
      ["Missing", link.gaps ? `${plural(link.gaps, "gap")}, ${octets(link.missing_bytes)}` : null],
      ["Seen on", link.interfaces?.length ? wire(link.interfaces.join(", "), "mono") : null],
      ["Begins", link.mid_stream ? "before the capture" : null],
      ["Flow", wire(link.flow_id, "mono")],
    ]),
    certificates,
    h("button", { type: "button", "data-part": "show", onclick: () => select(selectionOf(derived.ends.get(link.flow_id), derived)) }, "Select this pair"),
  ];
}

function releases(otp) {
  if (!otp) return "";
  const span = otp.min === otp.max ? otp.min ?? "" : `${otp.min ?? "…"}–${otp.max ?? "…"}`;
  return otp.build ?? (otp.implementation && otp.implementation !== "unknown" ? otp.implementation : span);
}

const kind = (node) => [node.hidden ? "hidden" : "", node.dynamic_name ? "dynamic name" : ""].filter(Boolean).join(", ");

export class Tables {
  #derived = null;

  constructor(select) {
    this.select = select;
    const worstOfLink = (link) => this.#derived.worstOfFlow.get(link.flow_id) ?? 0;
    const vertex = (node) => this.#derived.vertices.get(`n:${node.name}`);
    this.links = new Table({
      id: "links", label: "Links", sort: { id: "opened", isDown: true }, key: (link) => link.flow_id,
      signature: (link) => `${link.last_seen} ${link.closed} ${link.transport} ${link.handshake.outcome} ${worstOfLink(link)} ${link.initiator.node} ${link.acceptor.node}`,
      text: (link) => `${endText(link.initiator)} ${endText(link.acceptor)} ${link.transport} ${outcome(link)} ${link.flow_id} ${link.interfaces?.join(" ")}`,
      empty: "No distribution link was seen yet.",
      filters: [
        { name: "State", options: [["", "open and closed"], ["open", "open"], ["closed", "closed"]], test: (link, value) => !value || (value === "open") === !link.closed },
        { name: "Transport", options: [["", "all transports"], ["tls", "TLS"], ["cleartext", "cleartext"], ["unknown", "unknown"]], test: (link, value) => !value || link.transport === value },
        { name: "Finding", options: [["", "with or without findings"], ["1", "with findings"], ["4", "high or critical"]], test: (link, value) => worstOfLink(link) >= Number(value) },
      ],
      detail: (link) => linkDetail(link, this.#derived, select),
      columns: [
        { id: "initiator", label: "Initiator", value: (link) => endText(link.initiator), cell: (link) => endCell(link.initiator) },
        { id: "acceptor", label: "Acceptor", value: (link) => endText(link.acceptor), cell: (link) => endCell(link.acceptor) },
        { id: "transport", label: "Transport", value: (link) => `${link.transport} ${link.tls?.version}`, cell: transportCell },
        { id: "handshake", label: "Handshake", value: outcome, cell: outcome },
        { id: "finding", label: "Finding", value: worstOfLink, cell: (link) => severityMark(ofRank(worstOfLink(link))), numeric: false },
        { id: "bytes", label: "Octets", value: (link) => both(link.bytes), cell: (link) => octets(both(link.bytes)), numeric: true },
        { id: "opened", label: "Opened", value: (link) => link.opened, cell: (link) => time(link.opened) },
        { id: "closed", label: "Closed", value: (link) => link.closed ?? "~", cell: (link) => (link.closed ? time(link.closed) : h("span", { class: "tag open" }, "open")) },
      ],
    });
    this.nodes = new Table({
      id: "nodes", label: "Nodes", sort: { id: "name", isDown: false }, key: (node) => node.name,
      signature: (node) => `${node.last_seen} ${vertex(node)?.worst} ${JSON.stringify(vertex(node)?.open)} ${node.creations.length}`,
      text: (node) => `${node.name} ${node.addresses.join(" ")} ${node.dist_ports.join(" ")} ${kind(node)} ${releases(node.otp)}`,
      empty: "No node was seen yet.",
      filters: [
        { name: "Kind", options: [["", "all nodes"], ["hidden", "hidden"], ["visible", "visible"]], test: (node, value) => !value || (value === "hidden") === node.hidden },
        { name: "Finding of the node", options: [["", "with or without findings"], ["1", "with findings"], ["4", "high or critical"]], test: (node, value) => (vertex(node)?.worst ?? 0) >= Number(value) },
      ],
      detail: (node) => this.#nodeDetail(node),
      columns: [
        { id: "name", label: "Node", value: (node) => node.name, cell: (node) => wire(node.name, "mono") },
        { id: "addresses", label: "Addresses", value: (node) => node.addresses.join(), cell: (node) => wire(few(node.addresses), "mono") },
        { id: "ports", label: "Listens on", value: (node) => node.dist_ports[0] ?? 0, cell: (node) => wire(few(node.dist_ports), "mono") },
        { id: "otp", label: "OTP", value: (node) => String(releases(node.otp)), cell: (node) => h("span", { class: "nowrap" }, visible(releases(node.otp) || "–")) },
        { id: "kind", label: "Kind", value: kind, cell: (node) => kind(node) || h("span", { class: "muted" }, "visible") },
        { id: "links", label: "Open links", value: (node) => open(vertex(node)), cell: (node) => openCell(vertex(node)) },
        { id: "finding", label: "Finding", value: (node) => vertex(node)?.worst ?? 0, cell: (node) => severityMark(ofRank(vertex(node)?.worst ?? 0)) },
        { id: "last", label: "Last seen", value: (node) => node.last_seen, cell: (node) => time(node.last_seen) },
      ],
    });
    put(byId("links-panel"), this.links.element);
    put(byId("nodes-panel"), this.nodes.element);
    this.#tabs();
  }

  render(store, derived, selection) {
    this.#derived = derived;
    const links = [...store.links.values()];
    const nodes = [...store.nodes.values()];
    const missing = (held, total) => (total > held ? ` (the daemon has ${number(total)})` : "");
    byId("links-count").textContent = number(Math.max(links.length, store.totals.links));
    byId("nodes-count").textContent = number(Math.max(nodes.length, store.totals.nodes));
    if (!byId("links-panel").hidden) {
      const rows = selection ? links.filter((link) => touches(selection, derived.ends.get(link.flow_id))) : links;
      this.links.render(rows, selection, missing(links.length, store.totals.links), this.select);
    } else {
      const has = (name) => selection.a.has(`n:${name}`) || selection.b?.has(`n:${name}`);
      this.nodes.render(selection ? nodes.filter((node) => has(node.name)) : nodes, selection, missing(nodes.length, store.totals.nodes), this.select);
    }
    this.redraw = () => this.render(store, derived, selection);
  }

  #nodeDetail(node) {
    const vertex = this.#derived.vertices.get(`n:${node.name}`);
    const { otp } = node;
    return [
      facts([
        ["Addresses", wire(node.addresses.join(", "), "mono")],
        ["Listens on", wire(node.dist_ports.join(", "), "mono")],
        ["Creations", wire(node.creations.join(", "), "mono")],
        ["OTP by its flags", otp && (otp.min || otp.max) ? `${otp.min ?? "…"} to ${otp.max ?? "…"}` : null],
        ["Build", otp?.build ? `${otp.build}, ${otp.build_confidence}` : null],
        ["Implementation", otp?.implementation && wire(otp.implementation)],
        ["Links", vertex && `${plural(vertex.links, "link")}, ${open(vertex)} open`],
        ["First seen", time(node.first_seen)],
        ["Last seen", time(node.last_seen)],
      ]),
      h("button", { type: "button", "data-part": "show", onclick: () => this.select(selectionOf([`n:${node.name}`], this.#derived)) }, "Select this node"),
    ];
  }

  #tabs() {
    const names = ["links", "nodes"];
    const show = (name, hasFocus) => {
      for (const other of names) {
        byId(`${other}-panel`).hidden = other !== name;
        byId(`tab-${other}`).setAttribute("aria-selected", String(other === name));
        byId(`tab-${other}`).tabIndex = other === name ? 0 : -1;
      }
      if (hasFocus) byId(`tab-${name}`).focus();
      this.redraw?.();
    };
    for (const name of names) {
      byId(`tab-${name}`).addEventListener("click", () => show(name, false));
      byId(`tab-${name}`).addEventListener("keydown", (event) => {
        if (event.key === "ArrowLeft" || event.key === "ArrowRight") show(names.find((other) => other !== name), true);
      });
    }
  }
}

const open = (vertex) => (vertex ? vertex.open.tls + vertex.open.cleartext + vertex.open.unknown : 0);

function openCell(vertex) {
  const used = ["tls", "cleartext", "unknown"].filter((transport) => vertex?.open[transport]);
  return used.length ? used.map((transport) => transportMark(transport, number(vertex.open[transport]))) : h("span", { class: "muted" }, "none");
}

const few = (items) => (items.length > 3 ? `${items.slice(0, 3).join(", ")} and ${items.length - 3} more` : items.join(", ") || "–");
