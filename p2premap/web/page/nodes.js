// The machines: a ring, and what each is doing.
import { html, useState } from "./vendor/preact-htm.js";
import { bytes, percent, plural, short } from "./format.js";
import { Act, Fact } from "./parts.js";
import { ask, useAnswer, useWorld } from "./store.js";
import { sortedNodes } from "./world.js";

const SIZE = 320;

export function Nodes() {
  const world = useWorld();
  const nodes = sortedNodes(world).filter((node) => node.state !== "left");
  return html`<section aria-labelledby="nodes-title">
    <h1 id="nodes-title">Nodes</h1>
    <div class="columns">
      <${Ring} nodes=${nodes} />
      <${Cluster} cluster=${world.cluster} nodes=${nodes} />
    </div>
    <table>
      <thead>
        <tr><th>Node</th><th>State</th><th class="num">Slots</th><th class="num">Load</th><th class="num">Memory free</th><th>System</th><th><span class="hidden">Steer</span></th></tr>
      </thead>
      <tbody>${nodes.map((node) => html`<${Row} key=${node.id} node=${node} />`)}</tbody>
    </table>
  </section>`;
}

function Ring({ nodes }) {
  const middle = SIZE / 2;
  const far = middle - 44;
  const radius = Math.max(4, Math.min(18, (Math.PI * far) / Math.max(nodes.length, 1) - 2));
  const names = nodes.length <= 24;
  return html`<figure class="ring">
    <svg viewBox="0 0 ${SIZE} ${SIZE}" role="img" aria-label=${`${plural(nodes.length, "node")} in a ring`}>
      <circle cx=${middle} cy=${middle} r=${far} class="track" />
      ${nodes.map((node, index) => {
        const angle = (2 * Math.PI * index) / nodes.length - Math.PI / 2;
        const x = middle + far * Math.cos(angle);
        const y = middle + far * Math.sin(angle);
        const busy = node.slots ? node.busy / node.slots : 0;
        return html`<g key=${node.id} class="node ${node.state}">
          <title>${node.name}: ${node.state}, ${node.busy} of ${plural(node.slots, "slot")} busy</title>
          <circle cx=${x} cy=${y} r=${radius} class="back" />
          <circle cx=${x} cy=${y} r=${radius * Math.sqrt(Math.min(busy, 1))} class="busy" />
          <circle cx=${x} cy=${y} r=${radius} class="edge" />
          ${names && html`<text x=${x} y=${y + radius + 13} text-anchor="middle">${node.name}</text>`}
        </g>`;
      })}
    </svg>
    <figcaption class="small">Filled as far as its slots are busy.</figcaption>
  </figure>`;
}

function Cluster({ cluster, nodes }) {
  if (!cluster) return html`<p class="empty">Looking…</p>`;
  const alive = nodes.filter((node) => node.state === "alive");
  const slots = alive.reduce((sum, node) => sum + node.slots, 0);
  const busy = alive.reduce((sum, node) => sum + node.busy, 0);
  return html`<div>
    <dl class="facts">
      <${Fact} name="Cluster">${cluster.open_name || cluster.cluster}<//>
      <${Fact} name="Nodes">${alive.length} alive, ${cluster.dead} dead<//>
      <${Fact} name="Slots">${busy} of ${slots} busy<//>
      <${Fact} name="Key epoch">${cluster.key_epoch}<//>
      <${Fact} name="Serves this page">${cluster.node.name}<//>
    </dl>
    ${cluster.warnings.map((text) => html`<p class="note">${text}</p>`)}
    ${cluster.forks.length
      ? html`<p class="note">Jobs that were forked by a cut: ${cluster.forks.map((id) => html` <a href=${`#/jobs/${id}`}>${short(id)}</a>`)}</p>`
      : ""}
    ${cluster.foreign.map((other) => html`<p class="small">Another cluster at ${other.address}. <code>${other.hint}</code></p>`)}
  </div>`;
}

function Row({ node }) {
  const [open, setOpen] = useState(false);
  return html`<tr class=${node.state === "alive" ? "" : "faint"}>
      <td data-label="Node"><span>${node.name}${node.me ? html` <span class="badge">serves this page</span>` : ""}</span></td>
      <td data-label="State">${node.state}${node.on_battery ? html` <span class="badge">on battery</span>` : ""}${node.held_back ? html`<div class="small">${node.held_back}</div>` : ""}</td>
      <td data-label="Slots" class="num">${node.busy}/${node.slots}</td>
      <td data-label="Load" class="num">${percent(node.load)}</td>
      <td data-label="Memory free" class="num">${bytes(node.memory_free_bytes)} of ${bytes(node.memory_bytes)}</td>
      <td data-label="System">${node.system}, Python ${node.python}</td>
      <td><button type="button" aria-label=${`${open ? "Close" : "Steer"} ${node.name}`} aria-expanded=${open} onClick=${() => setOpen(!open)}>${open ? "Close" : "Steer"}</button></td>
    </tr>
    ${open && html`<tr><td colspan="7"><${Steer} node=${node} /></td></tr>`}`;
}

function Steer({ node }) {
  const path = `api/v1/nodes/${node.id}`;
  const [slots, set] = useState(node.slots);
  const { data } = useAnswer(`${path}/why`, 5);
  return html`<div class="row steer">
    <label>Worker processes <input type="number" min="0" max="1024" value=${slots} onInput=${(e) => set(Number(e.target.value))} /></label>
    <${Act} label="Set" said="It is so." does=${() => ask("PATCH", path, { slots })} />
    <${Act} label="Drain" kind="danger" sure=${`Drain ${node.name}? It ends what it runs, hands its jobs over, and stops.`} does=${() => ask("POST", `${path}/drain`, {})} />
    <p class="small">${data?.text ?? ""}</p>
    <p class="small">${node.addresses.join(", ")} · id ${short(node.id)} · pid ${node.pid} · p2premap ${node.version}${node.tags.length ? ` · ${node.tags.join(", ")}` : ""}</p>
  </div>`;
}
