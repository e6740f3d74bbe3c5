// Which vertices are drawn, and where: grouping until they fit, and places that stay where they were.

import { pairKey, tally } from "./store.js";

/** More vertices than this cannot be read: they are grouped. */
export const MOST_VERTICES = 120;

/** More lines than this are a ball of wool: they are grouped too, where nobody asked for each. */
const MOST_EDGES = 700;

/** The distance that linked vertices take, in units of the plane. */
const LENGTH = 130;

/** What holds parts together that no line joins. */
const GRAVITY = 0.3;

/** Steps of a layout from nothing; each costs vertices² + edges. */
const STEPS = 260;

/** So few vertices are always arranged anew: a cluster that grows from nothing shall not look like its first two nodes. */
const FEW = 5;

/** Steps that find a place for what is new, while all else stays. */
const STEPS_FOR_NEW = 80;

const digits = (text) => text.replace(/\d+/g, "*");

/** `10.1.2.3` to `10.1.2.*`; the first four groups of an IPv6 address. */
function network(ip) {
  if (ip.includes(".")) return ip.replace(/[^.]*$/, "*");
  return `${ip.split(":").slice(0, 4).join(":")}:*`;
}

const isAddress = (host) => /^[\d.]+$/.test(host) || host.includes(":");

/** What a vertex is shown as, from each alone to whole networks. */
const LEVELS = [
  { word: "node", of: (vertex) => vertex.id },
  { word: "host", of: (vertex) => (vertex.isAddress ? vertex.name : vertex.name.slice(vertex.name.indexOf("@") + 1)) },
  {
    word: "network",
    of(vertex) {
      const host = LEVELS[1].of(vertex);
      if (isAddress(host)) return network(host);
      const dot = host.indexOf(".");
      return dot < 0 ? digits(host) : `*${host.slice(dot)}`;
    },
  },
];

/**
 * Vertices and pairs as they are drawn: at the level asked for (`auto`: the first that fits), and whatever is still too
 * many in one group of the least remarkable. Those in `apart` stand alone in any case.
 */
export function group(vertices, pairs, wanted, apart) {
  let level = wanted === "auto" ? 0 : Number(wanted);
  let keys;
  for (;;) {
    keys = new Map(vertices.map((vertex) => [vertex.id, apart?.has(vertex.id) ? vertex.id : LEVELS[level].of(vertex)]));
    if (wanted !== "auto" || level === LEVELS.length - 1) break;
    const lines = new Set(pairs.map(({ a, b }) => pairKey(keys.get(a), keys.get(b))));
    if (new Set(keys.values()).size <= MOST_VERTICES && lines.size <= MOST_EDGES) break;
    level += 1;
  }
  let groups = new Map();
  for (const vertex of vertices) {
    const key = keys.get(vertex.id);
    const found = groups.get(key);
    if (found) found.push(vertex);
    else groups.set(key, [vertex]);
  }
  if (groups.size > MOST_VERTICES) groups = fold(groups, keys);
  const drawn = new Map();
  for (const [key, members] of groups) {
    const only = members.length === 1 ? members[0] : null;
    const sum = (field) => members.reduce((total, vertex) => total + vertex.open[field], 0);
    drawn.set(key, {
      id: only ? only.id : `g:${key}`,
      name: only ? only.name : key === OTHERS ? "others" : key,
      only,
      members,
      worst: Math.max(...members.map((vertex) => vertex.worst)),
      links: members.reduce((total, vertex) => total + vertex.links, 0),
      open: { tls: sum("tls"), cleartext: sum("cleartext"), unknown: sum("unknown") },
      inside: 0,
    });
  }
  const edges = new Map();
  for (const pair of pairs) {
    const a = drawn.get(keys.get(pair.a));
    const b = drawn.get(keys.get(pair.b));
    if (a === b) {
      a.inside += pair.links;
      continue;
    }
    const key = pairKey(a.id, b.id);
    let edge = edges.get(key);
    if (!edge) edges.set(key, (edge = { from: a, to: b, worst: 0, links: 0, open: tally(), closed: tally() }));
    edge.worst = Math.max(edge.worst, pair.worst);
    edge.links += pair.links;
    for (const transport of ["tls", "cleartext", "unknown"]) {
      edge.open[transport] += pair.open[transport];
      edge.closed[transport] += pair.closed[transport];
    }
  }
  return { word: LEVELS[level].word, groups: [...drawn.values()], edges: [...edges.values()] };
}

const OTHERS = "\u0000others";

function fold(groups, keys) {
  const worth = (members) => Math.max(...members.map((vertex) => vertex.worst)) * 1e6 + members.length;
  const order = [...groups].sort(([, a], [, b]) => worth(b) - worth(a));
  const others = order.splice(MOST_VERTICES - 1).flatMap(([, members]) => members);
  others.forEach((vertex) => keys.set(vertex.id, OTHERS));
  return new Map([...order, [OTHERS, others]]);
}

/**
 * A place for every group: forces between them, from a start that depends on nothing but their order. Groups that
 * `known` has stay where they are; unless most are new, only the new ones move.
 */
export function place(groups, edges, known, aspect) {
  const count = groups.length;
  const index = new Map(groups.map((item, i) => [item.id, i]));
  const lines = edges.map((edge) => [index.get(edge.from.id), index.get(edge.to.id)]);
  const x = new Float64Array(count);
  const y = new Float64Array(count);
  const fixed = groups.map((item) => known.has(item.id));
  const isFresh = count <= FEW || fixed.filter(Boolean).length < count / 2;
  const degree = new Float64Array(count);
  for (const [a, b] of lines) {
    degree[a] += 1;
    degree[b] += 1;
  }
  // The best linked ones begin in the middle of a sunflower.
  const order = groups.map((_, i) => i).sort((a, b) => degree[b] - degree[a] || (groups[a].id < groups[b].id ? -1 : 1));
  order.forEach((i, turn) => {
    const radius = LENGTH * 0.7 * Math.sqrt(turn);
    x[i] = radius * Math.cos(turn * 2.39996) * aspect;
    y[i] = radius * Math.sin(turn * 2.39996);
  });
  for (const i of index.values()) {
    const was = known.get(groups[i].id);
    if (was) [x[i], y[i]] = [was.x, was.y];
  }
  if (!isFresh) nearNeighbours(lines, fixed, x, y);
  const steps = isFresh ? STEPS : fixed.every(Boolean) ? 0 : STEPS_FOR_NEW;
  // A full mesh pulls itself into a ball: the more lines, the weaker each.
  const pull = Math.min(1, (2.2 * count) / (lines.length || 1));
  const dx = new Float64Array(count);
  const dy = new Float64Array(count);
  for (let step = 0; step < steps; step += 1) {
    const heat = LENGTH * 0.6 * (1 - step / steps) + 1;
    for (let i = 0; i < count; i += 1) {
      dx[i] = (-x[i] * GRAVITY) / aspect;
      dy[i] = -y[i] * GRAVITY * aspect;
    }
    for (let i = 0; i < count; i += 1) {
      for (let j = i + 1; j < count; j += 1) {
        const ex = x[i] - x[j] || 0.1;
        const ey = y[i] - y[j] || 0.1;
        const force = (LENGTH * LENGTH) / (ex * ex + ey * ey);
        dx[i] += ex * force;
        dy[i] += ey * force;
        dx[j] -= ex * force;
        dy[j] -= ey * force;
      }
    }
    for (const [a, b] of lines) {
      const ex = x[a] - x[b];
      const ey = y[a] - y[b];
      const force = (pull * Math.hypot(ex, ey)) / LENGTH;
      dx[a] -= ex * force;
      dy[a] -= ey * force;
      dx[b] += ex * force;
      dy[b] += ey * force;
    }
    for (let i = 0; i < count; i += 1) {
      if (fixed[i] && !isFresh) continue;
      const size = Math.hypot(dx[i], dy[i]) || 1;
      const move = Math.min(size, heat) / size;
      x[i] += dx[i] * move;
      y[i] += dy[i] * move;
    }
  }
  return new Map(groups.map((item, i) => [item.id, { x: x[i], y: y[i] }]));
}

/** What is new begins beside what it is linked to. */
function nearNeighbours(lines, fixed, x, y) {
  for (const [a, b] of lines) {
    for (const [from, to] of [[a, b], [b, a]]) {
      if (!fixed[from] || fixed[to]) continue;
      x[to] = x[from] + LENGTH * Math.cos(to);
      y[to] = y[from] + LENGTH * Math.sin(to);
    }
  }
}
