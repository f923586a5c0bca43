// The form that hands a job in.
import { html, useState } from "./vendor/preact-htm.js";
import { Act } from "./parts.js";
import { ask, Refused, useAnswer } from "./store.js";

export function Submit() {
  const { data, error } = useAnswer("api/v1/files");
  const [form, set] = useState({ file: "", other: "", upload: null, inputs: "", name: "", options: "", requires: "" });
  const change = (field) => (event) => set({ ...form, [field]: event.target.value });
  const choose = async (event) => {
    const [file] = event.target.files;
    set({ ...form, upload: file ?? null });
  };
  const submit = async () => {
    const job = { file: await fileOf(form), inputs: lines(form.inputs) };
    if (form.name) job.name = form.name;
    if (form.requires) job.requires = lines(form.requires);
    if (form.options) job.options = options(form.options);
    return ask("POST", "api/v1/jobs", job);
  };
  const files = data?.items ?? data ?? [];
  return html`<section aria-labelledby="new-title" class="form">
    <h1 id="new-title">Hand a job in</h1>
    ${error && html`<p class="error">${error}</p>`}
    <label>
      Job file
      <select value=${form.file} onChange=${change("file")}>
        <option value="">by its path, or from this computer</option>
        ${files.map((file) => html`<option value=${file.name}>${file.name}${file.text ? ` – ${file.text}` : ""}</option>`)}
      </select>
    </label>
    ${!form.file &&
    html`<label>Path on the node's machine <input value=${form.other} onInput=${change("other")} placeholder="/home/ada/count.py" /></label>
      <label>or a file from this computer <input type="file" accept=".py,.zip" onChange=${choose} /></label>`}
    <label>
      Inputs, one a line: paths on the node's machine, globs, URLs; values for an action
      <textarea rows="4" value=${form.inputs} onInput=${change("inputs")} placeholder="/home/ada/texts/*.txt"></textarea>
    </label>
    <label>Name <input value=${form.name} onInput=${change("name")} /></label>
    <details>
      <summary>More</summary>
      <label>Options, NAME=VALUE, one a line <textarea rows="3" value=${form.options} onInput=${change("options")}></textarea></label>
      <label>What a node must have, one a line <textarea rows="2" value=${form.requires} onInput=${change("requires")} placeholder="memory >= 4G"></textarea></label>
    </details>
    <${Act} label="Hand in" kind="main" does=${submit} then=${(job) => (location.hash = `#/jobs/${job.id}`)} />
  </section>`;
}

function lines(text) {
  return text.split("\n").map((line) => line.trim()).filter(Boolean);
}

function options(text) {
  return Object.fromEntries(
    lines(text).map((line) => {
      const at = line.indexOf("=");
      if (at < 1) throw new Refused(`An option is NAME=VALUE, and “${line}” is not.`);
      return [line.slice(0, at).trim(), line.slice(at + 1).trim()];
    }),
  );
}

async function fileOf(form) {
  if (form.file) return form.file;
  if (form.other) return form.other;
  if (!form.upload) throw new Refused("Choose a job file first.");
  const data = await ask("POST", `api/v1/uploads?name=${encodeURIComponent(form.upload.name)}`, form.upload);
  return { upload: data.id };
}
