// Elements, text that came from the wire, times and numbers: everything that views build with.
// Nothing here (or elsewhere) takes markup: text becomes text nodes, and attributes are never named or made by a peer.

const SVG = "http://www.w3.org/2000/svg";

/** Severities, worst first. */
export const SEVERITIES = ["critical", "high", "medium", "low", "info"];

/** 5 for critical to 1 for info; 0 for none. */
export const rank = (severity) => (SEVERITIES.includes(severity) ? SEVERITIES.length - SEVERITIES.indexOf(severity) : 0);

/** The severity of that rank, or undefined. */
export const ofRank = (number) => SEVERITIES[SEVERITIES.length - number];

export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function s(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...present(children));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Children in nested lists, without those that are not there. */
const present = (children) => children.flat(Infinity).filter((child) => child !== null && child !== undefined);

/** Replaces what `element` holds. */
export function put(element, ...children) {
  element.replaceChildren(...present(children));
}

// What turns a line around, hides, or breaks it: the ranges of the engine's `text` module.
const UNSEEN = new RegExp(
  "[\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f" +
    "\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ue000-\\uf8ff\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb" +
    "\\u{1bca0}-\\u{1bca3}\\u{1d173}-\\u{1d17a}\\u{e0000}-\\u{10ffff}]",
  "gu",
);

/** The text with every character that is not seen written as `\u{N}`. */
export const visible = (text) => String(text).replace(UNSEEN, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);

/** Text that a peer chose: isolated, with nothing in it that hides. */
export const wire = (text, more = "") => h("span", { class: `wire ${more}` }, visible(text));

/** A sentence with points in time in it, which are shown like all others. */
export function sentence(text) {
  return visible(text).split(/(\d{4}-\d\d-\d\dT[\d:.]+Z)/).map((part, index) => (index % 2 ? time(part) : part));
}

/** Our own prose, in which `words` in back quotes are code. */
export function prose(text) {
  return visible(text).split("`").map((part, index) => (index % 2 ? h("code", {}, part) : part));
}

const two = (number) => String(number).padStart(2, "0");

/** A point in time as this browser's clock shows it; UTC, with all its digits, is the title. */
export function time(stamp) {
  const date = new Date(stamp);
  if (!stamp || Number.isNaN(date.getTime())) return h("span", { class: "muted" }, "–");
  return h("time", { datetime: stamp, title: `${stamp} (UTC)` }, clock(date));
}

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** `14:03:22` today, `23 Nov 14:03:22` on another day, with its year where that is another one. */
export function clock(date) {
  const hour = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  if (date.toDateString() === new Date().toDateString()) return hour;
  const year = date.getFullYear() === new Date().getFullYear() ? "" : ` ${date.getFullYear()}`;
  return `${date.getDate()} ${MONTHS[date.getMonth()]}${year} ${hour}`;
}

const NUMBERS = new Intl.NumberFormat("en");

export const number = (value) => NUMBERS.format(value ?? 0);

/** `1 link`, `2 links`. */
export const plural = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;

export function octets(value) {
  let size = value ?? 0;
  let unit = 0;
  while (size >= 1000 && unit < 4) {
    size /= 1000;
    unit += 1;
  }
  return `${unit && size < 10 ? size.toFixed(1) : Math.round(size)} ${["B", "kB", "MB", "GB", "TB"][unit]}`;
}

export function duration(seconds) {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = parts.findIndex(([size]) => seconds >= size);
  if (first < 0) return "0 s";
  const [size, unit] = parts[first];
  const rest = parts[first + 1];
  const whole = `${Math.floor(seconds / size)} ${unit}`;
  const left = rest ? Math.floor((seconds % size) / rest[0]) : 0;
  return left ? `${whole} ${left} ${rest[1]}` : whole;
}

/** A share that never rounds to all or nothing while it is neither. */
export function percent(part, whole) {
  if (!whole) return "–";
  const share = (100 * part) / whole;
  if (part && share < 0.01) return "< 0.01 %";
  if (part < whole && share > 99.9) return `${Math.floor(share * 100) / 100} %`;
  return `${share < 1 && part ? share.toFixed(2) : Math.round(share)} %`;
}

/** Every severity has a shape of its own: colour is never alone. */
export const SHAPES = {
  critical: "M-2.9-7h5.8L7-2.9v5.8L2.9 7h-5.8L-7 2.9v-5.8z",
  high: "M0-7L7.5 6h-15z",
  medium: "M0-7.5L7.5 0L0 7.5L-7.5 0z",
  low: "M0-5.5a5.5 5.5 0 1 1 0 11a5.5 5.5 0 1 1 0-11z",
  info: "M0-4.5a4.5 4.5 0 1 1 0 9a4.5 4.5 0 1 1 0-9z",
};

export function shape(severity) {
  return s("svg", { class: `shape sev-${severity}`, viewBox: "-8.5 -8.5 17 17", "aria-hidden": "true" }, s("path", { d: SHAPES[severity] }));
}

/** Says in `element` that only what was selected is shown, with the way back. */
export function sayChosen(element, selection, select) {
  element.hidden = !selection;
  if (!selection || element.dataset.label === selection.label) return;
  element.dataset.label = selection.label;
  put(element, "only ", wire(selection.label, "mono"), h("button", { type: "button", class: "plain", onclick: () => select(null) }, "show all"));
}

/** A severity by shape, colour and word. */
export function severityMark(severity) {
  if (!SHAPES[severity]) return h("span", { class: "muted" }, "–");
  return h("span", { class: `sev sev-${severity}` }, shape(severity), severity);
}

const TRANSPORTS = { tls: "TLS", cleartext: "cleartext", unknown: "unknown" };

export const transportName = (transport) => TRANSPORTS[transport] ?? "unknown";

/** A transport by the line that the graph draws for it, and its word. */
export function transportMark(transport, words = transportName(transport)) {
  const line = s("svg", { class: "stroke-sample", viewBox: "0 0 26 8", "aria-hidden": "true" }, s("path", { class: `edge ${transport}`, d: "M1 4H25" }));
  return h("span", { class: `transport ${transport}` }, line, words);
}

/** A list of names and values; what is null is left out. */
export function facts(rows) {
  const list = h("dl", { class: "facts" });
  for (const [name, value] of rows) {
    if (value === null || value === undefined || value === "" || (Array.isArray(value) && !value.length)) continue;
    list.append(h("div", {}, h("dt", {}, name), h("dd", {}, value)));
  }
  return list;
}

/**
 * Makes the children of `parent` those of `items`, in order. What has the same key and signature is kept, so that
 * focus, selection and what is open stay; what is rebuilt gets the focus back on the part with the same `data-part`.
 */
export function reconcile(parent, items, key, signature, build) {
  const old = parent.shown ?? new Map();
  const active = parent.contains(document.activeElement) ? document.activeElement : null;
  const held = active?.closest("[data-key]");
  const part = active?.dataset.part;
  const wanted = new Set(items.map(key));
  for (const [id, entry] of old) if (!wanted.has(id)) entry.element.remove();
  const next = new Map();
  let place = parent.firstElementChild;
  for (const item of items) {
    const id = key(item);
    const mark = signature(item);
    let entry = old.get(id);
    if (entry?.mark !== mark) {
      const element = build(item);
      element.dataset.key = id;
      if (place && place === entry?.element) place = element;
      entry?.element.replaceWith(element);
      entry = { mark, element };
    }
    next.set(id, entry);
    if (entry.element === place) place = place.nextElementSibling;
    else parent.insertBefore(entry.element, place);
  }
  parent.shown = next;
  if (held && document.activeElement !== active) {
    const element = next.get(held.dataset.key)?.element;
    const again = part ? element?.querySelector(`[data-part="${CSS.escape(part)}"]`) : element;
    again?.focus({ preventScroll: true });
  }
}
