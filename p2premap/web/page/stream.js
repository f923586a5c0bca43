// What every slot has done in the last minute: a canvas, because there are hundreds of attempts a second.
import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import { plural, seconds, short } from "./format.js";
import { Graph, colour, dark } from "./graphs.js";
import { useWorld, world } from "./store.js";
import { keyOf, sortedNodes } from "./world.js";

const WINDOW_S = 60;
const LANE = 14;
const GAP = 8;
const AXIS = 18;
const STEP_S = 10;
const SIGHT = 480; // pixels; what is more is scrolled: with AXIS, PADDING and border the max-height of the box
const LEFT = 110;
const PADDING = 10; // of the box around it, see style.css
const BAD = new Set(["raised", "crashed", "time_limit", "memory_limit", "input_lost"]);
const KINDS = ["run", "fetch", "spill", "retry", "backup", "failed"];
const WORDS = { fetch: "waiting for inputs", spill: "writing to disk what memory cannot hold" };

export function Stream() {
  const seen = useWorld();
  const { graph } = seen;
  return html`<section aria-labelledby="stream-title">
    <h1 id="stream-title">Task stream</h1>
    <p class="legend">
      ${KINDS.map((kind) => html`<span><i class="swatch ${kind}"></i>${WORDS[kind] ?? kind}</span>`)}
    </p>
    <${Chart} />
    ${seen.leftOut ? html`<p class="small">${plural(seen.leftOut, "attempt")} came too fast to be shown.</p>` : ""}
    <div class="columns">
      <${Graph} label="Tasks done in a second" columns=${[graph.at, graph.rate]} series=${[{ label: "tasks/s", colour: "--run" }]} />
      <${Graph}
        label="Tasks that run and that wait"
        columns=${[graph.at, graph.running, graph.waiting]}
        series=${[
          { label: "running", colour: "--run" },
          { label: "waiting", colour: "--fetch" },
        ]}
      />
    </div>
  </section>`;
}

function Chart() {
  const canvas = useRef(null);
  const [pointed, point] = useState(null);
  const shown = useRef(null);
  shown.current = pointed;
  useEffect(() => {
    const palette = {};
    const paint = () => {
      for (const name of [...KINDS, "ink", "quiet", "line", "card"]) palette[name] = colour(`--${name}`);
    };
    paint();
    dark.addEventListener("change", paint);
    let frame = 0;
    const draw = () => {
      frame = requestAnimationFrame(draw);
      drawStream(canvas.current, palette, shown.current);
    };
    draw();
    return () => {
      cancelAnimationFrame(frame);
      dark.removeEventListener("change", paint);
    };
  }, []);
  const look = (event) => {
    const box = canvas.current.getBoundingClientRect();
    point(taskAt(canvas.current, event.clientX - box.left, event.clientY - box.top));
  };
  const step = (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    point(beside(shown.current, by));
  };
  // only what is in sight is drawn: a canvas of fifty nodes would be thousands of pixels high
  return html`<div class="scroll" tabindex="0" role="group" aria-label="Attempts by node and slot; left and right go from one to the next" onKeyDown=${step}>
      <canvas ref=${canvas} role="img" aria-label=${spoken()} onMouseMove=${look} onMouseLeave=${() => point(null)}></canvas>
      <div></div>
    </div>
    <p class="small told" aria-live="polite">${pointed ? told(latest(pointed)) : "Point at an attempt, or go there with the arrow keys, to read what it is."}</p>`;
}

function spoken() {
  let running = 0;
  for (const task of world.tasks.values()) running += task.ended_at === null ? 1 : 0;
  return `Attempts of the last minute by node and slot; ${running} run now.`;
}

// As it is now: it may have ended since it was pointed at.
function latest(task) {
  return world.tasks.get(keyOf(task)) ?? task;
}

function told(task) {
  const job = world.jobs.get(task.job);
  const node = world.nodes.get(task.node);
  const took = task.ended_at === null ? "runs" : `${task.outcome} after ${seconds(task.ended_at - task.began_at)}`;
  const waited = task.fetch_s >= 0.01 ? ` It waited ${seconds(task.fetch_s)} for its inputs.` : "";
  const spilled = task.spill_s ? ` It wrote to disk for ${seconds(task.spill_s)} what did not fit into memory.` : "";
  const many = task.tasks > 1 ? ` and ${task.tasks - 1} more` : "";
  return `${job?.name ?? short(task.job)} ${task.stage}.${task.task}${many}, attempt ${task.attempt} on ${node?.name ?? "?"}: ${took}.${waited}${spilled} ${task.error ?? ""}`;
}

// The attempt of the last minute that began before or after this one, wherever it ran.
function beside(task, by) {
  const oldest = Date.now() / 1000 + world.skew - WINDOW_S;
  const shown = [...world.tasks.values()].filter((one) => (one.ended_at ?? Infinity) > oldest);
  shown.sort((a, b) => a.began_at - b.began_at || (keyOf(a) < keyOf(b) ? -1 : 1));
  const at = task ? shown.findIndex((one) => keyOf(one) === keyOf(task)) : -1;
  if (at < 0) return shown[by < 0 ? shown.length - 1 : 0] ?? null;
  return shown[Math.max(0, Math.min(at + by, shown.length - 1))];
}

// One lane a slot, nodes in order of name: where each begins, how high all are, and what of that is in sight.
function place(canvas) {
  const box = canvas.parentElement;
  const rows = new Map();
  let all = 0;
  for (const node of sortedNodes(world)) {
    if (node.state === "left" || (node.state === "dead" && !node.slots)) continue;
    const slots = Math.max(node.slots, 1);
    rows.set(node.id, { top: all, slots, node });
    all += slots * LANE + GAP;
  }
  const height = Math.min(Math.max(all, 40), SIGHT);
  const from = Math.max(Math.min(box.scrollTop, all - height), 0);
  return { rows, all, width: box.clientWidth - 2 * PADDING, height, from };
}

function fit(canvas, { all, width, height }) {
  const scale = devicePixelRatio;
  canvas.nextElementSibling.style.height = `${Math.max(all - height, 0)}px`;
  const tall = height + AXIS;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(tall * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(tall * scale);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${tall}px`;
  }
}

function drawTime(pen, { width, height }, left, palette) {
  const each = width < 500 ? 2 * STEP_S : STEP_S;
  for (let ago = 0; ago <= WINDOW_S; ago += each) {
    const x = left + ((WINDOW_S - ago) * (width - left)) / WINDOW_S;
    pen.fillStyle = palette.line;
    pen.fillRect(Math.min(x, width - 1), 0, 1, height + 3);
    pen.fillStyle = palette.quiet;
    pen.textAlign = ago === 0 ? "right" : ago === WINDOW_S ? "left" : "center";
    pen.fillText(ago === 0 ? "now" : `${ago} s ago`, x, height + AXIS / 2 + 2);
  }
  pen.textAlign = "left";
}

function drawStream(canvas, palette, pointed) {
  const seen = place(canvas);
  const { rows, width, height, from } = seen;
  fit(canvas, seen);
  const scale = devicePixelRatio;
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height + AXIS);
  pen.save();
  const now = Date.now() / 1000 + world.skew;
  const left = width < 500 ? 60 : LEFT;
  const perSecond = (width - left) / WINDOW_S;
  pen.font = "12px system-ui, sans-serif";
  pen.textBaseline = "middle";
  drawTime(pen, seen, left, palette);
  pen.beginPath();
  pen.rect(0, 0, width, height);
  pen.clip();
  const inSight = (row) => row && row.top < from + height && row.top + row.slots * LANE > from;
  for (const row of rows.values()) {
    if (!inSight(row)) continue;
    const top = row.top - from;
    pen.fillStyle = row.node.state === "alive" ? palette.ink : palette.quiet;
    pen.fillText(row.node.name, 0, top + (row.slots * LANE) / 2, left - 8);
    pen.fillStyle = palette.line;
    pen.fillRect(left, top + row.slots * LANE + GAP / 2 - 1, width - left, 1);
  }
  const marked = pointed && latest(pointed);
  for (const task of world.tasks.values()) {
    const row = rows.get(task.node);
    if (!inSight(row)) continue;
    const end = Math.min(task.ended_at ?? now, now);
    const begin = task.began_at - (task.fetch_s ?? 0);
    if (end < now - WINDOW_S) continue;
    const y = row.top - from + Math.min(task.slot, row.slots - 1) * LANE;
    const x0 = left + Math.max(begin - now + WINDOW_S, 0) * perSecond;
    const x1 = left + Math.max(task.began_at - now + WINDOW_S, 0) * perSecond;
    const x2 = left + Math.max(end - now + WINDOW_S, 0) * perSecond;
    if (x1 > x0 + 0.5) {
      pen.fillStyle = palette.fetch;
      pen.fillRect(x0, y + 3, x1 - x0, LANE - 6);
    }
    pen.fillStyle = palette[BAD.has(task.outcome) ? "failed" : task.kind] ?? palette.run;
    pen.fillRect(x1, y + 1, Math.max(x2 - x1, 1), LANE - 2);
    if (task.spill_s) {
      // how much of it, not when: it happens now and then
      pen.fillStyle = palette.card;
      pen.fillRect(x1, y + LANE - 6, Math.max(x2 - x1, 1), 1);
      pen.fillStyle = palette.spill;
      pen.fillRect(x1, y + LANE - 5, Math.max(Math.min(task.spill_s * perSecond, x2 - x1), 1), 4);
    }
    if (task === marked) {
      pen.strokeStyle = palette.ink;
      pen.strokeRect(x1 - 1, y, Math.max(x2 - x1, 1) + 2, LANE);
    }
  }
  pen.restore();
}

function taskAt(canvas, x, y) {
  const { rows, width, from } = place(canvas);
  const left = width < 500 ? 60 : LEFT;
  if (x < left) return null;
  const now = Date.now() / 1000 + world.skew;
  const at = now - WINDOW_S + (x - left) / ((width - left) / WINDOW_S);
  const slack = (1.5 * WINDOW_S) / (width - left);
  for (const task of world.tasks.values()) {
    const row = rows.get(task.node);
    const top = row ? row.top - from + Math.min(task.slot, row.slots - 1) * LANE : -LANE;
    if (y < top || y >= top + LANE) continue;
    if (task.began_at - slack <= at && at <= (task.ended_at ?? now) + slack) return task;
  }
  return null;
}
