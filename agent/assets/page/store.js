// What is known of the cluster: lists from the daemon, kept current by its events, and what follows from them together.

import { list, get } from "./api.js";
import { rank } from "./dom.js";

// What a browser holds with ease. Beyond, the page says that it shows a part.
const MOST_LINKS = 20_000;
const MOST_NODES = 10_000;
const MOST_ALERTS = 5_000;

export class Store {
  nodes = new Map();
  links = new Map();
  alerts = new Map();
  rules = new Map();
  status = null;
  host = "";
  /** How many there are at the daemon, where that is more than is here. */
  totals = { nodes: 0, links: 0, alerts: 0 };
  loaded = false;

  /** Asks for everything anew; gives the event from which on changes have to be heard of. */
  async load() {
    // The first answer is the oldest: what happened between it and the others is heard of twice, which does no harm.
    const nodes = await list("nodes", MOST_NODES);
    const [links, alerts, status, rules] = await Promise.all([
      list("links", MOST_LINKS, "state=all&"),
      list("alerts", MOST_ALERTS),
      get("status"),
      this.rules.size ? { rules: [...this.rules.values()] } : get("rules"),
    ]);
    this.#setNodes(nodes);
    this.links = new Map(links.items.map((link) => [link.flow_id, link]));
    this.alerts = new Map(alerts.items.map((alert) => [alert.fingerprint, alert]));
    this.rules = new Map(rules.rules.map((rule) => [rule.id, rule]));
    this.totals.links = links.total;
    this.totals.alerts = alerts.total;
    this.status = status;
    this.host = nodes.host;
    this.loaded = true;
    return nodes.event;
  }

  async loadNodes() {
    this.#setNodes(await list("nodes", MOST_NODES));
  }

  /** What no event tells of: how much open links have carried. */
  async loadOpen() {
    for (const link of (await list("links", MOST_LINKS, "state=open&")).items) this.#takeLink(link);
  }

  async loadStatus() {
    this.status = await get("status");
  }

  #setNodes({ items, total }) {
    this.nodes = new Map(items.map((node) => [node.name, node]));
    this.totals.nodes = total;
  }

  /** Takes an `alert` record; true where it tells of something that was not there. */
  takeAlert(record) {
    const alert = { ...record.alert };
    for (const field of ["flow_id", "community_id", "src_ip", "src_port", "dest_ip", "dest_port", "in_iface"]) {
      alert[field] ??= record[field];
    }
    const known = this.alerts.get(alert.fingerprint);
    if (known && known.last_seen > alert.last_seen) return false;
    this.alerts.set(alert.fingerprint, alert);
    trim(this.alerts, MOST_ALERTS, (old) => old.status === "resolved");
    if (!known) this.totals.alerts += 1;
    return alert.status !== "resolved" && (!known || known.status === "resolved");
  }

  /** Takes a `link` record; true where it names a node that is not known yet. */
  takeLink({ link }) {
    return this.#takeLink(link) && [link.initiator.node, link.acceptor.node].some((name) => name && !this.nodes.has(name));
  }

  #takeLink(link) {
    const known = this.links.get(link.flow_id);
    if (known && (known.last_seen > link.last_seen || (known.closed && !link.closed))) return false;
    this.links.set(link.flow_id, link);
    trim(this.links, MOST_LINKS, (old) => old.closed);
    if (!known) this.totals.links += 1;
    return true;
  }
}

/** Lets the oldest go, those first that are over. */
function trim(map, most, isOver) {
  if (map.size <= most) return;
  for (const [key, value] of map) if (isOver(value)) return void map.delete(key);
  map.delete(map.keys().next().value);
}

/** Links of each transport: none yet. */
export const tally = () => ({ tls: 0, cleartext: 0, unknown: 0 });

/** Two vertices' names in an order that does not depend on who called whom. */
export const pairKey = (a, b) => (a < b ? `${a}\n${b}` : `${b}\n${a}`);

/**
 * What lists together say: which vertex each end of a link is, what each finding is about, and the worst finding of
 * every link, node and pair. A vertex is a node (`n:name`), or an address of which no node is known (`a:ip`).
 */
export function derive(store) {
  const listeners = new Map();
  for (const node of store.nodes.values()) {
    for (const ip of node.addresses) {
      for (const port of node.dist_ports) {
        const place = `${ip} ${port}`;
        // A place that two nodes have had says nothing.
        listeners.set(place, listeners.has(place) ? null : node.name);
      }
    }
  }
  const vertices = new Map();
  const vertex = (id, fields) => {
    let found = vertices.get(id);
    if (!found) vertices.set(id, (found = { id, worst: 0, links: 0, open: tally(), ...fields }));
    return found;
  };
  for (const node of store.nodes.values()) vertex(`n:${node.name}`, { name: node.name, node });
  const vertexOf = (end, isAcceptor) => {
    const name = end.node ?? (isAcceptor ? listeners.get(`${end.ip} ${end.port}`) : null);
    return name ? vertex(`n:${name}`, { name }) : vertex(`a:${end.ip}`, { name: end.ip, isAddress: true });
  };

  const pairs = new Map();
  const ends = new Map();
  for (const link of store.links.values()) {
    const a = vertexOf(link.initiator, false);
    const b = vertexOf(link.acceptor, true);
    ends.set(link.flow_id, [a.id, b.id]);
    const key = pairKey(a.id, b.id);
    let pair = pairs.get(key);
    if (!pair) pairs.set(key, (pair = { key, a: a.id, b: b.id, worst: 0, links: 0, open: tally(), closed: tally() }));
    for (const whole of a === b ? [a, pair] : [a, b, pair]) {
      whole.links += 1;
      if (!link.closed) whole.open[link.transport] += 1;
    }
    if (link.closed) pair.closed[link.transport] += 1;
  }

  const about = new Map();
  const worstOfFlow = new Map();
  const raise = (map, key, value) => map.set(key, Math.max(map.get(key) ?? 0, value));
  for (const alert of store.alerts.values()) {
    const ids = ends.get(alert.flow_id) ?? named(alert, vertices);
    about.set(alert.fingerprint, ids);
    if (alert.status === "resolved") continue;
    const worth = rank(alert.severity);
    if (alert.flow_id) raise(worstOfFlow, alert.flow_id, worth);
    for (const id of ids) vertices.get(id).worst = Math.max(vertices.get(id).worst, worth);
    const pair = ids.length === 2 && pairs.get(pairKey(...ids));
    if (pair) pair.worst = Math.max(pair.worst, worth);
  }
  return { vertices, pairs, ends, about, worstOfFlow };
}

/** The vertices that a finding without a link that is still known speaks of. */
function named(alert, vertices) {
  const words = alert.subject.split(/\s+/).map((word) => `n:${word.replace(/^[(]|[),.]$/g, "")}`);
  const nodes = [...new Set(words)].filter((id) => vertices.has(id));
  if (nodes.length) return nodes.slice(0, 2);
  return [...new Set([alert.src_ip, alert.dest_ip])].map((ip) => `a:${ip}`).filter((id) => vertices.has(id));
}

/**
 * What was chosen in the graph or in a table: all that touches `a`, or where `b` is there too, all that is between the
 * two. Both are sets of vertices.
 */
export function touches(selection, ids) {
  if (!selection) return true;
  const { a, b } = selection;
  if (!b) return ids.some((id) => a.has(id));
  const [first, second = first] = ids;
  return (a.has(first) && b.has(second)) || (a.has(second) && b.has(first));
}
