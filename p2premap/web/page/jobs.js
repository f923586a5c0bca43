// The list of jobs.
import { html, useState } from "./vendor/preact-htm.js";
import { clock, count, seconds, short } from "./format.js";
import { Bar, Phase } from "./parts.js";
import { useWorld } from "./store.js";
import { isOver, pace, sortedJobs } from "./world.js";

const SHOWN = 100;

export function Jobs() {
  const world = useWorld();
  const [wanted, want] = useState("");
  const [most, setMost] = useState(SHOWN);
  const all = sortedJobs(world).filter(
    (job) => !wanted || `${job.name} ${job.kind} ${job.phase} ${job.id}`.toLowerCase().includes(wanted.toLowerCase()),
  );
  return html`<section aria-labelledby="jobs-title">
    <div class="row spread">
      <h1 id="jobs-title">Jobs</h1>
      <input
        type="search"
        placeholder="name, kind, phase or id"
        aria-label="Show only jobs with"
        value=${wanted}
        onInput=${(event) => want(event.target.value)}
      />
    </div>
    ${all.length
      ? html`<table class="jobs">
          <thead>
            <tr>
              <th>Job</th>
              <th>Phase</th>
              <th>Progress</th>
              <th class="num">Tasks/s</th>
              <th class="num">Left</th>
              <th>Leader</th>
              <th class="num">Handed in</th>
            </tr>
          </thead>
          <tbody>
            ${all.slice(0, most).map((job) => html`<${Row} key=${job.id} world=${world} job=${job} />`)}
          </tbody>
        </table>`
      : html`<p class="empty">
          ${wanted
            ? "No job has that."
            : html`No jobs yet. <a href="#/new">Hand one in</a>, or type <code>p2premap run FILE INPUTS… -o OUT</code>.`}
        </p>`}
    ${all.length > most &&
    html`<button type="button" onClick=${() => setMost(most + SHOWN)}>Show more of ${count(all.length)}</button>`}
  </section>`;
}

function Row({ world, job }) {
  const { rate, left } = pace(world, job);
  const stage = job.stages[job.stages.length - 1];
  return html`<tr>
    <td data-label="Job">
      <a href=${`#/jobs/${job.id}`}>${job.name || short(job.id)}</a>
      <div class="small">${job.kind} · ${short(job.id)}</div>
    </td>
    <td data-label="Phase">
      <${Phase} phase=${job.phase} />
      ${job.error ? html`<div class="small error clip" title=${job.error}>${job.error}</div>` : ""}
      ${!job.error && job.note ? html`<div class="small clip" title=${job.note}>${job.note}</div>` : ""}
    </td>
    <td data-label="Progress" class="wide">
      <${Bar} job=${job} />
      ${stage && !isOver(job)
        ? html`<div class="small">${stage.name}: ${count(stage.done)} of ${count(stage.tasks)}</div>`
        : ""}
      ${isOver(job) && job.lasted_s ? html`<div class="small">took ${seconds(job.lasted_s)}</div>` : ""}
    </td>
    <td data-label="Tasks/s" class="num">${rate ? rate.toFixed(rate < 10 ? 1 : 0) : "–"}</td>
    <td data-label="Left" class="num">${isNaN(left) ? "–" : seconds(left)}</td>
    <td data-label="Leader">${job.leader.name || "–"}${job.takeovers ? html` <span class="badge" title="takeovers">↻ ${job.takeovers}</span>` : ""}</td>
    <td data-label="Handed in" class="num">${clock(job.submitted_at)}</td>
  </tr>`;
}
