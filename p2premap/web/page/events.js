// The stream of events, wherever it is followed: in the shared worker, or in a page that can have none.

const ADDRESS = new URL("../api/v1/events", import.meta.url);

// Tells {type: "state", state} and {type: "snapshot" or "update", event}; gives what closes it.
export function follow(tell) {
  const source = new EventSource(ADDRESS);
  const change = (state) => tell({ type: "state", state });
  source.onopen = () => change("live");
  source.onerror = () => change(source.readyState === EventSource.CLOSED ? "refused" : "lost");
  source.addEventListener("bye", () => change("lost"));
  for (const type of ["snapshot", "update"]) {
    source.addEventListener(type, (message) => {
      change("live");
      tell({ type, event: JSON.parse(message.data) });
    });
  }
  return () => source.close();
}
