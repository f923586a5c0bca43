// What the cluster looks like, made from the events of docs/api.md. Plain data: no page, no network.

export const TASKS_KEPT_S = 120;
const TASKS_MAX = 20000;
const POINTS = 600;

export function newWorld() {
  return {
    at: 0, // of the last event, by the server's clock
    skew: 0, // what to add to this machine's clock to have the server's
    cluster: null,
    nodes: new Map(),
    jobs: new Map(),
    tasks: new Map(), // attempts by their key, in the order in which they were first told
    leftOut: 0,
    ended: 0, // tasks, since this page has looked
    graph: { at: [], rate: [], running: [], waiting: [] },
  };
}

export function keyOf(task) {
  return `${task.node} ${task.job} ${task.stage} ${task.task} ${task.attempt}`;
}

export function apply(world, kind, event, now = Date.now() / 1000) {
  if (kind === "snapshot") {
    world.nodes.clear();
    world.jobs.clear();
    world.tasks.clear();
  }
  world.at = event.at;
  world.skew = event.at - now;
  for (const node of event.nodes ?? []) world.nodes.set(node.id, node);
  for (const id of event.nodes_gone ?? []) world.nodes.delete(id);
  for (const job of event.jobs ?? []) world.jobs.set(job.id, { seen_at: event.at, ...job });
  for (const id of event.jobs_gone ?? []) world.jobs.delete(id);
  if (event.cluster) world.cluster = event.cluster;
  world.leftOut += event.left_out ?? 0;
  let ended = 0;
  for (const task of event.tasks ?? []) {
    world.tasks.set(keyOf(task), task);
    if (task.ended_at !== null) ended += task.tasks;
  }
  forget(world);
  if (kind === "snapshot") ended = 0;
  world.ended += ended;
  measure(world, ended);
  return world;
}

function forget(world) {
  const oldest = world.at - TASKS_KEPT_S;
  for (const [key, task] of world.tasks) {
    if (world.tasks.size <= TASKS_MAX && (task.ended_at === null || task.ended_at > oldest)) break;
    world.tasks.delete(key);
  }
}

// One point a second: tasks a second, tasks that run, tasks that wait.
function measure(world, ended, at = world.at) {
  const { graph } = world;
  const second = Math.floor(at);
  let running = 0;
  let waiting = 0;
  for (const job of world.jobs.values()) {
    if (job.phase !== "running" && job.phase !== "waiting") continue;
    for (const stage of job.stages) {
      running += stage.running;
      waiting += stage.tasks - stage.done - stage.running;
    }
  }
  const last = graph.at.length - 1;
  if (last >= 0 && graph.at[last] >= second) {
    graph.rate[last] += ended;
    graph.running[last] = running;
    graph.waiting[last] = waiting;
    return;
  }
  for (let gap = last >= 0 ? Math.max(graph.at[last] + 1, second - POINTS) : second; gap < second; gap += 1) {
    push(graph, gap, 0, graph.running[last] ?? 0, graph.waiting[last] ?? 0);
  }
  push(graph, second, ended, running, waiting);
}

// Nothing has been told for a while: then nothing has changed, and the graphs go on.
export function goOn(world, now = Date.now() / 1000) {
  if (world.at) measure(world, 0, now + world.skew);
}

function push(graph, at, rate, running, waiting) {
  graph.at.push(at);
  graph.rate.push(rate);
  graph.running.push(running);
  graph.waiting.push(waiting);
  if (graph.at.length > POINTS) for (const column of Object.values(graph)) column.shift();
}

export function isOver(job) {
  return job.phase === "done" || job.phase === "failed" || job.phase === "cancelled";
}

// Jobs, those that go on first, then the newest.
export function sortedJobs(world) {
  return [...world.jobs.values()].sort(
    (a, b) => isOver(a) - isOver(b) || b.submitted_at - a.submitted_at || (a.id < b.id ? -1 : 1),
  );
}

export function sortedNodes(world) {
  return [...world.nodes.values()].sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : a.id < b.id ? -1 : 1));
}

// How old a job is. It is not told again as long as nothing else of it changes.
export function age(world, job, now = Date.now() / 1000) {
  return !job.seen_at ? job.age_s : job.age_s + Math.max(now + world.skew - job.seen_at, 0);
}

// How fast a job goes, and how long it will go on, as far as that can be told.
export function pace(world, job) {
  const stage = job.stages[job.stages.length - 1];
  if (!stage || isOver(job)) return { rate: 0, left: NaN };
  const old = Math.max(age(world, job), 0.001);
  const rate = job.stages.reduce((sum, s) => sum + s.done, 0) / old;
  const left = job.progress > 0.02 ? (old * (1 - job.progress)) / job.progress : NaN;
  return { rate, left };
}
