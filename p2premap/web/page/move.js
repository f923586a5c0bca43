// When the node that serves this page goes: say so, try again, and move to another node that this browser can reach.
import { html, useEffect, useState } from "./vendor/preact-htm.js";
import { again, ask, link, useWorld, world } from "./store.js";
import { sortedNodes } from "./world.js";

const KEPT = 3; // tickets; each asks a node to serve, too
const RENEW_S = 300; // a ticket holds for ten minutes
const PATIENCE_S = 3;
const LOOK_S = 1.5;

const tickets = new Map(); // node id -> {name, url, command, until}

async function collect() {
  if (link.state !== "live") return;
  const others = sortedNodes(world).filter((node) => node.state === "alive" && !node.me);
  const fresh = others.filter((node) => tickets.get(node.id)?.until > Date.now() / 1000 + RENEW_S / 2);
  for (const node of others.filter((other) => !fresh.includes(other)).slice(0, KEPT - fresh.length)) {
    try {
      const got = await ask("POST", `api/v1/nodes/${node.id}/ticket`, {});
      tickets.set(node.id, { name: node.name, url: got.url, command: got.command ?? "", until: Date.now() / 1000 + got.expires_s });
    } catch {
      tickets.delete(node.id);
    }
  }
  document.documentElement.dataset.ways = [...tickets.values()].filter((ticket) => ticket.url).length;
}

async function isThere(ticket) {
  try {
    await fetch(new URL("/alive", ticket.url), { mode: "no-cors", signal: AbortSignal.timeout(LOOK_S * 1000) });
    return true;
  } catch {
    return false;
  }
}

export function Banner() {
  useWorld();
  const [where, setWhere] = useState(null);
  useEffect(() => {
    const first = setTimeout(collect, 1500);
    const timer = setInterval(collect, 10_000);
    return () => (clearTimeout(first), clearInterval(timer));
  }, []);
  const lost = link.state === "lost" || link.state === "refused";
  useEffect(() => {
    if (!lost) return setWhere(null);
    let gone = false;
    const look = async () => {
      if (Date.now() - link.since < PATIENCE_S * 1000) return;
      again();
      for (const ticket of tickets.values()) {
        if (ticket.url && ticket.until > Date.now() / 1000 && (await isThere(ticket)) && !gone) {
          setWhere(ticket);
          location.href = ticket.url + location.hash; // a redirect keeps the fragment
          return;
        }
      }
    };
    const timer = setInterval(look, 1000);
    return () => ((gone = true), clearInterval(timer));
  }, [lost]);
  if (link.state === "connecting" || link.state === "live") return "";
  if (link.state === "refused" && !tickets.size) return html`<${Login} />`;
  const commands = [...tickets.values()].filter((ticket) => ticket.command);
  return html`<div class="banner" role="alert">
    ${where
      ? html`The node that served this page has gone. Moving to <b>${where.name}</b>…`
      : html`The node that serves this page does not answer; what you see is as it was.
          ${tickets.size ? " Looking for another node…" : ""} Jobs go on without it.
          ${commands.map((ticket) => html`<div>On ${ticket.name}: <code>${ticket.command}</code></div>`)}
          ${!commands.length && html`<div>On any machine of the cluster, <code>p2premap dashboard</code> prints a new link.</div>`}`}
  </div>`;
}

export function Login() {
  return html`<div class="banner" role="alert">
    This browser is not logged in. Type <code>p2premap dashboard</code> on this machine, and open the link that it prints.
  </div>`;
}
