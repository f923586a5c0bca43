// The page: where one is, and what is shown there.
import { html, render, useEffect, useState } from "./vendor/preact-htm.js";
import { Job } from "./job.js";
import { Jobs } from "./jobs.js";
import { Banner } from "./move.js";
import { Nodes } from "./nodes.js";
import { connect, link, useWorld } from "./store.js";
import { Stream } from "./stream.js";
import { Submit } from "./submit.js";

const VIEWS = [
  ["#/", "Jobs"],
  ["#/nodes", "Nodes"],
  ["#/stream", "Stream"],
  ["#/new", "New job"],
];

function useHash() {
  const [hash, set] = useState(location.hash || "#/");
  useEffect(() => {
    const look = () => {
      set(location.hash || "#/");
      scrollTo(0, 0);
      document.getElementById("main")?.focus({ preventScroll: true });
    };
    addEventListener("hashchange", look);
    return () => removeEventListener("hashchange", look);
  }, []);
  return hash;
}

function View({ hash }) {
  const [, name, id] = hash.split("/");
  if (name === "jobs" && id) return html`<${Job} key=${id} id=${id} />`;
  if (name === "nodes") return html`<${Nodes} />`;
  if (name === "stream") return html`<${Stream} />`;
  if (name === "new") return html`<${Submit} />`;
  return html`<${Jobs} />`;
}

function App() {
  const world = useWorld();
  const hash = useHash();
  const name = world.cluster?.node.name;
  const here = hash.startsWith("#/jobs") ? "#/" : hash;
  const [, view] = VIEWS.find(([to]) => to === here) ?? VIEWS[0];
  const job = world.jobs.get(hash.split("/")[2])?.name;
  useEffect(() => {
    document.title = [job ?? view, name, "p2premap"].filter(Boolean).join(" – ");
  }, [job, view, name]);
  return html`<a class="skip" href="#main" onClick=${(e) => (e.preventDefault(), document.getElementById("main").focus())}>To the content</a>
    <div class="top">
    <header>
      <a class="brand" href="#/">p2premap</a>
      <nav aria-label="Views">
        ${VIEWS.map(([to, label]) => html`<a href=${to} aria-current=${here === to ? "page" : undefined}>${label}</a>`)}
      </nav>
      <span class="link ${link.state}" title=${link.state}>${link.state === "live" ? name : link.state}</span>
    </header>
    <${Banner} />
    </div>
    <main id="main" tabindex="-1"><${View} hash=${hash} /></main>`;
}

connect();
const root = document.getElementById("app");
root.textContent = "";
render(html`<${App} />`, root);
