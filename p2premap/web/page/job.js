// The page of one job.
import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import { bytes, clock, count, plural, seconds, short } from "./format.js";
import { Graph } from "./graphs.js";
import { Act, Bar, Fact, Phase } from "./parts.js";
import { ask, useAnswer, useWorld } from "./store.js";
import { age, isOver, pace } from "./world.js";

export function Job({ id }) {
  const world = useWorld();
  const path = `api/v1/jobs/${id}`;
  const over = world.jobs.has(id) && isOver(world.jobs.get(id));
  const { data, error } = useAnswer(path, over ? 0 : 1);
  // what is fresh, and what lists leave out
  const whole = data && { detail: data.detail, skipped: data.skipped, unmet: data.unmet };
  const job = data ? { ...data, ...world.jobs.get(id), ...whole } : world.jobs.get(id);
  if (!job) return html`<p class="empty">${error || "Looking…"}</p>`;
  return html`<section aria-labelledby="job-title">
    <div class="row spread">
      <h1 id="job-title">${job.name || short(job.id)} <${Phase} phase=${job.phase} /></h1>
      <${Actions} job=${job} path=${path} />
    </div>
    <${Bar} job=${job} />
    ${job.error && html`<${Failure} job=${job} />`}
    ${job.note && html`<p class="note">${job.note}</p>`}
    <${Facts} world=${world} job=${job} />
    <div class="columns">
      <div>
        <${Stages} job=${job} />
        ${job.graph ? html`<${Supersteps} graph=${job.graph} />` : ""}
        <${Failed} path=${path} over=${over} />
        <${TriedAgain} failures=${job.failures ?? []} />
        ${job.skipped?.length ? html`<${Skipped} job=${job} />` : ""}
        ${job.unmet?.length ? html`<${Unmet} job=${job} />` : ""}
      </div>
      <div>
        <${History} job=${job} />
        <${Results} path=${path} over=${over} job=${job} />
        <${Log} path=${path} over=${over} />
      </div>
    </div>
  </section>`;
}

function Actions({ job, path }) {
  const open = (other) => (location.hash = `#/jobs/${other.id}`);
  return html`<div class="row">
    ${!isOver(job)
      ? html`<${Act} label="Cancel" kind="danger" sure=${`Cancel ${job.name || "the job"}? Its attempts are stopped everywhere.`} does=${() => ask("POST", `${path}/cancel`, {})} />`
      : html`<${Act} label="Run again" does=${() => ask("POST", `${path}/restart`, {})} then=${open} />
          <a class="button" href=${`${path}/report`} download=${`${job.name || job.id}.html`}>Save report</a>
          <${Act} label="Delete" kind="danger" sure="Forget this job, its results and its logs, on all nodes?" does=${() => ask("DELETE", path)} then=${() => (location.hash = "#/")} />`}
    ${job.fork ? html`<${Act} label="Accept this fork" sure="Make this fork the job?" does=${() => ask("POST", `${path}/accept`, {})} />` : ""}
  </div>`;
}

function Failure({ job }) {
  if (job.phase === "cancelled") return html`<p class="note">${job.error}</p>`;
  return html`<div class="failure" role="alert">
    <p>${job.error}</p>
    ${job.detail ? html`<pre tabindex="0" role="region" aria-label="traceback">${job.detail}</pre>` : ""}
  </div>`;
}

function Facts({ world, job }) {
  const { rate, left } = pace(world, job);
  const shuffled = job.stages.reduce((sum, stage) => sum + (stage.number > 0 ? stage.bytes_in : 0), 0);
  const lost = job.stages.reduce((sum, stage) => sum + stage.lost_attempts, 0);
  const spilled = job.stages.reduce((sum, stage) => sum + stage.spilled_bytes, 0);
  return html`<dl class="facts">
    <${Fact} name="Id">${short(job.id)}<//>
    <${Fact} name="Kind">${job.kind}<//>
    <${Fact} name="Leader">${job.leader.name || "nobody yet"}<//>
    <${Fact} name="Copies of the ledger">${job.replicas?.length ? job.replicas.map((r) => r.name).join(", ") : job.copies}<//>
    <${Fact} name="Handed in">${clock(job.submitted_at)}<//>
    <${Fact} name=${isOver(job) ? "Took" : "Age"}>${seconds(isOver(job) ? job.lasted_s || NaN : age(world, job))}<//>
    ${!isOver(job) && html`<${Fact} name="Left">${seconds(left)}<//>`}
    ${!isOver(job) && html`<${Fact} name="Pace">${rate.toFixed(1)} tasks/s<//>`}
    <${Fact} name="Retries">${count(job.retries)}<//>
    <${Fact} name="Backups of stragglers">${count(job.backups)}<//>
    <${Fact} name="Attempts lost with nodes">${count(lost)}<//>
    ${shuffled ? html`<${Fact} name="Moved between stages">${bytes(shuffled)}<//>` : ""}
    ${spilled ? html`<${Fact} name="Spilled to disk">${bytes(spilled)}<//>` : ""}
    <${Fact} name="Takeovers">${count(job.takeovers)}<//>
  </dl>`;
}

function Stages({ job }) {
  if (!job.stages.length) return html`<h2>Stages</h2><p class="empty">None is planned yet.</p>`;
  return html`<h2>Stages</h2>
    <table>
      <thead>
        <tr><th>Stage</th><th class="num">Done</th><th class="num">Runs</th><th class="num">Failed</th><th class="num">Read</th><th class="num">Records out</th><th class="num">Work</th></tr>
      </thead>
      <tbody>
        ${job.stages.map(
          (stage) => html`<tr key=${stage.number}>
            <td data-label="Stage">${stage.name}</td>
            <td data-label="Done" class="num">${count(stage.done)} of ${count(stage.tasks)}</td>
            <td data-label="Runs" class="num">${count(stage.running)}</td>
            <td data-label="Failed" class="num">${count(stage.failed_attempts)}</td>
            <td data-label="Read" class="num">${bytes(stage.bytes_done)}</td>
            <td data-label="Records out" class="num">${count(stage.records_out)}</td>
            <td data-label="Work" class="num">${seconds(stage.seconds)}</td>
          </tr>`,
        )}
      </tbody>
    </table>`;
}

function Supersteps({ graph }) {
  const { rows } = graph;
  return html`<h2>Supersteps</h2>
    <p class="small">
      ${plural(graph.vertices, "vertex", "vertices")}, ${plural(graph.edges, "edge")}; ${plural(graph.supersteps, "superstep")},
      ${" "}${plural(graph.checkpoints, "checkpoint")}${graph.why ? `. ${graph.why}` : ""}
    </p>
    ${rows.length > 1 &&
    html`<${Graph}
      label="Active vertices and mail, superstep by superstep"
      columns=${[rows.map((row) => row.superstep), rows.map((row) => row.active), rows.map((row) => row.sent)]}
      series=${[
        { label: "active", colour: "--run" },
        { label: "mail", colour: "--fetch" },
      ]}
      time=${false}
      across="superstep"
    />`}`;
}

function Failed({ path, over }) {
  const { data } = useAnswer(`${path}/tasks?state=failed&limit=20`, over ? 0 : 3);
  if (!data?.items?.length) return "";
  return html`<h2>Failures</h2>
    ${data.items.map((task) => html`<${FailedTask} key=${`${task.stage}.${task.task}`} path=${path} task=${task} />`)}`;
}

function TriedAgain({ failures }) {
  const good = failures.filter((one) => one.good);
  if (!good.length) return "";
  return html`<h2>Attempts that failed and were followed by better ones</h2>
    ${good.map(
      (one) => html`<details class="failure">
        <summary>${one.stage_name} ${one.task}, attempt ${one.attempt} on ${one.node.name}: ${one.outcome}. ${one.error}</summary>
        ${one.detail ? html`<pre tabindex="0" role="region" aria-label="traceback">${one.detail}</pre>` : ""}
      </details>`,
    )}`;
}

function FailedTask({ path, task }) {
  const [open, setOpen] = useState(false);
  return html`<details class="failure" onToggle=${(event) => setOpen(event.target.open)}>
    <summary>${task.stage_name} ${task.task}: ${task.error}</summary>
    ${open && html`<${Attempts} path=${path} task=${task} />`}
  </details>`;
}

function Attempts({ path, task }) {
  const { data, error } = useAnswer(`${path}/tasks/${task.stage}.${task.task}`);
  if (!data) return html`<p>${error || "Looking…"}</p>`;
  return html`<p>${data.why}</p>
    ${data.attempts.map(
      (attempt) => html`<p class="small">Attempt ${attempt.attempt}${attempt.node.name ? ` on ${attempt.node.name}` : ""}: ${attempt.outcome}. ${attempt.error}</p>
        ${attempt.detail ? html`<pre tabindex="0" role="region" aria-label="traceback">${attempt.detail}</pre>` : ""}`,
    )}
    <${Log} path=${path} over=${true} task=${`${task.stage}.${task.task}`} />`;
}

function Skipped({ job }) {
  return html`<h2>Left out</h2>
    <ul>
      ${job.skipped.map((row) => html`<li>${row.stage} ${row.task}: ${row.error}</li>`)}
    </ul>`;
}

function Unmet({ job }) {
  return html`<h2>What nodes lack</h2>
    <table>
      <thead><tr><th>Node</th><th>Lacks</th><th>Has</th></tr></thead>
      <tbody>${job.unmet.map((row) => html`<tr><td data-label="Node">${row.node}</td><td data-label="Lacks">${row.lacks}</td><td data-label="Has">${row.has}</td></tr>`)}</tbody>
    </table>`;
}

function History({ job }) {
  if (!job.history?.length) return "";
  return html`<h2>Who has led it</h2>
    <ol class="history">
      ${job.history.map((row, index) => html`<li key=${row.at}><b>${row.leader.name}</b> ${index ? "took over" : "began"} at ${clock(row.at)}</li>`)}
    </ol>`;
}

function Results({ path, over, job }) {
  const { data } = useAnswer(`${path}/results`, over ? 0 : 3);
  if (data?.url) return html`<h2>Output</h2><p>Written to <code>${data.url}</code>.</p>`;
  if (!data?.parts?.length) return job.phase === "done" ? html`<h2>Output</h2><p class="empty">It has none.</p>` : "";
  return html`<h2>Output</h2>
    <table>
      <thead><tr><th>Part</th><th class="num">Size</th><th class="num">Records</th><th>On</th></tr></thead>
      <tbody>
        ${data.parts.slice(0, 200).map(
          (part) => html`<tr key=${part.number}>
            <td data-label="Part"><a href=${part.href.replace(/^\//, "")} download=${part.name}>${part.name}</a></td>
            <td data-label="Size" class="num">${bytes(part.bytes)}</td>
            <td data-label="Records" class="num">${count(part.records)}</td>
            <td data-label="On">${part.nodes.join(", ")}</td>
          </tr>`,
        )}
      </tbody>
    </table>
    ${data.parts.length > 200 ? html`<p class="small">and ${plural(data.parts.length - 200, "more part")}</p>` : ""}`;
}

function Log({ path, over, task = "" }) {
  const { data } = useAnswer(`${path}/logs?tail=200${task && `&task=${task}`}`, over ? 0 : 2);
  const box = useRef(null);
  const read = useRef(true); // to the end: whoever has scrolled up is left there
  const look = ({ target }) => (read.current = target.scrollTop + target.clientHeight > target.scrollHeight - 8);
  useEffect(() => {
    if (box.current && read.current) box.current.scrollTop = box.current.scrollHeight;
  }, [data]);
  if (!data) return "";
  return html`${!task && html`<h2>Log</h2>`}<pre class="log" ref=${box} onScroll=${look} tabindex="0" role="region" aria-label="the end of the log">${data}</pre>`;
}
