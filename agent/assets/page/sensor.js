// The posture at a glance, and how the sensor is: what it sees, what it loses, and whether its findings arrive.

import { byId, h, put, duration, facts, number, octets, percent, plural, shape, time, transportMark, visible, wire, SEVERITIES } from "./dom.js";

const BACK_ENDS = { ebpf: "eBPF", pcap: "libpcap" };

const total = (counts) => Object.values(counts ?? {}).reduce((sum, count) => sum + count, 0);

const lost = (capture) => total(capture.lost);

const layer = (value) => (typeof value === "string" ? value : value?.state ?? "unknown");

/** What an operator may have to act on, worst first: `{isBad, words}`. */
export function concerns(status) {
  const { capture, sandbox, output } = status;
  const list = [];
  const add = (isBad, when, text) => when && list.push({ isBad, words: text });
  for (const { name, failing_since: isFailing, records } of status.sinks ?? []) {
    add(true, isFailing, `sink ${visible(name)} takes no records`);
    const gone = Object.entries(records ?? {}).filter(([fate, count]) => count && !KEPT.includes(fate));
    add(true, gone.length, `sink ${visible(name)} did not get all records: ${gone.map(([fate, count]) => `${number(count)} ${visible(fate).replaceAll("_", " ")}`).join(", ")}`);
  }
  add(lost(capture) / (capture.seen || 1) > 0.001, lost(capture), `${number(lost(capture))} of ${number(capture.seen)} packets lost`);
  add(true, output?.dropped, `${number(output?.dropped)} records to standard output dropped`);
  add(false, capture.decisions_refused, `${number(capture.decisions_refused)} decisions that the back end did not take`);
  for (const [name, count] of Object.entries(capture.shortfalls ?? {})) add(false, count, `${visible(name)}: ${number(count)} not kept`);
  for (const [name, count] of Object.entries(status.stats?.limits_reached ?? {})) add(false, count, `limit ${visible(name)} reached ${number(count)}×`);
  for (const name of ["landlock", "seccomp", "dropped"]) add(false, sandbox && layer(sandbox[name]) !== "full", `sandbox: ${LAYERS[name]} ${layer(sandbox?.[name])}`);
  add(false, Math.abs(status.clock_step_seconds ?? 0) > 1, `the clock was set by ${status.clock_step_seconds} s`);
  return list.sort((a, b) => Number(b.isBad) - Number(a.isBad));
}

/** What may become of a record without its being lost against anybody's wish. */
const KEPT = ["sent", "resent", "rate_limited"];

const LAYERS = { landlock: "Landlock", seccomp: "seccomp", dropped: "capabilities" };

/** The three tiles under the header. */
export function renderPosture(status, only) {
  const { links, findings, nodes } = status.cluster;
  const count = (transport) => links[transport] ?? 0;
  const open = total(links);
  const bar = h("div", { class: "bar", "aria-hidden": "true" }, ["tls", "unknown", "cleartext"].filter(count).map((transport) => {
    const part = h("span", { class: transport });
    part.style.flexGrow = String(count(transport));
    return part;
  }));
  put(byId("tile-tls"),
    h("h2", {}, "Links over TLS"),
    h("p", { class: "big" }, open ? percent(count("tls"), open) : "–", h("span", { class: "muted small" }, open ? ` of ${plural(open, "open link")}, ${plural(nodes, "node")}` : ` no open link, ${plural(nodes, "node")}`)),
    bar,
    h("p", { class: "small legend-line" }, ["tls", "cleartext", "unknown"].map((transport) => transportMark(transport, [`${number(count(transport))} `, { tls: "TLS", cleartext: "cleartext", unknown: "unknown" }[transport]].join("")))));
  const active = total(findings);
  const old = byId("tile-findings");
  const held = old.contains(document.activeElement) ? document.activeElement.dataset.part : null;
  put(old,
    h("h2", {}, "Active findings"),
    h("p", { class: "big" }, number(active), h("span", { class: "muted small" }, active ? " not ended" : " all is well")),
    h("div", { class: "severities" }, SEVERITIES.map((severity) => h("button", {
      type: "button",
      class: `severity sev-${severity} ${findings[severity] ? "" : "none"}`,
      "data-part": severity,
      title: "Show only these",
      onclick: () => only(severity),
    }, shape(severity), h("strong", {}, number(findings[severity])), " ", h("span", {}, severity)))));
  if (held) old.querySelector(`[data-part="${held}"]`)?.focus({ preventScroll: true });
  const list = concerns(status);
  const state = list.some(({ isBad }) => isBad) ? "bad" : list.length ? "note" : "good";
  const { capture } = status;
  put(byId("tile-sensor"),
    h("h2", {}, "Sensor"),
    h("p", { class: `big state ${state}` }, h("span", { class: "dot", "aria-hidden": "true" }), { bad: "needs attention", note: "works, with notes", good: "all is well" }[state]),
    h("p", { class: "small" }, visible(status.state), " by ", BACK_ENDS[capture.back_end] ?? visible(capture.back_end), ", ", lost(capture) ? `${percent(lost(capture), capture.seen)} lost` : "nothing lost"),
    h("p", { class: "small" }, list.length ? [list[0].words, list.length > 1 ? h("a", { href: "#sensor" }, ` and ${list.length - 1} more`) : null] : sinkWords(status.sinks)));
}

function sinkWords(sinks) {
  return sinks?.length ? `${plural(sinks.length, "sink")} taking records` : "no sink is configured";
}

/** The section at the end. */
export function renderSensor(status) {
  const { capture, sandbox, stats } = status;
  byId("sensor-summary").textContent = `up for ${duration(status.uptime_seconds)}`;
  byId("version").textContent = `distwatch ${visible(status.version)}`;
  const list = concerns(status);
  put(byId("sensor-body"),
    list.length ? block("To look at", h("ul", { class: "concerns" }, list.map(({ isBad, words }) => h("li", { class: isBad ? "bad" : "note" }, h("strong", {}, isBad ? "Act: " : "Note: "), words)))) : null,
    block("Capture", facts([
      ["Back end", BACK_ENDS[capture.back_end] ?? visible(capture.back_end)],
      ["Attached to", wire(capture.attachments.join(", ") || "nothing", "mono")],
      ["Running since", time(status.started)],
      ["Process", `pid ${status.pid}`],
      ["Policy reloads", number(status.reloads)],
      ["Clock set by", status.clock_step_seconds ? `${status.clock_step_seconds} s` : null],
      ["Decisions refused", number(capture.decisions_refused)],
    ])),
    block("Books of the packets", books(capture)),
    block("Decoding", facts([
      ["Packets", number(stats.packets)],
      ["Octets", octets(stats.bytes)],
      ["Connections", number(stats.flows)],
      ["Gaps", stats.gaps ? `${number(stats.gaps)}, ${octets(stats.missing_bytes)} missing` : "none"],
      ["Not decoded", counts(stats.decode_errors)],
      ["Limits reached", counts(stats.limits_reached)],
    ])),
    block("Sinks", sinks(status)),
    sandbox ? block("Sandbox", facts([
      ["Landlock", layerWords(sandbox.landlock)],
      ["seccomp", layerWords(sandbox.seccomp)],
      ["Capabilities given up", layerWords(sandbox.dropped)],
      ["Capabilities left", wire(sandbox.capabilities.join(", ") || "none", "mono")],
      ["No new privileges", sandbox.no_new_privs ? "yes" : "no"],
    ])) : null);
}

const block = (title, ...content) => h("div", { class: "block" }, h("h3", {}, title), content);

function counts(map) {
  const list = Object.entries(map ?? {}).filter(([, count]) => count);
  return list.length ? wire(list.map(([name, count]) => `${name} ${number(count)}`).join(", ")) : "none";
}

function layerWords(value) {
  const state = layer(value);
  return [h("span", { class: state === "full" ? "" : "note-text" }, visible(state)), value?.reason ? [": ", wire(value.reason)] : null];
}

/** `seen` is the sum of all rows under it. */
function books(capture) {
  const rows = [
    ["analysed", capture.handed, `${octets(capture.handed_bytes)} copied`],
    ["counted only", capture.counted, "of connections that need no more"],
    ["of no interest", capture.uninteresting, "nothing that is watched"],
    ["refused", capture.refused, "could not be taken"],
    ...Object.entries(capture.lost ?? {}).map(([stage, count]) => [`lost: ${visible(stage)}`, count, "", true]),
  ];
  return h("table", { class: "books", role: "table" }, h("tbody", { role: "rowgroup" }, [["seen", capture.seen, ""], ...rows].map(([name, count, note, isLoss]) =>
    h("tr", { role: "row", class: isLoss && count ? "bad" : null }, h("th", { scope: "row", role: "rowheader" }, name), h("td", { role: "cell", class: "numeric" }, number(count)), h("td", { role: "cell", class: "numeric muted" }, percent(count, capture.seen)), h("td", { role: "cell", class: "muted note-cell" }, note)))));
}

function sinks(status) {
  const list = status.sinks ?? [];
  const output = status.output ? h("p", { class: "small muted" }, `standard output: ${number(status.output.written)} written, ${number(status.output.dropped)} dropped`) : null;
  if (!list.length) return [h("p", {}, "No sink is configured: findings are on this page and on standard output only."), output];
  return [list.map((sink) => h("div", { class: `sink ${sink.failing_since ? "bad" : ""}` },
    h("p", {}, wire(sink.name, "mono strong"), " ", h("span", { class: "muted" }, visible(sink.kind)), " ",
      sink.failing_since ? h("span", { class: "tag bad" }, "failing since ", time(sink.failing_since)) : h("span", { class: "tag good" }, "takes records")),
    sink.last_error && sink.failing_since ? h("p", { class: "small" }, wire(sink.last_error)) : null,
    facts([
      ["Records", counts(sink.records)],
      ["Waiting", `${number(sink.queued)}, ${octets(sink.spool_bytes)} on disk`],
      ["Last taken", sink.last_success ? time(sink.last_success) : "never"],
    ]))), output];
}
