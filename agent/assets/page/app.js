// The page: asks the daemon for what is, follows its events, and redraws what changed, never more often than it helps.

import { EventStream } from "./api.js";
import { byId, clock, h, plural, visible } from "./dom.js";
import { Feed } from "./feed.js";
import { Graph } from "./graph.js";
import { renderPosture, renderSensor } from "./sensor.js";
import { Store, derive } from "./store.js";
import { Tables } from "./tables.js";

/** Between two drawings of live changes; where drawing takes long, so many times as long. */
const REDRAW = 400;
const REST = 6;

/** The daemon's answers are up to a second old: what changed is asked for so long after. */
const SOON = 1_500;

/** Between two questions for the status, whatever happens. */
const ANYWAY = 10_000;

/** Between two questions for the counters of open links, while they are so few that it costs nothing. */
const COUNTERS = 30_000;
const FEW_LINKS = 2_000;

/** Between two sentences for screen readers. */
const ANNOUNCE = 5_000;

const store = new Store();
let selection = null;

const select = (next) => {
  selection = next;
  draw();
};

const feed = new Feed(select);
const graph = new Graph(select);
const tables = new Tables(select);

/** Calls `work` at once, and then again only after `pause()` milliseconds, however often it is asked for. */
function limited(work, pause) {
  let timer = null;
  let isWanted = false;
  const run = () => {
    isWanted = false;
    timer = setTimeout(() => {
      timer = null;
      if (isWanted) run();
    }, pause());
    work();
  };
  return () => {
    isWanted = true;
    if (!timer) run();
  };
}

/** Calls `work` once `pause` has passed since it was first asked for. */
function later(work, pause) {
  let timer = null;
  return () => {
    timer ??= setTimeout(() => {
      timer = null;
      work();
    }, pause);
  };
}

/** What drawing took last, in milliseconds. */
let cost = 0;

function draw() {
  if (!store.loaded) return;
  const begun = performance.now();
  const derived = derive(store);
  graph.render(derived, selection);
  graph.setEmpty(...(derived.vertices.size ? [] : nothingSeen()));
  feed.render(store, derived, selection);
  tables.render(store, derived, selection);
  const pressing = [...store.alerts.values()].filter((alert) => alert.status !== "resolved" && (alert.severity === "critical" || alert.severity === "high")).length;
  document.title = pressing ? `(${pressing}) distwatch` : "distwatch";
  byId("host").textContent = visible(store.host);
  cost = performance.now() - begun;
}

function nothingSeen() {
  const seen = store.status.capture.seen;
  return [
    h("strong", {}, "No distribution traffic was seen yet"),
    h("p", {}, seen ? `The sensor takes packets (${plural(seen, "packet")} so far), but none of Erlang distribution or of EPMD.` : "The sensor has not taken a single packet."),
    h("ul", {},
      h("li", {}, "Do nodes on this host talk to others? Links that were up before are seen with their next tick, within 15 s."),
      h("li", {}, "Is it attached to the interfaces that they use? See “Sensor”, “Attached to”."),
      h("li", {}, "Do they use ports that EPMD does not tell? Name them in the policy: ", h("code", {}, "[distribution] ports"), "."),
      h("li", {}, h("code", {}, "distwatch doctor"), " says what works on this host.")),
  ];
}

const drawSoon = limited(() => requestAnimationFrame(draw), () => Math.max(REDRAW, REST * cost));
const nodesSoon = later(() => store.loadNodes().then(drawSoon, () => {}), SOON);
const statusSoon = later(() => store.loadStatus().then(drawStatus, () => {}), SOON);

function drawStatus() {
  if (!store.status) return;
  renderPosture(store.status, (severity) => {
    feed.only(severity);
    byId("alerts").scrollIntoView({ block: "nearest" });
  });
  renderSensor(store.status);
}

// --- events ---

function take(record) {
  if (record.event_type === "alert") {
    if (store.takeAlert(record)) {
      feed.fresh.add(record.alert.fingerprint);
      unsaid.push(record.alert);
      say();
    }
  } else if (record.event_type === "link" && store.takeLink(record)) {
    nodesSoon();
  }
  statusSoon();
  drawSoon();
}

let unsaid = [];
const say = limited(() => {
  const [first] = unsaid;
  if (!first) return;
  const words = unsaid.length === 1 ? `New ${first.severity} finding: ${first.reason}` : `${plural(unsaid.length, "new finding")}, the first: ${first.severity}, ${first.reason}`;
  byId("announcer").textContent = visible(words);
  unsaid = [];
}, () => ANNOUNCE);

// --- the connection ---

function connection(state, words) {
  byId("connection").dataset.state = state;
  byId("connection-text").textContent = words;
  byId("retry").hidden = state === "live";
  document.body.classList.toggle("away", state === "away");
}

const stream = new EventStream("alert,link", {
  async load() {
    const event = await store.load();
    draw();
    drawStatus();
    return event;
  },
  onEvent: take,
  onLive: () => connection("live", "live"),
  onAway: (since, next, reason) => connection("away", `disconnected since ${clock(since)} (${reason}), next try at ${clock(next)}`),
});
byId("retry").addEventListener("click", () => stream.now());
addEventListener("online", () => stream.now());
setInterval(() => document.hidden || !store.loaded || statusSoon(), ANYWAY);
setInterval(() => {
  if (document.hidden || !store.loaded || store.links.size > FEW_LINKS) return;
  store.loadOpen().then(drawSoon, () => {});
}, COUNTERS);
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, select, dialog");
  if (event.key === "/" && !isTyping) {
    event.preventDefault();
    byId("feed-text").focus();
  } else if (event.key === "Escape" && !isTyping && selection) select(null);
});
stream.run();
