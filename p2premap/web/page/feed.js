// One stream of events for all tabs: browsers allow six connections a host. Runs as a shared worker.
import { follow } from "./events.js";
import { apply, newWorld } from "./world.js";

const ports = new Set();
let world = newWorld();
let state = "connecting";
let close = null;

function tell(message) {
  for (const port of ports) port.postMessage(message);
}

function take(message) {
  if (message.type === "state") {
    if (message.state === state) return;
    state = message.state;
  } else {
    apply(world, message.type, message.event);
  }
  tell(message);
}

self.onconnect = (connected) => {
  const port = connected.ports[0];
  ports.add(port);
  port.onmessage = ({ data }) => {
    if (data === "close") ports.delete(port);
    if (data === "close" && !ports.size && close) {
      close();
      close = null;
    }
    if (data === "again" && state !== "live") {
      close?.();
      close = follow(take);
    }
  };
  port.postMessage({ type: "state", state });
  if (world.at) port.postMessage({ type: "snapshot", event: flat(world) });
  if (!close) {
    world = newWorld();
    close = follow(take);
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
