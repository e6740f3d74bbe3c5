// The alerts: filters, and a list in which each opens to all that is known of it.

import { byId, h, put, facts, number, plural, prose, rank, reconcile, sayChosen, sentence, severityMark, shape, time, visible, wire, SEVERITIES } from "./dom.js";
import { touches } from "./store.js";

/** Alerts that are shown at once; a button shows as many again. */
const STEP = 60;

const STATUSES = [["active", "active"], ["new", "new"], ["update", "seen again"], ["resolved", "resolved"], ["all", "all"]];

const ORDERS = {
  new: ["newest first", (a, b) => compare(b.first_seen, a.first_seen)],
  worst: ["worst first", (a, b) => rank(b.severity) - rank(a.severity) || compare(b.first_seen, a.first_seen)],
  last: ["last seen first", (a, b) => compare(b.last_seen, a.last_seen)],
};

const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

export class Feed {
  #severities = new Set(SEVERITIES);
  #open = new Set();
  #most = STEP;
  #input = null;
  /** Fingerprints that arrived while the page was open. */
  fresh = new Set();

  /** `select(selection)` is called to show an alert's ends everywhere, or to forget them. */
  constructor(select) {
    this.select = select;
    this.list = byId("feed");
    this.buttons = new Map(SEVERITIES.map((severity) => {
      const count = h("span", { class: "count" });
      const button = h("button", { type: "button", class: `toggle sev-${severity}`, "aria-pressed": "true", onclick: () => this.#toggle(severity) }, shape(severity), severity, " ", count);
      return [severity, { button, count }];
    }));
    this.rule = h("select", { id: "feed-rule", "aria-label": "Rule" }, h("option", { value: "" }, "all rules"));
    this.status = h("select", { id: "feed-status", "aria-label": "Status" }, STATUSES.map(([value, words]) => h("option", { value }, words)));
    this.order = h("select", { id: "feed-order", "aria-label": "Order" }, Object.entries(ORDERS).map(([value, [words]]) => h("option", { value }, words)));
    this.text = h("input", { id: "feed-text", type: "search", placeholder: "Search", "aria-label": "Search in alerts", spellcheck: "false" });
    for (const control of [this.rule, this.status, this.order]) control.addEventListener("change", () => this.#filtered());
    this.text.addEventListener("input", () => this.#filtered());
    this.chosen = h("span", { class: "chosen", hidden: true });
    put(byId("feed-filters"), h("div", { class: "toggles" }, SEVERITIES.map((severity) => this.buttons.get(severity).button)),
      h("div", { class: "row" }, this.rule, this.status, this.order, this.text), this.chosen);
  }

  /** Shows only this severity; all of them where it was alone already. */
  only(severity) {
    const isAlone = this.#severities.size === 1 && this.#severities.has(severity);
    this.#severities = new Set(isAlone ? SEVERITIES : [severity]);
    this.status.value = "active";
    this.#filtered();
  }

  #toggle(severity) {
    if (!this.#severities.delete(severity)) this.#severities.add(severity);
    this.#filtered();
  }

  #filtered() {
    this.#most = STEP;
    if (this.#input) this.render(...this.#input);
  }

  render(store, derived, selection) {
    this.#input = [store, derived, selection];
    const counts = new Map();
    const rules = new Set();
    const status = this.status.value;
    const needle = this.text.value.trim().toLowerCase();
    const shown = [];
    for (const alert of store.alerts.values()) {
      rules.add(alert.rule_id);
      const isActive = alert.status !== "resolved";
      if (!(status === "all" || (status === "active" ? isActive : alert.status === status))) continue;
      if (!touches(selection, derived.about.get(alert.fingerprint) ?? [])) continue;
      if (this.rule.value && alert.rule_id !== this.rule.value) continue;
      if (needle && !haystack(alert).includes(needle)) continue;
      counts.set(alert.severity, (counts.get(alert.severity) ?? 0) + 1);
      if (this.#severities.has(alert.severity)) shown.push(alert);
    }
    for (const [severity, { button, count }] of this.buttons) {
      button.setAttribute("aria-pressed", String(this.#severities.has(severity)));
      count.textContent = number(counts.get(severity) ?? 0);
    }
    this.#rules([...rules].sort());
    sayChosen(this.chosen, selection, this.select);
    shown.sort(ORDERS[this.order.value][1]);
    const part = shown.slice(0, this.#most);
    reconcile(this.list, part, (alert) => alert.fingerprint, (alert) => this.#signature(alert), (alert) => this.#item(alert));
    this.#foot(store, shown.length, part.length, selection);
  }

  #signature(alert) {
    return `${alert.count} ${alert.last_seen} ${alert.status} ${alert.severity} ${this.#open.has(alert.fingerprint)} ${this.order.value} ${alert.reason}`;
  }

  #rules(ids) {
    const key = ids.join();
    if (this.rule.dataset.ids === key) return;
    this.rule.dataset.ids = key;
    const { value } = this.rule;
    put(this.rule, h("option", { value: "" }, "all rules"), ids.map((id) => h("option", { value: id }, visible(id))));
    this.rule.value = ids.includes(value) ? value : "";
  }

  #foot(store, matching, shown, selection) {
    const hasMore = store.totals.alerts > store.alerts.size ? ` (the page holds ${number(store.alerts.size)} of ${number(store.totals.alerts)})` : "";
    byId("feed-summary").textContent = `${number(matching)} shown of ${number(store.alerts.size)}${hasMore}`;
    if (matching) {
      put(byId("feed-foot"), matching > shown ? h("button", { type: "button", onclick: () => { this.#most += STEP; this.render(...this.#input); } }, `Show ${number(Math.min(STEP, matching - shown))} more of ${number(matching - shown)}`) : null);
      return;
    }
    const isWhole = !store.alerts.size || ![...store.alerts.values()].some((alert) => alert.status !== "resolved");
    put(byId("feed-foot"), isWhole && !selection
      ? h("div", { class: "empty good" }, h("strong", {}, "No active finding"), h("p", {}, store.links.size ? "Nothing in what was seen breaks a rule. What comes appears here by itself." : "Nothing was seen yet that a rule could judge; see the cluster for what to check."))
      : h("div", { class: "empty" }, h("strong", {}, "No alert matches"), h("p", {}, "Other severities, another status or all rules may show some."), h("button", { type: "button", onclick: () => this.#reset() }, "Clear the filters")));
  }

  #reset() {
    this.#severities = new Set(SEVERITIES);
    this.rule.value = "";
    this.status.value = "active";
    this.text.value = "";
    this.select(null);
    this.#filtered();
  }

  #item(alert) {
    const isOpen = this.#open.has(alert.fingerprint);
    const panel = `alert-${alert.fingerprint}`;
    const flip = () => {
      if (!this.#open.delete(alert.fingerprint)) this.#open.add(alert.fingerprint);
      this.render(...this.#input);
    };
    const isFresh = this.fresh.delete(alert.fingerprint);
    return h("li", { class: `alert ${alert.status === "resolved" ? "over" : ""} ${isFresh ? "fresh" : ""}` },
      h("button", { type: "button", class: "alert-head", "aria-expanded": String(isOpen), "aria-controls": panel, "data-part": "head", onclick: flip },
        h("span", { class: "alert-line" },
          severityMark(alert.severity),
          h("code", {}, visible(alert.rule_id)),
          alert.status === "resolved" ? h("span", { class: "tag" }, "resolved") : null,
          alert.count > 1 ? h("span", { class: "tag", title: `seen ${plural(alert.count, "time")}` }, `×${number(alert.count)}`) : null,
          time(this.order.value === "last" ? alert.last_seen : alert.first_seen)),
        h("span", { class: "alert-reason wire" }, sentence(alert.reason))),
      isOpen ? h("div", { class: "alert-body", id: panel }, this.#body(alert)) : null);
  }

  #body(alert) {
    const [store, derived] = this.#input;
    const rule = store.rules.get(alert.rule_id);
    const ids = derived.about.get(alert.fingerprint) ?? [];
    const show = () => this.select(selectionOf(ids, derived));
    const remedy = alert.remediation || rule?.remedy;
    return [
      remedy ? [h("h3", {}, "What to do"), h("p", {}, prose(remedy))] : null,
      rule?.rationale ? [h("h3", {}, "Why it matters"), h("p", {}, prose(rule.rationale))] : null,
      alert.evidence?.length ? [h("h3", {}, "Evidence"), h("ul", { class: "evidence" }, alert.evidence.map(evidence))] : null,
      facts([
        ["Subject", wire(alert.subject, "mono")],
        ["Status", alert.status === "update" ? "active, seen again" : alert.status === "new" ? "active, new" : alert.status],
        ["Confidence", alert.confidence],
        ["Count", number(alert.count)],
        ["First seen", time(alert.first_seen)],
        ["Last seen", time(alert.last_seen)],
        ["Connection", alert.src_ip ? wire(`${socket(alert.src_ip, alert.src_port)} → ${socket(alert.dest_ip, alert.dest_port)}`, "mono") : null],
        ["Interface", alert.in_iface && wire(alert.in_iface, "mono")],
        ["Process", alert.process && processWords(alert.process)],
        ["References", references(alert, rule)],
        ["Flow", alert.flow_id && wire(alert.flow_id, "mono")],
        ["Community ID", alert.community_id && wire(alert.community_id, "mono")],
        ["Fingerprint", wire(alert.fingerprint, "mono")],
      ]),
      ids.length ? h("p", {}, h("button", { type: "button", "data-part": "show", onclick: show }, "Show in the cluster and the tables")) : null,
    ];
  }
}

/** A selection of one or two vertices. */
export function selectionOf(ids, derived) {
  const names = ids.map((id) => derived.vertices.get(id)?.name ?? id);
  return { a: new Set([ids[0]]), b: ids[1] && ids[1] !== ids[0] ? new Set([ids[1]]) : null, label: [...new Set(names)].join(" – ") };
}

export const socket = (ip, port) => (ip?.includes(":") ? `[${ip}]:${port}` : `${ip}:${port}`);

const haystack = (alert) => `${alert.rule_id} ${alert.subject} ${alert.reason} ${alert.severity} ${alert.src_ip ?? ""} ${alert.dest_ip ?? ""} ${alert.flow_id ?? ""}`.toLowerCase();

function evidence(item) {
  if (typeof item === "string") return h("li", {}, wire(item));
  const place = item.packet ? `packet ${item.packet}` : item.offset !== undefined && item.offset !== null ? `offset ${item.offset}` : null;
  return h("li", {}, h("span", { class: "wire" }, sentence(item.fact)), " ", h("span", { class: "muted" }, place ? wire(place) : null, place && item.timestamp ? ", " : null, item.timestamp ? time(item.timestamp) : null));
}

function processWords(process) {
  const parts = [`pid ${process.pid}`, process.exe, process.user && `user ${process.user}`, process.unit, process.container && `container ${process.container}`, process.node];
  return wire(parts.filter(Boolean).join(", "), "mono");
}

function references(alert, rule) {
  const texts = new Map((rule?.references ?? []).filter((item) => item.id).map((item) => [item.id, item.statement]));
  if (!alert.references?.length) return null;
  return h("ul", { class: "plain-list" }, alert.references.map((id) => h("li", {}, h("strong", {}, visible(id)), " ", texts.get(id) ? prose(texts.get(id)) : null)));
}
