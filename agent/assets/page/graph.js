// The cluster as a picture: a bounded number of elements, whatever the number of links. Quiet lines of one kind are one
// path; only what is remarkable has a mark of its own. Sizes are those of the screen at any zoom, so that names can be read.

import { byId, h, s, put, ofRank, plural, number, visible, SHAPES, SEVERITIES, transportMark, transportName, severityMark } from "./dom.js";
import { group, place, MOST_VERTICES } from "./layout.js";
import { touches } from "./store.js";

/** Places that are kept, also of what is not drawn now. */
const MOST_PLACES = 2_000;

/** Marks on lines, the worst first. */
const MOST_MARKS = 120;

/** From so many lines on, they are drawn thin, and numbers are left out. */
const DENSE = 150;

/** A line shorter than this, in pixels, has no room for a mark: its ends carry the sign. */
const SHORT = 46;

/** So many vertices can be made to stand out. */
const MOST_CHOSEN = 8;

/** A longer name is cut in its middle; the whole is in the title, the readout and the tables. */
const LONGEST_LABEL = 30;

/** How near the pointer must be to a line, in pixels. */
const REACH = 7;

const TRANSPORTS = ["tls", "unknown", "cleartext"];

export class Graph {
  #places = new Map();
  #shape = "";
  #view = { scale: 1, x: 0, y: 0 };
  #isOwnView = false;
  #drawn = { groups: [], edges: [] };
  #selected = null;
  #current = null;
  #input = null;
  #size = { width: 600, height: 400 };

  /** `select(null or {a, b, label})` is called when something is chosen here. */
  constructor(select) {
    this.select = select;
    this.root = byId("graph");
    this.readout = byId("graph-readout");
    this.layers = ["halo", "edges", "chosen", "marks"].map((name) => s("g", { class: name, "aria-hidden": "true" }));
    this.vertices = s("g", { role: "listbox", "aria-label": "Nodes", "aria-describedby": "graph-keys" });
    this.svg = s("svg", { class: "canvas", role: "group", "aria-label": "Cluster graph" }, this.layers, this.vertices);
    this.empty = h("div", { class: "empty", hidden: true });
    put(this.root, this.svg, this.empty);
    this.#legend();
    this.#pointer();
    this.svg.addEventListener("keydown", (event) => this.#key(event));
    this.svg.addEventListener("focusin", (event) => this.#focused(event.target.closest("[data-key]")?.dataset.key));
    this.svg.addEventListener("focusout", () => this.#say());
    byId("zoom-in").addEventListener("click", () => this.#zoom(1.4));
    byId("zoom-out").addEventListener("click", () => this.#zoom(1 / 1.4));
    byId("zoom-fit").addEventListener("click", () => this.#fit());
    for (const id of ["graph-level", "graph-closed", "graph-only"]) {
      byId(id).addEventListener("change", () => {
        this.#isOwnView = false;
        this.render(this.#input, this.#selected);
      });
    }
    new ResizeObserver(() => this.#resize()).observe(this.root);
  }

  /** Draws what `derive` made. */
  render(derived, selected) {
    if (!derived) return;
    this.#input = derived;
    this.#selected = selected;
    const only = byId("graph-only");
    only.disabled = !selected;
    if (!selected) only.checked = false;
    const hasClosed = byId("graph-closed").checked;
    const isDrawn = (pair) =>
      (hasClosed || pair.worst > 1 || TRANSPORTS.some((transport) => pair.open[transport])) &&
      (!only.checked || touches(selected, [pair.a, pair.b]));
    const pairs = [...derived.pairs.values()].filter(isDrawn);
    const linked = new Set(pairs.flatMap((pair) => [pair.a, pair.b]));
    const isShown = (vertex) => linked.has(vertex.id) || (!only.checked && (vertex.node || vertex.worst > 0)) || (only.checked && selected.a.has(vertex.id));
    const vertices = [...derived.vertices.values()].filter(isShown);
    // A group that is looked at alone falls into its members.
    this.#drawn = group(vertices, pairs, byId("graph-level").value, only.checked ? selected.a : null);
    const { groups, edges } = this.#drawn;
    const shape = `${groups.map((item) => item.id).join()}|${edges.length}`;
    if (shape !== this.#shape) {
      this.#shape = shape;
      this.#arrange();
    }
    if (!groups.some((item) => item.id === this.#current)) this.#current = null;
    this.#summary(vertices, pairs);
    this.#draw();
    if (!this.svg.contains(document.activeElement) && !this.svg.matches(":hover")) this.#say();
  }

  /** Finds places for what has none. What is not drawn for a while keeps its own. */
  #arrange() {
    const { groups, edges } = this.#drawn;
    const aspect = Math.min(2, Math.max(0.8, Math.sqrt(this.#size.width / this.#size.height)));
    if (this.#places.size > MOST_PLACES) this.#places.clear();
    for (const [id, spot] of place(groups, edges, this.#places, aspect)) this.#places.set(id, spot);
    if (!this.#isOwnView) this.#frame();
  }

  #summary(vertices, pairs) {
    const { groups, word } = this.#drawn;
    const isGrouped = groups.length < vertices.length;
    const text = `${plural(vertices.filter((vertex) => !vertex.isAddress).length, "node")}, ${plural(pairs.length, "linked pair")}`;
    byId("graph-summary").textContent = isGrouped ? `${text}; ${plural(groups.length, "group")}, by ${word}` : text;
  }

  setEmpty(...content) {
    this.empty.hidden = !content.length;
    this.svg.classList.toggle("gone", content.length > 0);
    put(this.empty, ...content);
  }

  // --- the view ---

  #resize() {
    const box = this.root.getBoundingClientRect();
    if (!box.width || !box.height) return;
    this.#size = { width: box.width, height: box.height };
    if (!this.#isOwnView) this.#frame();
    this.#draw();
  }

  /** Everything anew. */
  #fit() {
    this.#isOwnView = false;
    this.#places.clear();
    this.#arrange();
    this.#draw();
  }

  /** Everything in sight, and nothing larger than it needs to be. */
  #frame() {
    const points = this.#drawn.groups.map((item) => this.#places.get(item.id));
    if (!points.length) return;
    const span = (field) => [Math.min(...points.map((p) => p[field])), Math.max(...points.map((p) => p[field]))];
    const [left, right] = span("x");
    const [top, bottom] = span("y");
    const { width, height } = this.#size;
    const side = Math.min(110, width / 5);
    const scale = Math.min((width - 2 * side) / (right - left || 1), (height - 90) / (bottom - top || 1), 1.5);
    this.#view = { scale, x: width / 2 - (scale * (left + right)) / 2, y: height / 2 - 6 - (scale * (top + bottom)) / 2 };
  }

  #zoom(factor, x = this.#size.width / 2, y = this.#size.height / 2) {
    const view = this.#view;
    const scale = Math.min(8, Math.max(0.05, view.scale * factor));
    const real = scale / view.scale;
    this.#view = { scale, x: x - (x - view.x) * real, y: y - (y - view.y) * real };
    this.#isOwnView = true;
    this.#draw();
  }

  #at(id) {
    const { x, y } = this.#places.get(id) ?? { x: 0, y: 0 };
    return [x * this.#view.scale + this.#view.x, y * this.#view.scale + this.#view.y];
  }

  // --- drawing ---

  #draw() {
    const { groups, edges } = this.#drawn;
    const points = new Map(groups.map((item) => [item.id, this.#at(item.id)]));
    const [halo, lines, chosen, marks] = this.layers;
    const path = (list) => list.map((edge) => line(points.get(edge.from.id), points.get(edge.to.id))).join("");
    put(halo, SEVERITIES.slice(0, 3).map((severity) => {
      const list = edges.filter((edge) => ofRank(edge.worst) === severity);
      return list.length ? s("path", { class: `halo sev-${severity}`, d: path(list) }) : null;
    }));
    put(lines, TRANSPORTS.flatMap((transport) => [false, true].map((isOpen) => {
      const list = edges.filter((edge) => look(edge).transport === transport && look(edge).isOpen === isOpen);
      return list.length ? s("path", { class: `edge ${transport} ${isOpen ? "" : "over"}`, d: path(list) }) : null;
    })));
    lines.classList.toggle("dense", edges.length > DENSE);
    const picked = this.#selected?.b ? edges.filter((edge) => this.#isPicked(edge)) : [];
    put(chosen, picked.length ? s("path", { class: "pick", d: path(picked) }) : null);
    const worthy = edges.filter((edge) => edge.worst > 1 || edge.links > 1).sort((a, b) => b.worst - a.worst || b.links - a.links);
    const taken = [];
    put(marks, worthy.slice(0, MOST_MARKS).map((edge) => mark(edge, points, taken, edges.length)));
    this.#drawVertices(points, taken);
  }

  #isPicked(edge) {
    const has = (set, item) => item.members.some((vertex) => set.has(vertex.id));
    const { a, b } = this.#selected;
    return (has(a, edge.from) && has(b, edge.to)) || (has(a, edge.to) && has(b, edge.from));
  }

  #drawVertices(points, marks) {
    const { groups } = this.#drawn;
    const selected = this.#selected;
    const isPart = (item) => Boolean(selected) && item.members.some((vertex) => selected.a.has(vertex.id) || selected.b?.has(vertex.id));
    // Where nearly all is chosen, it stands out by nothing.
    const isChosen = groups.filter(isPart).length > MOST_CHOSEN ? () => false : isPart;
    const worth = (item) => (isChosen(item) ? 1e9 : 0) + (item.id === this.#current ? 1e8 : 0) + item.worst * 1e6 + item.links;
    const order = [...groups].sort((a, b) => worth(b) - worth(a));
    const boxes = groups.map((item) => [points.get(item.id)[0] - 8, points.get(item.id)[1] - 8, 16, 16]);
    const labels = new Map();
    for (const item of order) {
      const spot = spotFor(item, points.get(item.id), boxes, marks, this.#size.width, worth(item) >= 1e8);
      if (!spot) continue;
      boxes.push(spot.box);
      labels.set(item.id, spot);
    }
    const held = this.vertices.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    const tab = this.#current ?? order[0]?.id;
    // In an order that a screen reader can follow: by name, not by remarkableness.
    const byName = [...groups].sort((a, b) => (a.name < b.name ? -1 : 1));
    put(this.vertices, byName.map((item) => this.#vertex(item, points.get(item.id), {
      isChosen: isChosen(item),
      spot: labels.get(item.id),
      tab: item.id === tab,
    })));
    if (held) this.vertices.querySelector(`[data-key="${CSS.escape(held)}"]`)?.focus({ preventScroll: true });
  }

  #vertex(item, [x, y], { isChosen, spot, tab }) {
    const { only } = item;
    const kind = !only ? "group" : only.isAddress ? "address" : only.node?.hidden ? "hidden" : "node";
    const body = kind === "group" ? s("rect", { x: -15, y: -10, width: 30, height: 20, rx: 6 })
      : kind === "address" ? s("rect", { x: -6, y: -6, width: 12, height: 12, rx: 1.5 })
      : s("circle", { r: 8 });
    const severity = item.worst > 1 ? ofRank(item.worst) : null;
    return s("g", {
      class: `vertex ${kind} ${isChosen ? "chosen" : ""}`,
      role: "option",
      tabindex: tab ? 0 : -1,
      "aria-selected": String(isChosen),
      "aria-label": visible(describe(item)),
      "data-key": item.id,
      transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`,
    },
      s("title", {}, visible(describe(item))),
      s("circle", { class: "ring", r: kind === "group" ? 20 : 13 }),
      body,
      kind === "group" ? s("text", { class: "inside", y: 4 }, number(item.members.length)) : null,
      severity ? s("path", { class: `badge sev-${severity}`, transform: `translate(${kind === "group" ? 15 : 8} ${kind === "group" ? -10 : -8}) scale(.72)`, d: SHAPES[severity] }) : null,
      spot ? s("text", { class: `label wire ${spot.anchor}`, x: spot.dx, y: spot.dy }, shorten(label(item))) : null,
    );
  }

  // --- choosing ---

  #choose(item) {
    if (!item) return this.select(null);
    const isSame = this.#selected && !this.#selected.b && item.members.every((vertex) => this.#selected.a.has(vertex.id));
    this.#current = item.id;
    this.select(isSame ? null : { a: new Set(item.members.map((vertex) => vertex.id)), b: null, label: item.name });
  }

  #chooseEdge(edge) {
    const set = (item) => new Set(item.members.map((vertex) => vertex.id));
    this.select({ a: set(edge.from), b: set(edge.to), label: `${edge.from.name} – ${edge.to.name}` });
  }

  #focused(id) {
    if (!id) return;
    this.#current = id;
    this.#say(this.#drawn.groups.find((item) => item.id === id));
  }

  /** What is under the pointer, has the focus, or is chosen. */
  #say(item) {
    this.readout.textContent = item ? visible(describe(item)) : this.#selected ? visible(`Selected: ${this.#selected.label}`) : "Point at a node or a line, or walk with the arrow keys, to read it here.";
  }

  #edgeAt(x, y) {
    let best = null;
    let least = REACH;
    for (const edge of this.#drawn.edges) {
      const far = distance(x, y, this.#at(edge.from.id), this.#at(edge.to.id));
      if (far < least) [best, least] = [edge, far];
    }
    return best;
  }

  #pointer() {
    const held = new Map();
    let moved = 0;
    let pressed = null;
    const local = (event) => {
      const box = this.svg.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    this.svg.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      held.set(event.pointerId, local(event));
      moved = 0;
      // What is pressed may have been drawn anew by the time of the click.
      pressed = event.target.closest(".vertex")?.dataset.key ?? null;
    });
    this.svg.addEventListener("pointermove", (event) => {
      const at = local(event);
      const was = held.get(event.pointerId);
      if (!was) return this.#hover(event, at);
      const other = [...held].find(([id]) => id !== event.pointerId)?.[1];
      moved += Math.hypot(at[0] - was[0], at[1] - was[1]);
      held.set(event.pointerId, at);
      if (moved < 5) return;
      this.svg.setPointerCapture(event.pointerId);
      if (other) {
        const span = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
        return this.#zoom(span(at) / span(was), other[0], other[1]);
      }
      this.#view.x += at[0] - was[0];
      this.#view.y += at[1] - was[1];
      this.#isOwnView = true;
      this.#draw();
    });
    const release = (event) => held.delete(event.pointerId);
    for (const type of ["pointerup", "pointercancel", "pointerleave"]) this.svg.addEventListener(type, release);
    this.svg.addEventListener("click", (event) => {
      if (moved >= 5) return;
      const edge = pressed ? null : this.#edgeAt(...local(event));
      if (edge) this.#chooseEdge(edge);
      else this.#choose(this.#drawn.groups.find((item) => item.id === pressed));
    });
    this.svg.addEventListener("wheel", (event) => {
      // The wheel alone scrolls the page, unless somebody works in the graph.
      if (!event.ctrlKey && !this.svg.contains(document.activeElement)) return;
      event.preventDefault();
      this.#zoom(Math.exp(-event.deltaY * 0.0016), ...local(event));
    }, { passive: false });
  }

  #hover(event, at) {
    const id = event.target.closest(".vertex")?.dataset.key;
    const item = id && this.#drawn.groups.find((found) => found.id === id);
    const edge = item ? null : this.#edgeAt(...at);
    this.svg.classList.toggle("over-edge", Boolean(edge));
    if (edge) this.readout.textContent = visible(describeEdge(edge));
    else this.#say(item || undefined);
  }

  #key(event) {
    const { groups } = this.#drawn;
    const current = groups.find((item) => item.id === event.target.closest("[data-key]")?.dataset.key);
    const turn = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (turn && current) this.#step(current, turn);
    else if (event.key === "Enter" || event.key === " ") this.#choose(current);
    else if (event.key === "Escape") this.select(null);
    else if (event.key === "+" || event.key === "=") this.#zoom(1.4);
    else if (event.key === "-") this.#zoom(1 / 1.4);
    else if (event.key === "0") this.#fit();
    else return;
    event.preventDefault();
  }

  /** To the nearest vertex in that direction; what lies askew counts as farther. */
  #step(from, [dx, dy]) {
    const [x, y] = this.#at(from.id);
    let best = null;
    let least = Infinity;
    for (const item of this.#drawn.groups) {
      const [tx, ty] = this.#at(item.id);
      const along = (tx - x) * dx + (ty - y) * dy;
      const aside = Math.abs((tx - x) * dy) + Math.abs((ty - y) * dx);
      if (along <= 1 || along + 2.5 * aside >= least) continue;
      [best, least] = [item, along + 2.5 * aside];
    }
    if (!best) return;
    this.#current = best.id;
    const element = this.vertices.querySelector(`[data-key="${CSS.escape(best.id)}"]`);
    this.vertices.querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
    element.setAttribute("tabindex", "0");
    element.focus();
  }

  #legend() {
    const sample = (kind, body, words) => h("li", {}, s("svg", { class: "vertex-sample", viewBox: "-13 -13 26 26", "aria-hidden": "true" }, s("g", { class: `vertex ${kind}` }, body)), words);
    const box = (width, height, rx) => s("rect", { x: -width / 2, y: -height / 2, width, height, rx });
    // Where there is room, it is open.
    byId("legend").open = innerWidth > 720;
    byId("legend").append(
      h("ul", { class: "keys" },
        sample("node", s("circle", { r: 8 }), "node"),
        sample("hidden", s("circle", { r: 8 }), "hidden node"),
        sample("address", box(12, 12, 1.5), "address without a known node"),
        sample("group", box(24, 16, 5), "group, with its size"),
        TRANSPORTS.map((transport) => h("li", {}, transportMark(transport))),
        h("li", {}, s("svg", { class: "stroke-sample", viewBox: "0 0 26 8", "aria-hidden": "true" }, s("path", { class: "edge over unknown", d: "M1 4H25" })), "faint: closed"),
        SEVERITIES.map((severity) => h("li", {}, severityMark(severity))),
      ),
      h("p", { id: "graph-keys" }, "A line stands for all links of a pair (×n): it looks like the worst of its transports, and carries the shape of its worst finding. ",
        "Click, or Enter, selects and filters alerts and tables; Escape ends it. Arrow keys go to the next node, + and − zoom, 0 arranges anew; drag to move. ",
        `More than ${MOST_VERTICES} nodes are grouped.`),
    );
  }
}

const line = ([x, y], [tx, ty]) => `M${x.toFixed(1)} ${y.toFixed(1)}L${tx.toFixed(1)} ${ty.toFixed(1)}`;

/** The worst transport that is open; where none is, of those that were. */
function look(edge) {
  for (const [links, isOpen] of [[edge.open, true], [edge.closed, false]]) {
    const transport = ["cleartext", "unknown", "tls"].find((name) => links[name]);
    if (transport) return { transport, isOpen };
  }
  return { transport: "unknown", isOpen: false };
}

function mark(edge, points, taken, count) {
  const [ax, ay] = points.get(edge.from.id);
  const [bx, by] = points.get(edge.to.id);
  const [x, y] = [(ax + bx) / 2, (ay + by) / 2];
  if (Math.hypot(ax - bx, ay - by) < SHORT) return null;
  const severity = edge.worst > 1 ? ofRank(edge.worst) : null;
  const words = edge.links > 1 ? `×${number(edge.links)}` : "";
  const width = words.length * 6.5 + (severity ? 18 : 0) + 4;
  const box = [x - width / 2, y - 9, width, 18];
  // In a dense picture numbers give way; findings only to each other.
  if ((!severity && count > DENSE) || taken.some((other) => overlap(box, other))) return null;
  taken.push(box);
  return s("g", { class: "mark", transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})` },
    s("rect", { x: -width / 2, y: -9, width, height: 18, rx: 9 }),
    severity ? s("path", { class: `badge sev-${severity}`, transform: `translate(${words ? -width / 2 + 10 : 0} 0) scale(.78)`, d: SHAPES[severity] }) : null,
    words ? s("text", { x: severity ? 8 : 0, y: 4 }, words) : null);
}

/**
 * Where a name goes: below, above or beside its vertex, off other names and vertices, and off marks where it can be; inside the
 * picture if its vertex is.
 */
function spotFor(item, [x, y], boxes, marks, room, isForced) {
  const width = shorten(label(item)).length * 6.7;
  const [across, up] = item.only ? [14, 0] : [21, 3];
  const isInside = x > 0 && x < room;
  const middle = isInside ? Math.max(width / 2 + 4, Math.min(x, room - width / 2 - 4)) : x;
  const spots = [
    { anchor: "middle", dx: middle - x, dy: 22 + up, box: [middle - width / 2, y + 12 + up, width, 14] },
    { anchor: "middle", dx: middle - x, dy: -17 - up, box: [middle - width / 2, y - 28 - up, width, 14] },
    { anchor: "start", dx: across, dy: 5, box: [x + across, y - 6, width, 14] },
    { anchor: "end", dx: -across, dy: 5, box: [x - across - width, y - 6, width, 14] },
  ];
  const fits = ({ box }) => !isInside || (box[0] > 0 && box[0] + width < room);
  const isFree = (list) => (spot) => fits(spot) && !list.some((other) => overlap(spot.box, other));
  return spots.find(isFree([...boxes, ...marks])) ?? spots.find(isFree(boxes)) ?? (isForced ? spots[0] : null);
}

const overlap = ([ax, ay, aw, ah], [bx, by, bw, bh]) => ax < bx + bw && bx < ax + aw && ay < by + bh && by < ay + ah;

const label = (item) => visible(item.name);

function shorten(text) {
  if (text.length <= LONGEST_LABEL) return text;
  return `${text.slice(0, LONGEST_LABEL / 2)}…${text.slice(1 - LONGEST_LABEL / 2)}`;
}

function transports(open) {
  const parts = ["tls", "cleartext", "unknown"].filter((name) => open[name]).map((name) => `${number(open[name])} ${transportName(name)}`);
  return parts.length ? `open: ${parts.join(", ")}` : "none open";
}

const finding = (worst) => (worst ? `; worst finding: ${ofRank(worst)}` : "");

function describe(item) {
  const { only } = item;
  const kind = !only ? `group of ${number(item.members.length)}` : only.isAddress ? "address" : only.node?.hidden ? "hidden node" : "node";
  const inside = item.inside ? `, ${number(item.inside)} of them inside` : "";
  return `${item.name}, ${kind}: ${plural(item.links, "link")}${inside} (${transports(item.open)})${finding(item.worst)}`;
}

const describeEdge = (edge) => `${edge.from.name} – ${edge.to.name}: ${plural(edge.links, "link")} (${transports(edge.open)})${finding(edge.worst)}`;

function distance(x, y, [ax, ay], [bx, by]) {
  const [ux, uy] = [bx - ax, by - ay];
  const along = Math.min(1, Math.max(0, ((x - ax) * ux + (y - ay) * uy) / (ux * ux + uy * uy || 1)));
  return Math.hypot(x - ax - along * ux, y - ay - along * uy);
}
