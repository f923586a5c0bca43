// The page's one state: the world, whether it is live, and what the API is asked.
import { useEffect, useState } from "./vendor/preact-htm.js";
import { follow } from "./events.js";
import { apply, goOn, newWorld } from "./world.js";

export const world = newWorld();
export const link = { state: "connecting", since: Date.now() };
const listeners = new Set();
let pending = false;
let port = null;

function changed() {
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => {
    pending = false;
    for (const listener of listeners) listener();
  });
}

function take({ data }) {
  if (data.type === "state") {
    if (link.state !== data.state) link.since = Date.now();
    link.state = data.state;
  } else {
    apply(world, data.type, data.event);
  }
  changed();
}

export function connect() {
  setInterval(() => {
    if (link.state !== "live") return;
    goOn(world);
    changed();
  }, 1000);
  if (typeof SharedWorker === "undefined") {
    return connectAlone();
  }
  const worker = new SharedWorker(new URL("feed.js", import.meta.url), { type: "module", name: "p2premap" });
  port = worker.port;
  port.onmessage = take;
  addEventListener("pagehide", () => port.postMessage("close"));
  addEventListener("pageshow", (event) => event.persisted && location.reload());
}

function connectAlone() {
  const tell = (data) => take({ data });
  let close = follow(tell);
  port = {
    postMessage(text) {
      close();
      if (text === "again") close = follow(tell);
    },
  };
}

export function again() {
  port.postMessage("again");
}

// Draw again whenever the world has changed, at most once a frame.
export function useWorld() {
  const [, draw] = useState(0);
  useEffect(() => {
    const listener = () => draw((n) => n + 1);
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, []);
  return world;
}

export class Refused extends Error {}

// Ask the API, with an object as JSON or a file as it is; what it refuses becomes a sentence.
export async function ask(method, path, body) {
  const plain = body === undefined || body instanceof Blob;
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: plain ? {} : { "content-type": "application/json" },
      body: plain ? body : JSON.stringify(body),
    });
  } catch {
    throw new Refused("The node that serves this page does not answer.");
  }
  const isJson = (answer.headers.get("content-type") ?? "").includes("json");
  const data = isJson ? await answer.json() : await answer.text();
  if (!answer.ok) throw new Refused((isJson && data.detail) || `${answer.status} ${answer.statusText}`);
  return data;
}

// Ask for something now, and again every so many seconds while it is looked at.
export function useAnswer(path, every_s = 0) {
  const [answer, set] = useState({ data: null, error: "" });
  useEffect(() => {
    let gone = false;
    let timer = 0;
    const look = async () => {
      try {
        const data = await ask("GET", path);
        if (!gone) set({ data, error: "" });
      } catch (error) {
        if (!gone) set((before) => ({ data: before.data, error: error.message }));
      }
      if (!gone && every_s) timer = setTimeout(look, every_s * 1000);
    };
    look();
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, [path, every_s]);
  return answer;
}
