// The page: asks the daemon for what is, follows its events, and redraws what changed, never more often than it helps.

import { EventStream } from "./api.js";
import { byId, clock, h, plural, visible } from "./dom.js";
import { Feed } from "./feed.js";
import { Graph } from "./graph.js";
import { renderPosture, renderSensor } from "./sensor.js";
import { Store, derive } from "./store.js";
import { Tables } from "./tables.js";

/** Between two drawings of live changes. */
const REDRAW = 400;

/** The daemon's answers are up to a second old: what changed is asked for so long after. */
const SOON = 1_500;

/** Between two questions for the status, whatever happens. */
const ANYWAY = 10_000;

/** Between two sentences for screen readers. */
const ANNOUNCE = 5_000;

const store = new Store();
let selection = null;
/** Events that arrive while lists are on their way; null when there is no need. */
let held = [];

const select = (next) => {
  selection = next;
  draw();
};

const feed = new Feed(() => draw(), select);
const graph = new Graph(select);
const tables = new Tables(select);

/** Calls `work` at once, and then again at most every `pause`, however often it is asked for. */
function limited(work, pause) {
  let timer = null;
  let isWanted = false;
  const run = () => {
    isWanted = false;
    timer = setTimeout(() => {
      timer = null;
      if (isWanted) run();
    }, pause);
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

function draw() {
  if (!store.loaded) return;
  const derived = derive(store);
  graph.render(derived, selection);
  graph.setEmpty(...(derived.vertices.size ? [] : nothingSeen()));
  feed.render(store, derived, selection);
  tables.render(store, derived, selection);
  const pressing = [...store.alerts.values()].filter((alert) => alert.status !== "resolved" && (alert.severity === "critical" || alert.severity === "high")).length;
  document.title = pressing ? `(${pressing}) distwatch` : "distwatch";
  byId("host").textContent = visible(store.host);
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

const drawSoon = limited(() => requestAnimationFrame(draw), REDRAW);
const nodesSoon = later(() => store.loadNodes().then(drawSoon, () => {}), SOON);
const loadSoon = later(() => load(), SOON);
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

function take(type, record) {
  if (type === "lost") return void load("Some events were missed: everything was asked for anew.");
  if (held) return void held.push([type, record]);
  if (!record) return;
  if (type === "alert" && record.alert) {
    const isNew = store.takeAlert(record);
    if (isNew) {
      feed.fresh.add(record.alert.fingerprint);
      announce(record.alert);
    }
    statusSoon();
  } else if (type === "link" && record.link) {
    if (store.takeLink(record)) nodesSoon();
    statusSoon();
  } else if (type === "stats" && record.stats) {
    store.takeStats(record);
    return;
  }
  drawSoon();
}

let unsaid = [];
const say = limited(() => {
  const [first] = unsaid;
  if (!first) return;
  const words = unsaid.length === 1 ? `New ${first.severity} finding: ${first.reason}` : `${plural(unsaid.length, "new finding")}, the first: ${first.severity}, ${first.reason}`;
  byId("announcer").textContent = visible(words);
  unsaid = [];
}, ANNOUNCE);

function announce(alert) {
  unsaid.push(alert);
  say();
}

// --- the connection ---

function notice(words) {
  byId("notice").hidden = !words;
  byId("notice").textContent = words ?? "";
}

let isLoading = false;

/** Asks for everything; events that come meanwhile are taken afterwards. */
async function load(why) {
  if (isLoading) return;
  isLoading = true;
  // What was held for an earlier attempt is in the answers to this one.
  held = [];
  try {
    await store.load();
    const events = held;
    held = null;
    events.forEach(([type, record]) => take(type, record));
    notice(why);
    draw();
    drawStatus();
  } catch (error) {
    notice(`The daemon does not answer: ${error.message}. What is shown may be old; the page goes on trying.`);
    setTimeout(() => load(why), ANYWAY);
  } finally {
    isLoading = false;
  }
}

function connection(state, { away, since, next }) {
  byId("connection").dataset.state = state;
  byId("retry").hidden = state === "live";
  document.body.classList.toggle("away", state === "away");
  byId("connection-text").textContent = state === "live" ? "live" : `disconnected since ${clock(since)}, next try at ${clock(next)}`;
  // At first, connected or not; and after a break, during which the daemon may have been restarted.
  if (store.loaded && !(state === "live" && away)) return;
  load();
  // What happened between those answers and the stream's begin is in the next ones.
  if (state === "live") loadSoon();
}

const stream = new EventStream("alert,link,stats", take, connection);
byId("retry").addEventListener("click", () => stream.now());
addEventListener("online", () => stream.now());
setInterval(() => document.hidden || statusSoon(), ANYWAY);
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, select, dialog");
  if (event.key === "/" && !isTyping) {
    event.preventDefault();
    byId("feed-text").focus();
  } else if (event.key === "Escape" && !isTyping && selection) select(null);
});
stream.run();
