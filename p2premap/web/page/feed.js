// One stream of events for all tabs: browsers allow six connections a host. Runs as a shared worker.
import { apply, newWorld } from "./world.js";

const ports = new Set();
let world = newWorld();
let state = "connecting";
let source = null;

function tell(message) {
  for (const port of ports) port.postMessage(message);
}

function change(next) {
  if (next === state) return;
  state = next;
  tell({ type: "state", state });
}

function open() {
  source = new EventSource("../api/v1/events");
  source.onopen = () => change("live");
  source.onerror = () => change(source.readyState === EventSource.CLOSED ? "refused" : "lost");
  source.addEventListener("bye", () => change("lost"));
  for (const kind of ["snapshot", "update"]) {
    source.addEventListener(kind, (message) => {
      const event = JSON.parse(message.data);
      apply(world, kind, event);
      change("live");
      tell({ type: kind, event });
    });
  }
}

self.onconnect = (connected) => {
  const port = connected.ports[0];
  ports.add(port);
  port.onmessage = ({ data }) => {
    if (data === "close") ports.delete(port);
    if (data === "close" && !ports.size && source) {
      source.close();
      source = null;
    }
    if (data === "again" && state !== "live") {
      source?.close();
      open();
    }
  };
  port.postMessage({ type: "state", state });
  if (world.at) port.postMessage({ type: "snapshot", event: flat(world) });
  if (!source) {
    world = newWorld();
    open();
  }
};

function flat(world) {
  return {
    at: world.at,
    cluster: world.cluster,
    nodes: [...world.nodes.values()],
    jobs: [...world.jobs.values()],
    tasks: [...world.tasks.values()],
    left_out: world.leftOut,
  };
}
