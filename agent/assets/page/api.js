// The daemon's HTTP interface: questions, the token that it may ask for, and the stream of events.

const TOKEN = "distwatch-token";

/** Nothing for so long, not even a comment, is a dead connection. */
const SILENCE = 45_000;

/** An answer takes no longer, nor does a whole list. */
const PATIENCE = 30_000;
const LIST_PATIENCE = 120_000;

/** A longer line is no event of ours. */
const LONGEST_LINE = 4_000_000;

/** Waits between attempts grow up to this. */
const LONGEST_WAIT = 30_000;

let token = read();
let asking = null;

function read() {
  try {
    return sessionStorage.getItem(TOKEN);
  } catch {
    return null; // Storage may be forbidden: memory is enough.
  }
}

function keep(value) {
  token = value;
  try {
    if (value) sessionStorage.setItem(TOKEN, value);
    else sessionStorage.removeItem(TOKEN);
  } catch {
    // As above.
  }
}

function request(path, headers, signal) {
  if (token) headers.Authorization = `Bearer ${token}`;
  return fetch(path, { headers, signal, cache: "no-store", credentials: "omit" });
}

/** Asks the person for the token, once for all who wait for it. */
function ask() {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("token-dialog");
    const input = document.getElementById("token");
    const error = document.getElementById("token-error");
    error.hidden = !token;
    error.textContent = "The daemon did not take this token.";
    document.getElementById("token-form").onsubmit = (event) => {
      event.preventDefault();
      const value = input.value.trim();
      if (!value) return;
      if (!/^[\x21-\x7e]+$/.test(value)) {
        error.textContent = "This has characters that no token has: paste it anew.";
        error.hidden = false;
        return;
      }
      keep(value);
      input.value = "";
      asking = null;
      dialog.close();
      resolve();
    };
    // There is nothing behind it to go back to.
    dialog.onclose = () => asking && dialog.showModal();
    dialog.showModal();
    input.focus();
  });
  return asking;
}

/** Asks with the token, once there is one that is taken. `signal()` is asked for each attempt: a person takes their time. */
async function authorised(path, headers, signal) {
  for (;;) {
    // One question without a token is enough.
    await asking;
    const used = token;
    const response = await request(path, headers, signal());
    if (response.status !== 401) return response;
    // Another request may have asked meanwhile.
    if (used === token) await ask();
  }
}

/** The answer to a question, as JSON. */
export async function get(path, patience = PATIENCE) {
  const response = await authorised(`api/v1/${path}`, { Accept: "application/json" }, () => AbortSignal.timeout(patience));
  if (!response.ok) throw new Error(`${path}: the daemon answered ${response.status}`);
  return response.json();
}

/**
 * A whole list, or as much of it as `most`, in one answer: all of it is of one moment. With its `total`, the sensor's host, and
 * the event that it is as new as.
 */
export async function list(name, most, query = "") {
  const { [name]: items, total, host, last_event_id: event } = await get(`${name}?${query}limit=${most}`, LIST_PATIENCE);
  return { items, total, host, event };
}

/** Cuts what arrives into events, as the HTML standard says. */
class EventParser {
  #rest = "";
  #event = {};

  constructor(emit) {
    this.emit = emit;
  }

  push(text) {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    if (this.#rest.length > LONGEST_LINE) throw new Error("the event stream makes no sense");
    lines.forEach((line) => this.#line(line));
  }

  #line(line) {
    if (line === "") {
      this.emit(this.#event);
      this.#event = {};
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return; // A comment: the daemon is alive.
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.#event.data = this.#event.data === undefined ? value : `${this.#event.data}\n${value}`;
    else this.#event[field] = value;
  }
}

/**
 * The stream of events, for as long as the page lives. It is read with fetch, for EventSource sends no token. It goes on
 * after the last event that was seen; where there is none, or the daemon no longer has what came since, everything is
 * asked for anew, and the stream goes on from there. Broken, it tries again with growing pauses.
 */
export class EventStream {
  #last = null;
  #wait = 0;
  #wake = () => {};
  #since = null;

  /** `load()` asks for everything and gives the id to go on from. */
  constructor(types, { load, onEvent, onLive, onAway }) {
    this.path = `api/v1/events?types=${types}`;
    Object.assign(this, { load, onEvent, onLive, onAway });
  }

  /** Tries again without waiting. */
  now() {
    this.#wake();
  }

  async run() {
    for (;;) {
      let reason = null;
      try {
        this.#last ??= await this.load();
        reason = await this.#read();
      } catch (error) {
        // That is all that fetch says of a daemon that is not there.
        reason = error instanceof TypeError ? "it cannot be reached" : error.message;
      }
      // Jitter, lest all pages come back in the same moment.
      this.#wait = Math.min(LONGEST_WAIT, Math.max(1000, this.#wait * 2));
      const pause = this.#wait * (0.75 + Math.random() / 2);
      if (reason) {
        this.#since ??= new Date();
        this.onAway(this.#since, new Date(Date.now() + pause), reason);
      }
      await new Promise((resolve) => {
        this.#wake = resolve;
        setTimeout(resolve, pause);
      });
    }
  }

  /** Reads until the connection ends, and says why; null where everything has to be asked for anew. */
  async #read() {
    let abort;
    let timer;
    const alive = () => {
      clearTimeout(timer);
      timer = setTimeout(() => abort.abort(new Error("nothing came for too long")), SILENCE);
    };
    const signal = () => {
      abort = new AbortController();
      alive();
      return abort.signal;
    };
    try {
      const response = await authorised(this.path, { Accept: "text/event-stream", "Last-Event-ID": this.#last }, signal);
      if (!response.ok) throw new Error(`the daemon answered ${response.status}`);
      alive();
      this.#wait = 0;
      this.#since = null;
      this.onLive();
      const parser = new EventParser((event) => this.#handle(event));
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let part = await reader.read(); !part.done && this.#last; part = await reader.read()) {
        alive();
        parser.push(part.value);
        if (!this.#last) break;
      }
      return this.#last && "the daemon ended the connection";
    } finally {
      clearTimeout(timer);
      abort?.abort();
    }
  }

  #handle(event) {
    if (event.event === "lost") this.#last = null;
    else if (this.#last) {
      if (event.id) this.#last = event.id;
      if (event.data) this.onEvent(JSON.parse(event.data));
    }
  }
}
