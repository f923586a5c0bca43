// Small pieces that several views use.
import { html, useState } from "./vendor/preact-htm.js";
import { percent } from "./format.js";
import { Refused } from "./store.js";

const SIGNS = { done: "✓", failed: "✗", cancelled: "◼", running: "▶", waiting: "…" };

export function Phase({ phase }) {
  return html`<span class="phase ${phase}"><span aria-hidden="true">${SIGNS[phase] ?? ""}</span> ${phase}</span>`;
}

export function Bar({ job }) {
  const done = job.progress;
  return html`<div
    class="bar ${job.phase}"
    role="progressbar"
    aria-valuemin="0"
    aria-valuemax="100"
    aria-valuenow=${Math.round(100 * done)}
    aria-label="done"
  >
    <div style=${{ width: `${100 * done}%` }}></div>
    <span>${percent(done)}</span>
  </div>`;
}

// A button that does something at a node, says when it could not, and asks before what cannot be undone.
export function Act({ label, does, sure = "", kind = "", said = "", then = () => {} }) {
  const [state, set] = useState({ busy: false, error: "", said: "" });
  const act = async () => {
    if (sure && !confirm(sure)) return;
    set({ busy: true, error: "", said: "" });
    try {
      const answer = await does();
      set({ busy: false, error: "", said: answer?.text ?? said });
      then(answer);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      set({ busy: false, error: error.message, said: "" });
    }
  };
  return html`<span class="act">
    <button type="button" class=${kind} disabled=${state.busy} onClick=${act}>${state.busy ? "…" : label}</button>
    ${state.error && html`<span role="alert" class="error">${state.error}</span>`}
    <span role="status">${state.said}</span>
  </span>`;
}

export function Fact({ name, children }) {
  return html`<div class="fact"><dt>${name}</dt><dd>${children}</dd></div>`;
}
